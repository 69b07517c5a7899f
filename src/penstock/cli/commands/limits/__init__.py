"""The commands on limits and budgets."""
