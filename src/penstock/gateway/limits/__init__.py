"""Limits and budgets as one worker applies them: which rules a request falls under, and what it holds of each."""
