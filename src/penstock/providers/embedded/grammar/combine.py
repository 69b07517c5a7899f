"""Joins schemas that must all hold (allOf, and keywords beside anyOf or $ref) into one schema."""

from typing import Any

Schema = dict[str, Any]

ANNOTATIONS = frozenset(
    {
        "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment",
        "$schema", "$id", "contentMediaType", "contentEncoding", "discriminator", "$defs", "definitions",
    }
)  # fmt: skip


class CannotCombine(Exception):
    """Two schemas state the same keyword in ways that cannot be joined; the message names it."""


def assertions(schema: Schema) -> Schema:
    """The schema without its annotations."""
    return {key: value for key, value in schema.items() if key not in ANNOTATIONS}


def combined(first: Any, second: Any) -> Any:
    """A schema that holds exactly when both do. Raises CannotCombine."""
    if first is False or second is False:
        return False
    if not isinstance(first, dict) or not isinstance(second, dict):
        return second if first is True else first
    first, second = with_null(first), with_null(second)
    first, second = _closed_to(first, second), _closed_to(second, first)
    joined = dict(first)
    for key, value in second.items():
        if key not in joined or joined[key] == value:
            joined[key] = value
        elif key not in ANNOTATIONS:
            joined[key] = _types(joined[key], value) if key == "type" else _joined(key, joined[key], value)
    if joined.get("type") == []:
        return False
    if "const" in joined and "enum" in joined:
        joined["enum"] = [value for value in joined["enum"] if same(value, joined["const"])]
        del joined["const"]
    return joined


def with_null(schema: Schema) -> Schema:
    """The schema with OpenAPI's ``nullable`` written as a type; without a type beside it, it says nothing there."""
    nullable = schema.get("nullable")
    if not isinstance(nullable, bool):
        return schema
    plain = {key: value for key, value in schema.items() if key != "nullable"}
    kinds = [plain["type"]] if isinstance(plain.get("type"), str) else plain.get("type")
    if nullable and isinstance(kinds, list) and "null" not in kinds:
        plain["type"] = [*kinds, "null"]
    return plain


def same(first: Any, second: Any) -> bool:
    """Equality of JSON values: true is not 1."""
    return type(first) is type(second) and bool(first == second)


def _closed_to(schema: Schema, other: Schema) -> Schema:
    """The schema with the other's properties that its additionalProperties rules out or restricts."""
    extra = schema.get("additionalProperties", True)
    theirs, ours = other.get("properties"), schema.get("properties", {})
    if extra is True or not isinstance(theirs, dict) or not isinstance(ours, dict):
        return schema
    return {**schema, "properties": {**ours, **{name: extra for name in theirs if name not in ours}}}


def _joined(key: str, first: Any, second: Any) -> Any:
    try:
        if key in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
            return max(first, second)
        if key in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
            return min(first, second)
        if key == "required":
            return [*first, *(name for name in second if name not in first)]
        if key == "enum":
            return [value for value in first if any(same(value, other) for other in second)]
        if key == "properties":
            return {name: _both(first, second, name) for name in {**first, **second}}
        if key in ("items", "additionalProperties"):
            return {"allOf": [first, second]}
        if key == "allOf":
            return [*first, *second]
    except TypeError:
        pass
    raise CannotCombine(key)


def _both(first: Schema, second: Schema, name: str) -> Any:
    if name in first and name in second:
        return first[name] if first[name] == second[name] else {"allOf": [first[name], second[name]]}
    return first.get(name, second.get(name))


def _types(first: Any, second: Any) -> list[str]:
    ours = [first] if isinstance(first, str) else first
    theirs = [second] if isinstance(second, str) else second
    if not isinstance(ours, list) or not isinstance(theirs, list):
        raise CannotCombine("type")
    kept = [kind for kind in ours if kind in theirs or (kind == "integer" and "number" in theirs)]
    return kept + [kind for kind in theirs if kind == "integer" and "number" in ours and kind not in kept]
