"""The commands that read the ledger: usage and its exports, and what proves, compares and reprices it."""
