"""One module per noun: its routes and handlers."""
