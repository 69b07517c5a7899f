"""Answers that are given again: to a repeated Idempotency-Key, to a client that reconnects, and out of the cache."""
