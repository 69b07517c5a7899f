"""Reads the keywords of one type into a node. Raises ValueError for bad values, NotImplementedError for unsupported."""

from fractions import Fraction
from typing import Any

from penstock.providers.embedded.grammar.formats import FORMATS
from penstock.providers.embedded.grammar.nodes import Array, Never, Node, Number, Text
from penstock.providers.embedded.grammar.pattern import Regex, UnsupportedPattern, lengths, parse

_MAX_LENGTH = 2000
_MAX_PATTERN = 4000
_SMALL_CAP = 8


def has_type(value: Any, kind: str) -> bool:
    """Whether a JSON value is of a JSON Schema type."""
    match kind:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case _:
            return isinstance(value, int | float) and not isinstance(value, bool)


def text(schema: dict[str, Any]) -> Node:
    """A string by length, pattern or format."""
    shortest, longest = _count(schema, "minLength") or 0, _count(schema, "maxLength")
    if shortest > _MAX_LENGTH:
        raise NotImplementedError(f"'minLength' above {_MAX_LENGTH} cannot be enforced")
    if longest is not None and shortest > longest:
        return Never()
    if "pattern" not in schema and "format" not in schema:
        return Text(shortest, longest)
    regex = _regex(schema)
    least, greatest = lengths(regex, 0)
    if lengths(regex, _SMALL_CAP)[1] > _MAX_PATTERN:
        raise NotImplementedError(f"the pattern can match more than {_MAX_PATTERN} characters")
    if greatest > (longest if longest is not None else _MAX_PATTERN) or least < shortest:
        raise NotImplementedError("'pattern' or 'format' whose matches break the length bounds cannot be enforced")
    return Text(shortest, longest, regex)


def _regex(schema: dict[str, Any]) -> Regex:
    if "pattern" in schema and "format" in schema:
        raise NotImplementedError("'pattern' and 'format' together cannot be enforced")
    pattern = schema.get("pattern")
    if "format" in schema:
        form = schema["format"]
        if not isinstance(form, str) or form not in FORMATS:
            raise NotImplementedError(f"the format '{str(form)[:40]}' cannot be enforced (of {', '.join(FORMATS)})")
        pattern = FORMATS[form]
    if not isinstance(pattern, str):
        raise ValueError("has a 'pattern' that is not text")
    try:
        return parse(pattern)
    except UnsupportedPattern as error:
        raise NotImplementedError(f"the pattern cannot be enforced: {error}") from None


def number(schema: dict[str, Any], *, whole: bool) -> Node:
    """A number by its bounds."""
    low, low_open = _bound(schema, "minimum", "exclusiveMinimum", lower=True)
    high, high_open = _bound(schema, "maximum", "exclusiveMaximum", lower=False)
    return Number(low, high, low_open, high_open, whole)


def array(schema: dict[str, Any], node: Array) -> Node:
    """An array by the number of its items."""
    fewest, most = _count(schema, "minItems") or 0, _count(schema, "maxItems")
    if fewest > _MAX_LENGTH:
        raise NotImplementedError(f"'minItems' above {_MAX_LENGTH} cannot be enforced")
    if most is not None and fewest > most:
        return Never()
    return Array(node.prefix, node.rest, fewest, most)


def map_bounds(schema: dict[str, Any]) -> tuple[int, int | None]:
    """minProperties and maxProperties."""
    return _count(schema, "minProperties") or 0, _count(schema, "maxProperties")


def _count(schema: dict[str, Any], key: str) -> int | None:
    value = schema.get(key)
    if value is None:
        if key in schema:
            raise ValueError(f"has a '{key}' of null")
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"has a '{key}' that is not a whole number from 0")
    return value


def _bound(schema: dict[str, Any], closed: str, opened: str, *, lower: bool) -> tuple[Fraction | None, bool]:
    found: list[tuple[Fraction, bool]] = []
    for key in (closed, opened):
        value = schema.get(key)
        if value is None and key not in schema:
            continue
        if isinstance(value, bool) and key == opened:
            raise NotImplementedError(f"a '{key}' of true or false (draft 4) cannot be enforced")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"has a '{key}' that is not a number")
        if abs(value) > 1e30:
            raise NotImplementedError(f"a '{key}' beyond 1e30 cannot be enforced")
        # The shortest decimal that reads back as the same double, not the double's 50 exact digits.
        found.append((Fraction(repr(value)), key == opened))
    if not found:
        return None, False
    return max(found) if lower else min(found, key=lambda one: (one[0], not one[1]))
