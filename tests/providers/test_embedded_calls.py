"""Tool calls: forced ones, free ones, streamed ones, and the history of earlier ones."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from penstock.domain.errors import PenstockError
from penstock.providers.embedded.calls import CallScanner
from penstock.providers.embedded.grammar.build import call_grammar
from tests.engine.engines import RunningEngine, bound
from tests.providers.gbnf import parse, sample
from tests.providers.schemas import check

# An engine loads in up to half a minute on a busy machine, and compiles grammars.
pytestmark = pytest.mark.timeout(600)

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather now", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now"}},
]
NAMED = {"type": "function", "function": {"name": "now"}}


@pytest.mark.parametrize("seed", range(4))
def test_required_is_always_one_call_that_matches(engine: RunningEngine, seed: int) -> None:
    fields = {"tools": TOOLS, "tool_choice": "required", "temperature": 1.5, "seed": seed, "max_tokens": 120}
    (choice,) = engine.ask(user="Weather in Paris?", **fields)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert list(call) == ["id", "type", "function"]
    assert call["id"].startswith("call_")
    schemas = {"get_weather": WEATHER, "now": {"type": "object", "maxProperties": 0}}
    check(call["function"]["arguments"], schemas[call["function"]["name"]])


def test_a_named_tool_is_the_one_that_is_called(engine: RunningEngine) -> None:
    (choice,) = engine.ask(user="Weather in Paris?", tools=TOOLS, tool_choice=NAMED, max_tokens=60)["choices"]
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "now", "arguments": "{}"}


def test_a_streamed_call_begins_with_its_name_and_goes_on_with_fragments(engine: RunningEngine) -> None:
    chunks = engine.chunks(user="Weather in Rome?", tools=TOOLS[:1], tool_choice="required", max_tokens=120)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    (first, *fragments) = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks[1:-1]]
    assert first["function"] == {"name": "get_weather", "arguments": ""}
    assert (first["index"], first["type"]) == (0, "function")
    assert all(set(fragment) == {"index", "function"} and fragment["index"] == 0 for fragment in fragments)
    check("".join(fragment["function"]["arguments"] for fragment in fragments), WEATHER)
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("seed", range(4))
def test_parallel_calls_are_one_to_four_with_their_own_ids(engine: RunningEngine, seed: int) -> None:
    fields = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": True, "temperature": 1.4}
    (choice,) = engine.ask(user="Weather in Paris and Rome?", seed=seed, max_tokens=300, **fields)["choices"]
    calls = choice["message"]["tool_calls"]
    assert 1 <= len(calls) <= 4
    assert len({call["id"] for call in calls}) == len(calls)
    assert all(isinstance(json.loads(call["function"]["arguments"]), dict) for call in calls)


def test_a_stop_string_cannot_cut_a_forced_call(engine: RunningEngine) -> None:
    fields = {"tools": TOOLS[:1], "tool_choice": "required", "stop": ['"', "city"], "max_tokens": 120}
    (choice,) = engine.ask(user="Weather in Paris?", **fields)["choices"]
    check(choice["message"]["tool_calls"][0]["function"]["arguments"], WEATHER)
    assert engine.adapter.ignored(bound(user="x", **fields)) == ("stop",)


def test_a_call_cut_by_max_tokens_says_length(engine: RunningEngine) -> None:
    fields = {"tools": TOOLS[:1], "tool_choice": "required", "max_tokens": 12}
    assert engine.ask(user="Weather in Paris?", **fields)["choices"][0]["finish_reason"] == "length"


def test_auto_answers_in_text_when_the_model_does(engine: RunningEngine) -> None:
    (choice,) = engine.ask(user="Say hi.", tools=TOOLS, max_tokens=8)["choices"]
    assert "tool_calls" not in choice["message"]
    assert choice["message"]["content"]


# This small model begins no call by itself, so a schema whose only text holds the tag makes it write one.
BEGINS: dict[str, Any] = {
    "tools": TOOLS[:1],
    "response_format": {"type": "json_schema", "json_schema": {"schema": {"const": "Let me see. <tool_call>"}}},
}


def test_auto_turns_a_call_that_the_model_begins_into_a_valid_one(engine: RunningEngine) -> None:
    answer = engine.ask(user="Weather in Oslo?", **BEGINS, max_tokens=150, temperature=1.2, seed=4)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == '"Let me see. '
    check(choice["message"]["tool_calls"][0]["function"]["arguments"], WEATHER)
    events = engine.events(user="Weather in Oslo?", **BEGINS, max_tokens=150, temperature=1.2, seed=4, stream=True)
    assert sum(event.output_tokens for event in events) == answer["usage"]["completion_tokens"]


def test_a_streamed_call_of_the_models_own_follows_its_text(engine: RunningEngine) -> None:
    chunks = engine.chunks(user="Weather in Oslo?", **BEGINS, max_tokens=150, stop=["city"])
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == '"Let me see. '
    fragments = [one["function"].get("arguments", "") for chunk in chunks for one in delta_calls(chunk)]
    check("".join(fragments), WEATHER)
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("max_tokens", range(3, 12))
def test_a_call_of_the_models_own_keeps_to_max_tokens(engine: RunningEngine, max_tokens: int) -> None:
    answer = engine.ask(user="Weather in Oslo?", **BEGINS, max_tokens=max_tokens)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] <= max_tokens


def test_none_leaves_the_tools_out_of_the_prompt(engine: RunningEngine) -> None:
    without = engine.ask(user="Say hi.")["usage"]["prompt_tokens"]
    assert engine.ask(user="Say hi.", tools=TOOLS, tool_choice="none")["usage"]["prompt_tokens"] == without
    assert engine.ask(user="Say hi.", tools=TOOLS)["usage"]["prompt_tokens"] > without


def test_earlier_calls_and_results_reach_the_model(engine: RunningEngine) -> None:
    def prompt_tokens(result: str) -> int:
        messages = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "tool_calls": [call("Rome")]}]
        messages.append({"role": "tool", "tool_call_id": "c", "content": result})
        return int(engine.ask(messages=messages)["usage"]["prompt_tokens"])

    assert prompt_tokens("rain and a little snow in the evening") > prompt_tokens("rain") > 50


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "missing"}}])
def test_a_choice_without_its_tool_is_refused(engine: RunningEngine, choice: Any) -> None:
    with pytest.raises(PenstockError) as raised:
        engine.ask(user="x", tools=[] if choice == "required" else TOOLS, tool_choice=choice)
    assert (raised.value.code, raised.value.param) == ("invalid_value", "tool_choice")


def test_a_tool_that_cannot_be_enforced_is_refused_when_required(engine: RunningEngine) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}
    with pytest.raises(PenstockError) as raised:
        engine.ask(user="x", tools=[*TOOLS, tool], tool_choice="required")
    assert (raised.value.status, raised.value.param) == (400, "tools[2].function.parameters")


def test_a_tool_that_cannot_be_enforced_is_called_with_any_object(engine: RunningEngine) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {"required": ["z"]}}}}
    fields = {**BEGINS, "tools": [tool], "max_tokens": 600}
    (choice,) = engine.ask(user="Weather in Oslo?", **fields)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert isinstance(json.loads(call["function"]["arguments"]), dict)
    assert engine.adapter.ignored(bound(user="x", **fields)) == ("tools[0].function.parameters",)


@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 9), min_size=1, max_size=8), opened=st.booleans())
def test_calls_are_found_however_the_text_is_cut(seed: int, cuts: list[int], opened: bool) -> None:
    tricky = {"type": "object", "properties": {"s": {"type": "string", "pattern": r'^["\\{}\[\]</tool_call>]*$'}}}
    tool = {"type": "function", "function": {"name": 'a"b', "parameters": {**tricky, "required": ["s"]}}}
    chat = bound(user="x", tools=[*TOOLS, tool], parallel_tool_calls=True).chat
    assert chat.tools is not None
    text = sample(parse(call_grammar(chat, chat.tools, budget=400, opened=opened)), random.Random(seed))
    scanner = CallScanner("<tool_call>" if opened else "")
    calls: list[list[str]] = []
    at = turn = 0
    while at < len(text):
        size = cuts[turn % len(cuts)]
        for delta in scanner.feed(text[at : at + size]):
            assert delta.tool_calls is not UNSET
            for one in delta.tool_calls:
                assert one.function is not UNSET
                if one.id is not UNSET:
                    calls.append([str(one.function.name)])
                calls[int(str(one.index))].append(str(one.function.arguments))
        at, turn = at + size, turn + 1
    assert len(calls) == scanner.calls == text.count('"arguments":{')
    assert all(isinstance(json.loads("".join(call[1:])), dict) for call in calls)


def call(city: str) -> dict[str, Any]:
    """A call of an earlier turn."""
    return {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": json.dumps({"city": city})}}


def delta_calls(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    """The call fragments of a chunk."""
    found: list[dict[str, Any]] = chunk["choices"][0]["delta"].get("tool_calls", [])
    return found
