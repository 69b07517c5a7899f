"""JSON Schema to a grammar that the engine decodes by: checked first, bounded always."""
