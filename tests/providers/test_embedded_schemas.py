"""What a schema may not say is refused before anything is generated, with the place and the keyword."""

import random
from typing import Any

import pytest

from penstock.domain.errors import PenstockError
from penstock.providers.embedded.grammar.build import schema_grammar
from tests.providers.gbnf import parse, sample
from tests.providers.schemas import check

REFUSED: list[tuple[Any, str, str]] = [
    ({"type": "array", "uniqueItems": True}, "unsupported_schema", "uniqueItems"),
    ({"properties": {"a": {"not": {}}}}, "unsupported_schema", "/properties/a.*not"),
    ({"type": "number", "multipleOf": 0.5}, "unsupported_schema", "multipleOf"),
    ({"if": {}, "then": {}}, "unsupported_schema", "if"),
    ({"type": "object", "patternProperties": {"^a": {}}}, "unsupported_schema", "patternProperties"),
    ({"type": "object", "propertyNames": {"maxLength": 3}}, "unsupported_schema", "propertyNames"),
    ({"type": "object", "propertyNames": {"type": "integer"}}, "unsupported_schema", "propertyNames"),
    ({"type": "string", "nullable": "yes"}, "unsupported_schema", "nullable"),
    ({"type": "array", "items": [{"type": "integer"}]}, "unsupported_schema", "prefixItems"),
    ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, "unsupported_schema", "draft 4"),
    ({"oneOf": [{"type": "string", "nullable": True}, {"type": "null"}]}, "unsupported_schema", "oneOf"),
    ({"type": "array", "contains": {}}, "unsupported_schema", "contains"),
    ({"type": "string", "format": "regex"}, "unsupported_schema", "format 'regex'"),
    ({"type": "string", "pattern": "(?=a)b"}, "unsupported_schema", "pattern"),
    ({"type": "string", "pattern": r"(a)\1"}, "unsupported_schema", "pattern"),
    ({"type": "string", "pattern": r"\bword\b"}, "unsupported_schema", "pattern"),
    ({"type": "string", "pattern": "["}, "unsupported_schema", "pattern"),
    ({"type": "string", "pattern": "^(a{900}){900}$"}, "unsupported_schema", "pattern"),
    ({"type": "string", "pattern": "^a{9}$", "maxLength": 3}, "unsupported_schema", "length"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "unsupported_schema", "oneOf"),
    ({"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, "unsupported_schema", "anyOf"),
    ({"$ref": "https://example.com/x"}, "unsupported_schema", "ref"),
    ({"$ref": "#/$defs/missing"}, "invalid_value", "missing"),
    ({"$ref": "#"}, "unsupported_schema", "no finite"),
    ({"type": "text"}, "invalid_value", "type"),
    ({"type": "object", "properties": []}, "invalid_value", "properties"),
    ({"type": "object", "required": "a"}, "invalid_value", "required"),
    ({"type": "string", "minLength": -1}, "invalid_value", "minLength"),
    ({"type": "string", "minLength": "1"}, "invalid_value", "minLength"),
    ({"type": "integer", "minimum": "1"}, "invalid_value", "minimum"),
    ({"anyOf": []}, "invalid_value", "anyOf"),
    ({"items": 3, "type": "array"}, "invalid_value", "items"),
    ({"enum": "a"}, "invalid_value", "enum"),
    ({"type": "integer", "minimum": 3, "maximum": 2}, "unsupported_schema", "no finite"),
    ({"enum": [1], "type": "string"}, "unsupported_schema", "no finite"),
    ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "unsupported_schema", "no finite"),
    (False, "unsupported_schema", "no finite"),
    ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "unsupported_schema", "pattern"),
]


@pytest.mark.parametrize(("schema", "code", "said"), REFUSED)
def test_a_schema_that_cannot_be_enforced_is_refused(schema: Any, code: str, said: str) -> None:
    with pytest.raises(PenstockError, match=f"(?s).*{said}") as raised:
        schema_grammar(schema, budget=1000, where="response_format.json_schema.schema")
    assert raised.value.code == code
    assert raised.value.param == "response_format.json_schema.schema"


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(500):
        schema = {"type": "array", "items": schema}
    with pytest.raises(PenstockError, match="too deep"):
        schema_grammar(schema, budget=1000, where="x")


def test_annotations_change_nothing() -> None:
    plain = {"type": "object", "properties": {"a": {"type": "integer"}}}
    noted = {**plain, "title": "T", "description": "d", "$schema": "x", "default": {}, "examples": [1], "x-order": 3}
    assert schema_grammar(plain, budget=100, where="x") == schema_grammar(noted, budget=100, where="x")


KEPT = [
    {"type": "integer", "minimum": -57, "maximum": 1203},
    {"type": "integer", "minimum": 10**9, "maximum": 10**9 + 7},
    {"type": "integer", "exclusiveMinimum": 0},
    {"type": "number", "minimum": 0.0001, "maximum": 0.0002},
    {"type": "number", "exclusiveMinimum": -1.5, "exclusiveMaximum": -0.7},
    {"type": "number", "minimum": 0, "maximum": 0},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1e18},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"const": "x"}], "items": False},
    {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "null"}, "minItems": 2, "maxItems": 5},
    {"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2, "maxProperties": 2},
    {"type": "object", "required": ["x"], "additionalProperties": {"type": "boolean"}},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
               {"properties": {"a": {"minimum": 3}, "b": {"type": "null"}}, "required": ["b"]}]},
    {"allOf": [{"type": "object", "properties": {"a": {}}, "additionalProperties": False}, {"properties": {"b": {}}}]},
    {"type": "object", "properties": {"k": {"enum": [1, 2]}}, "anyOf": [{"required": ["k"]}, {"required": ["z"]}]},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b", "maxLength": 4}, "b": {"minLength": 2}}},
    {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "boolean"}}, {"const": 5}]},
    {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"type": "integer"}},
    {"type": "string", "format": "ipv6"},
    {"allOf": [{"type": "string", "nullable": True}, {"type": "string", "maxLength": 3}]},
    True,
    {},
]  # fmt: skip


@pytest.mark.parametrize("schema", KEPT)
def test_the_edges_of_the_subset_are_kept(schema: Any) -> None:
    choose = random.Random(5)
    for budget in (5, 100, 4000):
        rules = parse(schema_grammar(schema, budget=budget, where="x"))
        for _ in range(60):
            check(sample(rules, choose), schema)


@pytest.mark.parametrize("schema", [{"type": "integer", "nullable": True}, {"type": "integer", "enum": [7, None]}])
def test_nullable_adds_null_to_the_type(schema: Any) -> None:
    schema = {**schema, "nullable": True}
    rules, choose = parse(schema_grammar(schema, budget=100, where="x")), random.Random(3)
    written = {sample(rules, choose) for _ in range(60)}
    assert "null" in written
    assert len(written) > 1


def test_nullable_beside_an_enum_without_null_adds_nothing() -> None:
    schema = {"type": "string", "enum": ["a"], "nullable": True}
    assert sample(parse(schema_grammar(schema, budget=100, where="x")), random.Random(3)) == '"a"'
