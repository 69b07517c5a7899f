"""Settings: flags over environment over penstock.toml over defaults, read once into one frozen tree."""
