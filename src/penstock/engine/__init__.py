"""The embedded model: local weights, the native engine's child process and its restarts."""
