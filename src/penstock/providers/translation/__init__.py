"""What all dialects beside our own share: turns in, parts out, and what becomes of each parameter."""
