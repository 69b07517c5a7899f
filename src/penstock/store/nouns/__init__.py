"""The noun stores: one module per noun, each joining the transaction that its caller holds."""
