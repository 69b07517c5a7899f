"""What was used: the journal that survives a crash, and later the ledger made from it."""
