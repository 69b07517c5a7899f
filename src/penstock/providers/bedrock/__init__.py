"""Amazon Bedrock's dialect: Converse and ConverseStream."""
