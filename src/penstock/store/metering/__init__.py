"""Governance in SQL: leases of limits, what budgets have spent, and the ledger."""
