"""Limits and budgets: what operators set on keys, attachments, add-ons, apps and models."""
