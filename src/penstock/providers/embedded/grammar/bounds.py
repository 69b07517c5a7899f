"""The bounds that make every generation end, and what a node may cost in tokens under them."""

from typing import NamedTuple


class Bounds(NamedTuple):
    """Where a schema sets no bound of its own.

    ``text``: characters of a string; ``items``: array items and map entries beyond the minimum; ``depth``: nesting of
    values of any type; ``fuel``: how often recursive references are followed on one path.
    """

    text: int
    items: int
    depth: int
    fuel: int


# From the usual to the tightest: the first one under which the longest document fits the caller's max_tokens is used.
LADDER: tuple[Bounds, ...] = (
    Bounds(400, 16, 3, 5),
    Bounds(240, 12, 3, 4),
    Bounds(160, 8, 2, 4),
    Bounds(100, 6, 2, 3),
    Bounds(64, 5, 2, 3),
    Bounds(40, 4, 1, 2),
    Bounds(28, 3, 1, 2),
    Bounds(20, 2, 1, 2),
    Bounds(12, 2, 1, 1),
    Bounds(8, 1, 1, 1),
    Bounds(4, 1, 1, 1),
    Bounds(1, 1, 0, 1),
    Bounds(0, 0, 0, 1),
)
MAX_FUEL = 32
MAX_KEY = 24
# Estimated tokens for one character of free and of fixed text. English takes about a quarter of a token; the rest is
# reserve for odd text at high temperatures. The true bound, one token for a byte, would leave no room for words.
FREE_CHARACTER = 0.6
FIXED_CHARACTER = 0.5
