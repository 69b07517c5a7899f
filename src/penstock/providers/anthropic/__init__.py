"""The Anthropic Messages API, as the vendor and servers that imitate it speak it."""
