"""The embedded engine as an upstream: its listener's dialect, constrained decoding and tool calls."""
