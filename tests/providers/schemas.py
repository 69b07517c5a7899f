"""Hypothesis strategies of JSON Schemas within the supported subset, and the check that a document matches."""

import json
from typing import Any

import jsonschema
from hypothesis import strategies as st

FORMATS = ("date", "time", "date-time", "uuid", "email", "ipv4")
PATTERNS = (
    "^[a-z]{2,5}$", r"^\d{3}-[A-Z]+$", "^(yes|no|maybe)?$", "ab+c", r'^"[^"]*"$', r"^\\w\\$", "^.{0,6}x$",
    r"^\S+@\w+$", "^(?:[a-f0-9]{2}:){2}[a-f0-9]{2}$", "^[^a-z]*$|^none$", "é", r"^[\w.-]+$", "^[\"\\\\/]{1,3}$",
)  # fmt: skip
NAMES = st.sampled_from(["a", "b", "city", "näme", 'q"uote', "back\\slash", "two words", "", "n\nl", "日本"])
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(-2, 2).map(lambda x: round(x, 3)), st.text(max_size=4),
    st.sampled_from([[], [1, "x"], {}, {"k": [None]}]),
).filter(lambda value: "\ud800" not in json.dumps(value, ensure_ascii=False))  # fmt: skip


def _ordered(low: Any, high: Any) -> tuple[Any, Any]:
    return (low, high) if low <= high else (high, low)


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, Any]:
    """integer and number with bounds."""
    kind = draw(st.sampled_from(["integer", "number"]))
    if draw(st.booleans()):
        return {"type": kind}
    whole = st.integers(-2000, 2000)
    values = whole if kind == "integer" else st.one_of(whole, st.floats(-50, 50).map(lambda x: round(x, 2)))
    low, high = _ordered(draw(values), draw(values))
    schema: dict[str, Any] = {"type": kind}
    if draw(st.booleans()):
        schema["minimum"] = low
    elif draw(st.booleans()):
        schema["exclusiveMinimum"] = low - 1
    if draw(st.booleans()):
        schema["maximum"] = high
    elif draw(st.booleans()):
        schema["exclusiveMaximum"] = high + 1
    return schema


@st.composite
def strings(draw: st.DrawFn) -> dict[str, Any]:
    """string by length, pattern or format."""
    how = draw(st.integers(0, 3))
    if how == 0:
        low, high = _ordered(draw(st.integers(0, 6)), draw(st.integers(0, 12)))
        return {"type": "string", "minLength": low, "maxLength": high}
    if how == 1:
        return {"type": "string", "pattern": draw(st.sampled_from(PATTERNS))}
    return {"type": "string", "format": draw(st.sampled_from(FORMATS))} if how == 2 else {"type": "string"}


LEAVES = st.one_of(
    numbers(),
    strings(),
    st.sampled_from(
        [{"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}, {"type": ["integer", "boolean"]}]
    ),
    st.lists(VALUES, min_size=1, max_size=4).map(lambda values: {"enum": values}),
    VALUES.map(lambda value: {"const": value}),
)


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    """array with items, prefixItems and counts."""
    schema: dict[str, Any] = {"type": "array", "items": draw(inner)}
    if draw(st.booleans()):
        schema["minItems"], schema["maxItems"] = _ordered(draw(st.integers(0, 3)), draw(st.integers(0, 4)))
    if draw(st.integers(0, 3)) == 0:
        schema["prefixItems"] = draw(st.lists(inner, min_size=1, max_size=3))
    return schema


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    """object with properties, or as a map."""
    if draw(st.integers(0, 4)) == 0:
        return {"type": "object", "additionalProperties": draw(inner), "minProperties": draw(st.integers(0, 1))}
    names = draw(st.lists(NAMES, unique=True, max_size=4))
    schema: dict[str, Any] = {"type": "object", "properties": {name: draw(inner) for name in names}}
    schema["required"] = [name for name in names if draw(st.booleans())]
    if draw(st.booleans()):
        schema["additionalProperties"] = False
    return schema


def _wider(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    unions = st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options})
    joined = st.tuples(objects(inner), objects(st.just({"type": "boolean"}))).map(
        lambda pair: {"allOf": [pair[0], {**pair[1], "additionalProperties": True}]}
    )
    return st.one_of(arrays(inner), objects(inner), unions, joined)


SCHEMAS = st.recursive(LEAVES, _wider, max_leaves=8)


def check(text: str, schema: Any) -> None:
    """Raises unless the text is JSON that matches; formats are asserted."""
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    validator.validate(json.loads(text))
