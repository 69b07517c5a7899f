"""The OpenAI chat dialect: passed through, decoded only as far as the meter needs."""
