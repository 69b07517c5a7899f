"""Tools whose schemas are beyond the subset: any object when the model is free to call, refused otherwise."""

import json
import random
from typing import Any

import pytest

from penstock.domain.chat import ChatRequest
from penstock.domain.errors import PenstockError
from penstock.providers.embedded.grammar.build import call_grammar
from penstock.providers.embedded.sampling import ignored
from tests.engine.engines import bound
from tests.providers.gbnf import parse, sample
from tests.providers.schemas import check

KNOWN = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
BEYOND: list[dict[str, Any]] = [
    {"type": "object", "not": {"required": ["z"]}},
    {"type": "object", "properties": {"a": {"type": "number", "multipleOf": 0.5}}},
    {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}},
    {"type": "object", "properties": {"a": {"$ref": "https://example.com/x"}}},
    {"type": "object", "properties": {"a": {"type": "array", "items": [{"type": "string"}]}}},
    {"type": "object", "properties": {"a": False}, "required": ["a"]},
    {"type": "object", "$ref": "#"},
]
OVERLAPPING = {
    "type": "object",
    "properties": {"v": {"oneOf": [{"type": "integer"}, {"type": "number"}]}},
    "required": ["v"],
}
PASSWORD = {"type": "object", "properties": {"p": {"type": "string", "format": "password"}}, "required": ["p"]}
PLACE = "tools[1].function.parameters"
NAMED = {"type": "function", "function": {"name": "f1"}}


def asked(*schemas: Any, choice: Any = None, strict: bool | None = None) -> ChatRequest:
    """A request that offers functions f0, f1, ... with these parameters."""
    specs = [{"name": f"f{at}", "parameters": schema, "strict": strict} for at, schema in enumerate(schemas)]
    tools = [{"type": "function", "function": spec} for spec in specs]
    return bound(user="x", tools=tools, **({} if choice is None else {"tool_choice": choice})).chat


def calls(chat: ChatRequest, budget: int = 2000) -> list[dict[str, Any]]:
    """Calls that the grammar of the request writes."""
    assert chat.tools is not None
    rules, choose = parse(call_grammar(chat, chat.tools, budget=budget)), random.Random(11)
    texts = [sample(rules, choose) for _ in range(40)]
    return [json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>")) for text in texts]


@pytest.mark.parametrize("choice", [None, "auto"])
@pytest.mark.parametrize("schema", BEYOND)
def test_a_tool_beyond_the_subset_is_offered_with_any_object_and_named(schema: Any, choice: Any) -> None:
    chat = asked(KNOWN, schema, choice=choice)
    found = calls(chat)
    assert {call["name"] for call in found} == {"f0", "f1"}
    for call in found:
        check(json.dumps(call["arguments"]), KNOWN if call["name"] == "f0" else {"type": "object"})
    assert ignored(chat) == (PLACE,)


@pytest.mark.parametrize(("choice", "strict"), [("required", None), (NAMED, False), ("auto", True), (None, True)])
@pytest.mark.parametrize("schema", [*BEYOND, OVERLAPPING])
def test_a_promise_that_cannot_be_kept_is_refused(schema: Any, choice: Any, strict: bool | None) -> None:
    chat = asked(KNOWN, schema, choice=choice, strict=strict)
    assert chat.tools is not None
    with pytest.raises(PenstockError) as raised:
        call_grammar(chat, chat.tools[1:], budget=2000)
    assert (raised.value.code, raised.value.param) == ("unsupported_schema", PLACE)


def test_any_object_leaves_other_tools_their_wide_bounds() -> None:
    chat, alone = asked(KNOWN, PASSWORD, BEYOND[0]), asked(KNOWN, PASSWORD)
    assert chat.tools is not None
    assert alone.tools is not None
    grammar = call_grammar(chat, chat.tools, budget=1000)
    assert "character{0,400}" in grammar
    assert "character{0,400}" in call_grammar(alone, alone.tools, budget=1000)
    assert "character{0,400}" not in call_grammar(chat, chat.tools, budget=60)


@pytest.mark.parametrize("choice", ["auto", "required", NAMED])
def test_a_format_without_a_grammar_is_an_annotation_of_a_tool_that_is_not_strict(choice: Any) -> None:
    chat = asked(KNOWN, PASSWORD, choice=choice)
    for call in calls(chat):
        check(json.dumps(call["arguments"]), KNOWN if call["name"] == "f0" else PASSWORD)
    assert ignored(chat) == (PLACE,)


def test_a_format_without_a_grammar_is_refused_in_a_strict_tool() -> None:
    chat = asked(PASSWORD, strict=True)
    assert chat.tools is not None
    with pytest.raises(PenstockError, match="password"):
        call_grammar(chat, chat.tools, budget=2000)


def test_options_of_one_of_may_overlap_when_the_model_is_free_to_call() -> None:
    chat = asked(KNOWN, OVERLAPPING)
    assert all(isinstance(call["arguments"]["v"], int | float) for call in calls(chat) if call["name"] == "f1")
    assert ignored(chat) == (PLACE,)


def test_schemas_within_the_subset_and_tools_left_out_are_not_named() -> None:
    assert ignored(asked(KNOWN, None)) == ()
    assert ignored(asked(KNOWN, BEYOND[0], choice="none")) == ()
    assert ignored(asked(PASSWORD, KNOWN, choice=NAMED)) == ()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("OBJECT", f"{PLACE}.type: 'OBJECT' is not a JSON Schema type"),
        (["object", "nil"], f"{PLACE}.type: 'nil' is not a JSON Schema type"),
        (3, f"{PLACE}.type: '3' is not a JSON Schema type"),
        ([], f"{PLACE}.type: '[]' is not a JSON Schema type"),
        ("array", f"{PLACE}.type: must be 'object', not 'array'"),
    ],
)
def test_parameters_that_are_no_object_schema_are_refused_with_their_place(kind: Any, said: str) -> None:
    chat = asked(KNOWN, {"type": kind})
    assert chat.tools is not None
    with pytest.raises(PenstockError) as raised:
        call_grammar(chat, chat.tools, budget=2000)
    assert raised.value.message.startswith(said)
    assert (raised.value.code, raised.value.param) == ("invalid_value", f"{PLACE}.type")
