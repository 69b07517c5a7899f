"""The long tail of hosted providers through the library any-llm-sdk: the slower lane, an optional extra."""
