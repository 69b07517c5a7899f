"""Tells whether options can never hold at once: only then is oneOf the same as anyOf."""

from itertools import combinations
from typing import Any

from penstock.providers.embedded.grammar.combine import same, with_null
from penstock.providers.embedded.grammar.kinds import has_type

_ALL = ("object", "array", "string", "number", "boolean", "null")


def disjoint(options: list[Any]) -> bool:
    """Whether every pair of these schemas (without $ref at their top) is seen to exclude each other."""
    return all(_exclusive(first, second) for first, second in combinations(options, 2))


def _exclusive(first: Any, second: Any) -> bool:
    if first is False or second is False:
        return True
    if not isinstance(first, dict) or not isinstance(second, dict):
        return False
    ours, theirs = _values(first), _values(second)
    if ours is not None and theirs is not None:
        return not any(same(one, other) for one in ours for other in theirs)
    if not _kinds(first) & _kinds(second):
        return True
    if _kinds(first) & _kinds(second) == {"object"}:
        return any(_told_apart(first, second, name) for name in _required(first) & _required(second))
    return False


def _told_apart(first: dict[str, Any], second: dict[str, Any], name: str) -> bool:
    ours, theirs = _property(first, name), _property(second, name)
    if not isinstance(ours, dict) or not isinstance(theirs, dict) or "$ref" in {*ours, *theirs}:
        return False
    return _exclusive(ours, theirs)


def _property(schema: dict[str, Any], name: str) -> Any:
    properties = schema.get("properties")
    found = properties.get(name) if isinstance(properties, dict) else None
    return with_null(found) if isinstance(found, dict) else found


def _required(schema: dict[str, Any]) -> set[str]:
    required = schema.get("required")
    return {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()


def _values(schema: dict[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema["enum"] if isinstance(schema.get("enum"), list) else None


def _kinds(schema: dict[str, Any]) -> set[str]:
    """Types, with number standing for integer as well; every type when none is named."""
    values = _values(schema)
    if values is not None:
        return {kind for kind in _ALL if any(has_type(value, kind) for value in values)}
    kind = schema.get("type", list(_ALL))
    kinds = [kind] if isinstance(kind, str) else kind
    if not isinstance(kinds, list):
        return set()
    return {"number" if one == "integer" else str(one) for one in kinds}
