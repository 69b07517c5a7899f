"""JSON schemas as the vendors of structured output take them, whose grammars know less than JSON Schema."""

from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.domain.chat import Json

# What Claude's and Bedrock's grammars take beside what is handled below (both vendors' pages on structured output,
# 2026-11); a keyword that they do not know is a 400.
_KEPT = frozenset(("type", "enum", "const", "description", "title", "default", "required", "$ref"))
_NAMED = ("properties", "$defs", "definitions")
_LISTED = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}
_SAID_NOWHERE = frozenset(("$schema", "$id", "$comment", "additionalProperties", "strict"))
_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"),
)

Schema = dict[str, Any]


def of_object(schema: Mapping[str, Json] | None) -> Schema:
    """A tool's parameters, which always say that they are an object."""
    return {"type": "object", **(schema or {"properties": {}})}


def closed(schema: Json) -> Json:
    """The schema with every object closed, and told in a description what the grammars cannot hold a model to."""
    if not isinstance(schema, dict):
        return schema
    found: Schema = {}
    told: Schema = {}
    for name, value in schema.items():
        if name in _NAMED and isinstance(value, dict):
            found[name] = {key: closed(item) for key, item in value.items()}
        elif name in _LISTED and isinstance(value, list):
            found.setdefault(_LISTED[name], []).extend([closed(item) for item in value])
        elif name == "items":
            found[name] = closed(value)
        elif _is_known(name, value):
            found[name] = value
        elif name not in _SAID_NOWHERE:
            told[name] = value
    if "$ref" in found:  # which takes no neighbours
        return {name: found[name] for name in found if name in ("$ref", "$defs", "definitions")}
    if _is_object(found):
        found |= {"type": found.get("type", "object"), "additionalProperties": False}
    return found | _description(found, told) if told else found


def _description(found: Schema, told: Schema) -> Schema:
    text = ", ".join(f"{name}: {msgspec.json.encode(value).decode()}" for name, value in told.items())
    return {"description": f"{found.get('description') or ''}\n\n{{{text}}}".strip()}


def _is_known(name: str, value: Json) -> bool:
    return name in _KEPT or (name == "format" and str(value) in _FORMATS) or (name == "minItems" and value in (0, 1))


def _is_object(schema: Schema) -> bool:
    kind = schema.get("type")
    return (
        kind == "object" or (isinstance(kind, list) and "object" in kind) or (kind is None and "properties" in schema)
    )
