"""Grammar expressions for decimal numbers within bounds: digit by digit, so that no value outside can be written."""

from fractions import Fraction
from math import ceil, floor

from penstock.providers.embedded.grammar.nodes import Number

# Beyond this, doubles no longer hold every integer, and a strict bound could be rounded onto (IEEE 754: 2**53).
_EXACT = 10**15
_WHOLE_DIGITS = 9
_USUAL_DECIMALS = (1, 2)
_MOST_DECIMALS = 12


def number_rule(node: Number) -> tuple[str, int] | None:
    """An expression for the numbers of a node and the most characters it has; None when there is no such number."""
    if node.low is None and node.high is None:
        whole = '"-"? ("0" | [1-9] [0-9]{0,8})'
        return (whole, 10) if node.whole else (f'{whole} ("." [0-9]{{1,4}})?', 15)
    low, high = _closed(node)
    found = [_scaled(node, low, high, 0)]
    if not node.whole and max(abs(low), abs(high)) <= 10**9:
        found += [_scaled(node, low, high, decimals) for decimals in _USUAL_DECIMALS]
        if not any(found):
            found += [_scaled(node, low, high, decimals) for decimals in range(3, _MOST_DECIMALS + 1)]
    expressions = [one for one in found if one is not None]
    if not expressions:
        return None
    return " | ".join(text for text, _ in expressions), max(size for _, size in expressions)


def _closed(node: Number) -> tuple[Fraction, Fraction]:
    """Both bounds: an open end is put where nine digits end, or that far beyond the other bound."""
    reach = Fraction(10**_WHOLE_DIGITS)
    low, high = node.low, node.high
    if low is None:
        assert high is not None
        low = min(-reach, high - reach)
    if high is None:
        high = max(reach, low + reach)
    if low <= _EXACT < high:
        high = Fraction(_EXACT)
    if low < -_EXACT <= high:
        low = Fraction(-_EXACT)
    return low, high


def _scaled(node: Number, low: Fraction, high: Fraction, decimals: int) -> tuple[str, int] | None:
    """Numbers written with exactly that many decimals, as integers times 10**-decimals."""
    unit = 10**decimals
    first, last = ceil(low * unit), floor(high * unit)
    if node.low_open and node.low is not None and Fraction(first, unit) == node.low:
        first += 1
    if node.high_open and node.high is not None and Fraction(last, unit) == node.high:
        last -= 1
    if first > last:
        return None
    options: list[str] = []
    if first < 0:
        options += [f'"-" {text}' for text in _magnitudes(max(1, -last), -first, decimals)]
    if last >= 0:
        options += _magnitudes(max(0, first), last, decimals)
    return " | ".join(options), max(len(str(first)), len(str(last))) + decimals + 2


def _magnitudes(first: int, last: int, decimals: int) -> list[str]:
    """Expressions for first..last, one for each length, without a leading zero before other digits."""
    expressions = []
    shortest = decimals + 1
    for width in range(shortest, max(len(str(last)), shortest) + 1):
        low = max(first, 0 if width == shortest else 10 ** (width - 1))
        high = min(last, 10**width - 1)
        if low <= high:
            point = width - decimals if decimals else -1
            expressions.append(_between(f"{low:0{width}d}", f"{high:0{width}d}", 0, point))
    return expressions


def _between(low: str, high: str, at: int, point: int) -> str:
    """Digit strings of one width from ``low`` to ``high``; ``at`` is the position of their first digit."""
    if not low:
        return ""
    if set(low) == {"0"} and set(high) == {"9"}:
        return _any(len(low), at, point)
    if low[0] == high[0]:
        return _digits(low[0], low[0], at, point) + " " + _between(low[1:], high[1:], at + 1, point)
    rest = len(low) - 1
    first, last = int(low[0]), int(high[0])
    options = []
    if set(low[1:]) - {"0"}:
        tail = _between(low[1:], "9" * rest, at + 1, point)
        options.append(_digits(low[0], low[0], at, point) + " " + tail)
        first += 1
    if set(high[1:]) - {"9"}:
        tail = _between("0" * rest, high[1:], at + 1, point)
        options.append(_digits(high[0], high[0], at, point) + " " + tail)
        last -= 1
    if first <= last:
        options.append(_digits(str(first), str(last), at, point) + " " + _any(rest, at + 1, point))
    return "(" + " | ".join(options) + ")"


def _digits(low: str, high: str, at: int, point: int) -> str:
    return ('"." ' if at == point else "") + (f'"{low}"' if low == high else f"[{low}-{high}]")


def _any(count: int, at: int, point: int) -> str:
    if at <= point < at + count:
        before, after = point - at, at + count - point
        return (f"[0-9]{{{before}}} " if before else "") + f'"." [0-9]{{{after}}}'
    return f"[0-9]{{{count}}}" if count else ""
