"""Checks a JSON Schema keyword by keyword and turns it into nodes. What cannot be enforced is refused."""

from typing import Any

from penstock.domain.errors import PenstockError
from penstock.providers.embedded.grammar.combine import ANNOTATIONS, CannotCombine, assertions, combined, with_null
from penstock.providers.embedded.grammar.disjoint import disjoint
from penstock.providers.embedded.grammar.formats import FORMATS
from penstock.providers.embedded.grammar.kinds import array, has_type, map_bounds, number, text
from penstock.providers.embedded.grammar.nodes import (
    AnyOf,
    Anything,
    Array,
    Field,
    Literals,
    Map,
    Never,
    Node,
    Object,
    Reference,
    mark_recursion,
)
from penstock.providers.embedded.grammar.rules import json_text

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_BY_TYPE: dict[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
}
_ENFORCED = frozenset({"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"}).union(*_BY_TYPE.values())
# Keywords that say nothing in these values, which generators write out.
_EMPTY: dict[str, tuple[Any, ...]] = {
    "uniqueItems": (False,),
    "patternProperties": ({},),
    "dependentRequired": ({},),
    "propertyNames": ({"type": "string"}, {}, True),
}
_MAX_DEPTH = 48
_MAX_NODES = 3000
_MAX_VALUES = 2000


def read(schema: Any, where: str, *, any_format: bool = False, overlaps: bool = False) -> Node:
    """The node of a schema; ``where`` is the request field that holds it.

    ``any_format``: a format without a grammar is an annotation. ``overlaps``: the options of oneOf may overlap.
    Raises PenstockError unsupported_schema (a keyword that cannot be enforced) or invalid_value (no JSON Schema).
    """
    reader = _Reader(schema, where, any_format=any_format, overlaps=overlaps)
    node = reader.node(schema, "", 0)
    mark_recursion(list(reader.references.values()))
    return node


class _Reader:
    def __init__(self, root: Any, where: str, *, any_format: bool, overlaps: bool) -> None:
        self.references: dict[str, Reference] = {}
        self._root = root
        self._where = where
        self._any_format = any_format
        self._overlaps = overlaps
        self._count = 0

    def node(self, schema: Any, path: str, depth: int) -> Node:
        self._count += 1
        if depth > _MAX_DEPTH or self._count > _MAX_NODES:
            raise self._unsupported(path, "it is nested too deep or too large")
        if schema is True:
            return Anything()
        if schema is False:
            return Never()
        if not isinstance(schema, dict):
            raise self._bad(path, "is neither an object nor a boolean")
        schema = with_null(schema)
        self._check_keywords(schema, path)
        asserted = {key: value for key, value in assertions(schema).items() if key not in _EMPTY}
        try:
            return self._dispatch(asserted, path, depth)
        except CannotCombine as error:
            raise self._unsupported(path, f"two statements of '{error}' that must both hold cannot be joined") from None

    def _dispatch(self, schema: dict[str, Any], path: str, depth: int) -> Node:
        if "$ref" in schema:
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            if not rest:
                return self._reference(schema["$ref"], path, depth)
            return self.node(combined(self._resolved(schema["$ref"], path), rest), path, depth + 1)
        if "allOf" in schema:
            joined: Any = {key: value for key, value in schema.items() if key != "allOf"}
            for option in self._schemas(schema["allOf"], f"{path}/allOf"):
                joined = combined(joined, self._expanded(option, path))
            return self.node(joined, path, depth + 1)
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self._any_of(schema, key, path, depth)
        if "enum" in schema or "const" in schema:
            return self._literals(schema, path)
        kinds = self._kinds(schema, path)
        options = [self._of_kind(kind, schema, path, depth) for kind in kinds]
        return options[0] if len(options) == 1 else AnyOf(tuple(options))

    def _any_of(self, schema: dict[str, Any], key: str, path: str, depth: int) -> Node:
        rest = {name: value for name, value in schema.items() if name != key}
        listed = self._schemas(schema[key], f"{path}/{key}")
        apart = key == "anyOf" or self._overlaps or disjoint([self._expanded(option, path) for option in listed])
        if not apart:
            raise self._unsupported(f"{path}/oneOf", "its options can overlap; use anyOf")
        options = []
        for at, option in enumerate(listed):
            whole = combined(rest, self._expanded(option, path)) if rest else option
            options.append(self.node(whole, f"{path}/{key}/{at}", depth + 1))
        return AnyOf(tuple(options))

    def _reference(self, pointer: Any, path: str, depth: int) -> Reference:
        target = self._resolved(pointer, path)
        known = self.references.get(pointer)
        if known is None:
            known = self.references[pointer] = Reference()
            known.target = self.node(target, pointer.removeprefix("#"), depth + 1)
        return known

    def _resolved(self, pointer: Any, path: str) -> Any:
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            raise self._unsupported(f"{path}/$ref", "only references into the same schema (#/...) are followed")
        target = self._root
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and name.isdigit() and int(name) < len(target):
                target = target[int(name)]
            elif isinstance(target, dict) and name in target:
                target = target[name]
            else:
                raise self._bad(f"{path}/$ref", f"points at nothing ({pointer[:100]})")
        return target

    def _expanded(self, schema: Any, path: str) -> Any:
        """The schema with a top-level $ref replaced by what it points at."""
        for _ in range(_MAX_DEPTH):
            if not isinstance(schema, dict):
                return schema
            if "$ref" not in schema:
                return with_null(schema)
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            schema = combined(self._resolved(schema["$ref"], path), rest)
        raise self._bad(path, "has a $ref that leads back to itself")

    def _of_kind(self, kind: str, schema: dict[str, Any], path: str, depth: int) -> Node:
        if kind == "null":
            return Literals(("null",))
        if kind == "boolean":
            return Literals(("true", "false"))
        if kind == "any":
            return Anything()
        try:
            if kind in ("number", "integer"):
                return number(schema, whole=kind == "integer")
            if kind == "string":
                return text(self._without_annotation(schema))
            if kind == "array":
                return self._array(schema, path, depth)
            return self._object(schema, path, depth)
        except ValueError as error:
            raise self._bad(path, str(error)) from None
        except NotImplementedError as error:
            raise self._unsupported(path, str(error)) from None

    def _without_annotation(self, schema: dict[str, Any]) -> dict[str, Any]:
        form = schema.get("format")
        if not self._any_format or not isinstance(form, str) or form in FORMATS:
            return schema
        return {key: value for key, value in schema.items() if key != "format"}

    def _array(self, schema: dict[str, Any], path: str, depth: int) -> Node:
        listed = schema.get("prefixItems", [])
        prefix = self._schemas(listed, f"{path}/prefixItems") if listed != [] else []
        nodes = tuple(self.node(one, f"{path}/prefixItems/{at}", depth + 1) for at, one in enumerate(prefix))
        if isinstance(schema.get("items"), list):
            raise NotImplementedError("'items' as a list cannot be enforced; use 'prefixItems'")
        rest = self.node(schema.get("items", True), f"{path}/items", depth + 1)
        return array(schema, Array(nodes, None if isinstance(rest, Never) else rest))

    def _object(self, schema: dict[str, Any], path: str, depth: int) -> Node:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict):
            raise ValueError("'properties' must be an object")
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise ValueError("'required' must be a list of names")
        extra = schema.get("additionalProperties", True)
        fewest, most = map_bounds(schema)
        if "properties" not in schema and not required and extra is not False:
            value = self.node(extra, f"{path}/additionalProperties", depth + 1)
            if fewest > 1:
                raise NotImplementedError("'minProperties' above 1 without 'properties' cannot be enforced")
            return Map(value, fewest, most)
        listed = {**properties, **{name: extra for name in required if name not in properties}}
        fields = [
            Field(name, self.node(one, f"{path}/properties/{name}", depth + 1), name in required)
            for name, one in listed.items()
        ]
        return Object(_counted(fields, fewest, most))

    def _literals(self, schema: dict[str, Any], path: str) -> Node:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        if not isinstance(values, list) or len(values) > _MAX_VALUES:
            raise self._bad(path, f"must have an 'enum' list of at most {_MAX_VALUES} values")
        others = set(schema) - {"enum", "const", "type"}
        if others:
            raise self._unsupported(path, f"'{min(others)}' beside 'enum' or 'const' cannot be enforced")
        kinds = self._kinds(schema, path) if "type" in schema else TYPES
        kept = [value for value in values if any(has_type(value, kind) for kind in kinds)]
        if not kept:
            return Never()
        return Literals(tuple(json_text(value) for value in kept))

    def _kinds(self, schema: dict[str, Any], path: str) -> list[str]:
        """The types to write. Without ``type``, the one that the keywords speak of: any other would match too."""
        if "type" not in schema:
            spoken = [kind for kind, keywords in _BY_TYPE.items() if keywords & set(schema)]
            return spoken[:1] or ["any"]
        kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        if not isinstance(kinds, list) or not kinds or any(kind not in TYPES for kind in kinds):
            raise self._bad(path, f"has a 'type' that is not of {', '.join(TYPES)}")
        return kinds

    def _schemas(self, value: Any, path: str) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise self._bad(path, "must be a list of schemas")
        return value

    def _check_keywords(self, schema: dict[str, Any], path: str) -> None:
        for key, value in schema.items():
            known = key in _ENFORCED or key in ANNOTATIONS or key.startswith("x-")
            if not known and not (key in _EMPTY and value in _EMPTY[key]):
                raise self._unsupported(path, f"the keyword '{key[:60]}' cannot be enforced")

    def _unsupported(self, path: str, why: str) -> PenstockError:
        message = f"{self._where}: at '{path[:200] or '/'}' {why}. docs/structured-output.md lists what can be used."
        return PenstockError("unsupported_schema", message, param=self._where)

    def _bad(self, path: str, why: str) -> PenstockError:
        message = f"{self._where}: the schema at '{path[:200] or '/'}' {why}."
        return PenstockError("invalid_value", message, param=self._where)


def _counted(fields: list[Field], fewest: int, most: int | None) -> tuple[Field, ...]:
    """The fields with optional ones made required, or left out, until their number is within the bounds."""
    needed = fewest - sum(one.required for one in fields)
    kept: list[Field] = []
    for one in fields:
        kept.append(Field(one.name, one.node, one.required or needed > 0))
        needed -= not one.required
    if needed > 0:
        raise NotImplementedError("'minProperties' above the number of 'properties' cannot be enforced")
    if most is not None:
        room = most - sum(one.required for one in kept)
        if room < 0:
            raise ValueError("asks for more properties than 'maxProperties' allows")
        optional = [one for one in kept if not one.required][:room]
        kept = [one for one in kept if one.required or one in optional]
    return tuple(kept)
