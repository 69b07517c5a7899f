"""Schemas as the vendors of structured output take them."""

from typing import Any

import pytest

from penstock.providers.translation.schemas import closed, of_object

OBJECT = {"type": "object", "properties": {}}
SHUT = {"additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        (OBJECT, OBJECT | SHUT),
        (OBJECT | {"additionalProperties": True}, OBJECT | SHUT),
        ({"type": ["object", "null"]}, {"type": ["object", "null"]} | SHUT),
        ({"properties": {}}, OBJECT | SHUT),
        ({"type": "array", "items": OBJECT, "minItems": 1}, {"type": "array", "items": OBJECT | SHUT, "minItems": 1}),
        ({"oneOf": [OBJECT, {"type": "null"}]}, {"anyOf": [OBJECT | SHUT, {"type": "null"}]}),
        ({"type": "string", "const": "a", "title": "A"}, {"type": "string", "const": "a", "title": "A"}),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        (
            {"$ref": "#/$defs/X", "minimum": 1, "$defs": {"X": OBJECT}},
            {"$ref": "#/$defs/X", "$defs": {"X": OBJECT | SHUT}},
        ),
        (True, True),
    ],
)
def test_objects_are_closed_wherever_they_stand(schema: Any, sent: Any) -> None:
    assert closed(schema) == sent


@pytest.mark.parametrize("name", ["default", "enum", "const", "minimum", "$ref", "items", "format"])
def test_a_property_may_have_the_name_of_a_keyword(name: str) -> None:
    schema = {"type": "object", "properties": {name: OBJECT}}
    assert closed(schema) == {"type": "object", "properties": {name: OBJECT | SHUT}} | SHUT


def test_what_a_grammar_cannot_hold_a_model_to_stands_in_the_description() -> None:
    assert closed({"type": "integer", "minimum": 0, "maximum": 9}) == {
        "type": "integer",
        "description": "{minimum: 0, maximum: 9}",
    }
    said = closed({"type": "string", "format": "phone", "pattern": "^a", "description": "A phone."})
    assert said == {"type": "string", "description": 'A phone.\n\n{format: "phone", pattern: "^a"}'}
    assert closed({"$schema": "x", "type": "array", "minItems": 2}) == {
        "type": "array",
        "description": "{minItems: 2}",
    }


def test_a_tools_parameters_always_say_that_they_are_an_object() -> None:
    assert of_object(None) == OBJECT
    assert of_object({"properties": {"a": {}}}) == {"type": "object", "properties": {"a": {}}}
    assert of_object({"type": "object"}) == {"type": "object"}
