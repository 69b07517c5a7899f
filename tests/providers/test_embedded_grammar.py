"""Every document of a schema's grammar matches the schema, and every grammar has an end."""

import json
import random
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from hypothesis.errors import UnsatisfiedAssumption

from penstock.domain.errors import PenstockError
from penstock.providers.embedded.grammar.build import object_grammar, schema_grammar
from tests.engine.engines import SOAK, RunningEngine
from tests.providers.gbnf import parse, sample
from tests.providers.schemas import SCHEMAS, check

# An engine loads in up to half a minute on a busy machine, and compiles grammars.
pytestmark = pytest.mark.timeout(600)

# Shrinking a failure would ask the engine hundreds of times; the offline test above it shrinks.
WITH_ENGINE = settings(
    max_examples=25 if SOAK else 8, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)

TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["v", "kids"],
        }
    },
}
LINKED = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "at": {"type": "string", "format": "time"}},
    "required": ["next"],
    "additionalProperties": False,
}
SHAPES = {
    "oneOf": [
        {"type": "object", "properties": {"kind": {"const": "a"}, "r": {"type": "number"}}, "required": ["kind", "r"]},
        {"type": "object", "properties": {"kind": {"const": "b"}, "w": {"type": "string"}}, "required": ["kind", "w"]},
    ]
}


def grammar_of(schema: Any, budget: int) -> str:
    """The grammar; an example is given up when its schema allows nothing, or is a conjunction beyond the subset."""
    try:
        return schema_grammar(schema, budget=budget, where="schema")
    except PenstockError as error:
        refusal = error
    known = ("no finite JSON value", "cannot be joined", "'minProperties' above", "beside 'enum'")
    assert any(text in refusal.message for text in known), refusal.message
    raise UnsatisfiedAssumption


@settings(max_examples=250, deadline=None)
@given(schema=SCHEMAS, seed=st.integers(0, 2**32), budget=st.sampled_from([10, 60, 400, 4000]))
@example(schema=TREE, seed=1, budget=400)
@example(schema=LINKED, seed=1, budget=60)
@example(schema=SHAPES, seed=1, budget=60)
def test_whatever_the_grammar_writes_matches_the_schema(schema: Any, seed: int, budget: int) -> None:
    rules = parse(grammar_of(schema, budget))
    choose = random.Random(seed)
    for greedy in (False, False, True):
        check(sample(rules, choose, greedy=greedy), schema)


@WITH_ENGINE
@given(schema=SCHEMAS, temperature=st.floats(0.8, 1.5), seed=st.integers(0, 2**31))
@example(schema={"anyOf": [{"const": "\xcb\U000238da\U00092487\U000e8843"}]}, temperature=1.1, seed=4509)
@example(schema=TREE, temperature=1.5, seed=7)
@example(schema=SHAPES, temperature=1.2, seed=7)
def test_what_the_model_writes_matches_the_schema(
    engine: RunningEngine, schema: Any, temperature: float, seed: int
) -> None:
    grammar_of(schema, 200)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    answer = engine.ask(user="JSON:", response_format=form, temperature=temperature, seed=seed, max_tokens=200)
    choice = answer["choices"][0]
    if choice["finish_reason"] == "stop":
        check(choice["message"]["content"], schema)
    else:
        assert answer["usage"]["completion_tokens"] == 200


@settings(WITH_ENGINE, max_examples=15 if SOAK else 5)
@given(schema=SCHEMAS, temperature=st.floats(0.8, 1.5), seed=st.integers(0, 2**31))
def test_the_arguments_of_a_forced_call_match_the_schema(
    engine: RunningEngine, schema: Any, temperature: float, seed: int
) -> None:
    parameters = {"type": "object", "properties": {"value": schema}, "required": ["value"]}
    grammar_of(parameters, 200)
    tool = {"type": "function", "function": {"name": "save", "parameters": parameters}}
    fields = {"tools": [tool], "tool_choice": "required", "temperature": temperature, "seed": seed}
    choice = engine.ask(user="Save it.", max_tokens=200, **fields)["choices"][0]
    if choice["finish_reason"] == "tool_calls":
        (call,) = choice["message"]["tool_calls"]
        assert call["function"]["name"] == "save"
        check(call["function"]["arguments"], parameters)
    else:
        assert choice["finish_reason"] == "length"


@pytest.mark.parametrize("budget", [16, 64, 256])
@pytest.mark.parametrize("seed", range(3))
def test_a_document_fits_a_small_max_tokens(engine: RunningEngine, budget: int, seed: int) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "array"}}, "required": ["a", "b"]}
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    fields = {"response_format": form, "max_tokens": budget, "temperature": 1.5, "seed": seed}
    choice = engine.ask(user="Write a long story as JSON.", **fields)["choices"][0]
    assert choice["finish_reason"] == "stop"
    check(choice["message"]["content"], schema)


@pytest.mark.parametrize("seed", range(4))
def test_json_object_is_always_an_object(engine: RunningEngine, seed: int) -> None:
    form = {"type": "json_object"}
    fields = {"response_format": form, "max_tokens": 200, "temperature": 1.4, "seed": seed}
    choice = engine.ask(user="Describe a horse as JSON.", **fields)["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert isinstance(json.loads(choice["message"]["content"]), dict)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), budget=st.integers(1, 4000))
def test_the_object_grammar_writes_objects(seed: int, budget: int) -> None:
    rules = parse(object_grammar(budget=budget))
    assert isinstance(json.loads(sample(rules, random.Random(seed))), dict)


def test_a_stream_cut_by_max_tokens_says_length(engine: RunningEngine) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "string", "minLength": 300}}}
    choice = engine.ask(user="Write.", response_format=form, max_tokens=8)["choices"][0]
    assert choice["finish_reason"] == "length"
