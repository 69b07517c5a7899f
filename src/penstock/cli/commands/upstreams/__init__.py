"""The commands about what serves models: the catalogue, the providers behind it, and whether they work."""
