"""The bench: Penstock beside its peers, in one run, on one machine (docs/performance.md)."""
