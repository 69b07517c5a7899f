"""What values have in common."""

import msgspec


class Value(msgspec.Struct, frozen=True):
    """Fields that never change. The base of values in modules that are compiled, where the keywords of a class have no
    effect of their own (docs/decisions/0010); elsewhere, and for what is decoded, a struct says it itself."""
