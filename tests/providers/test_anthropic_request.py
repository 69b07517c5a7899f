"""What the Messages API is asked for: the body of every kind of request, and the refusals before it."""

import json
from typing import Any

import msgspec
import pytest

from penstock.domain.chat import BoundRequest, ChatRequest
from penstock.domain.errors import PenstockError
from penstock.providers.anthropic.claude import claude
from penstock.providers.anthropic.request import FIELDS, body, ignored
from penstock.providers.translation.fields import Handling

SONNET = "claude-sonnet-4-5-20250929"
USER = {"role": "user", "content": "Hello"}
WEATHER = {"name": "weather", "description": "Tells it.", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": WEATHER}, {"type": "function", "function": {"name": "time"}}]
PIXEL = "iVBORw0KGgo="


def chat(**fields: Any) -> ChatRequest:
    return msgspec.convert({"model": "public", "messages": [USER]} | fields, ChatRequest)


def asked(target: str = SONNET, *, prompt_caching: bool = True, **fields: Any) -> BoundRequest:
    """A request with these fields, bound to a target."""
    return BoundRequest(chat(**fields), b"", target, "chatcmpl-1", 0, "fp", prompt_caching=prompt_caching)


def said(target: str = SONNET, *, prompt_caching: bool = True, **fields: Any) -> dict[str, Any]:
    """The body that goes out for a request with these fields."""
    request = asked(target, prompt_caching=prompt_caching, **fields)
    sent: dict[str, Any] = json.loads(body(request))
    return sent


def refused(target: str = SONNET, **fields: Any) -> PenstockError:
    with pytest.raises(PenstockError) as caught:
        said(target, **fields)
    assert caught.value.status == 400
    return caught.value


def test_the_smallest_request_has_the_models_own_limit() -> None:
    hello = {"role": "user", "content": [{"type": "text", "text": "Hello"}]}
    assert said() == {"model": SONNET, "max_tokens": 64_000, "messages": [hello]}


def test_a_streamed_request_says_so() -> None:
    assert said(stream=True)["stream"] is True


@pytest.mark.parametrize(
    ("target", "asked", "sent"),
    [
        (SONNET, 100, 100),
        (SONNET, 1_000_000, 64_000),
        ("claude-3-haiku-20240307", None, 4_096),
        ("claude-3-7-sonnet-20250219", None, 8_192),
        ("claude-opus-4-20250514", 64_000, 32_000),
        ("claude-opus-5-5", None, 128_000),
        ("some-server's-own-name", 500_000, 500_000),
        ("some-server's-own-name", None, 8_192),
    ],
)
def test_max_tokens_is_always_there_and_never_above_what_the_model_can_write(
    target: str, asked: int | None, sent: int
) -> None:
    assert said(target, max_tokens=asked)["max_tokens"] == sent


def test_the_newer_name_of_max_tokens_wins() -> None:
    assert said(max_tokens=10, max_completion_tokens=20)["max_tokens"] == 20


def test_both_spellings_of_a_models_id_are_understood() -> None:
    assert claude("claude-4-6-sonnet") == claude("claude-sonnet-4-6")
    assert claude("anthropic/claude-3-5-haiku-latest") == claude("claude-3-5-haiku-20241022")
    assert claude("claude-opus-4@20250514") == claude("claude-opus-4-0")


def test_instructions_become_system_blocks_and_the_last_one_marks_the_cache() -> None:
    messages = [{"role": "system", "content": "One."}, {"role": "developer", "content": "Two."}, USER]
    one, two = {"type": "text", "text": "One."}, {"type": "text", "text": "Two."}
    assert said(messages=messages)["system"] == [one, two | {"cache_control": {"type": "ephemeral"}}]
    assert said(messages=messages, prompt_caching=False)["system"] == [one, two]


def test_tools_keep_their_schemas_and_the_last_one_marks_the_cache() -> None:
    weather = {"name": "weather", "description": "Tells it.", "input_schema": WEATHER["parameters"]}
    time = {"name": "time", "input_schema": {"type": "object", "properties": {}}}
    assert said(tools=TOOLS)["tools"] == [weather, time | {"cache_control": {"type": "ephemeral"}}]
    assert said(tools=TOOLS, prompt_caching=False)["tools"] == [weather, time]


def test_turns_carry_no_cache_marks() -> None:
    assert "cache_control" not in json.dumps(said()["messages"])


def test_images_go_as_addresses_or_as_base64() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "text", "text": "What is it?"},
    ]
    assert said(messages=[{"role": "user", "content": parts}])["messages"][0]["content"] == [
        {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
        {"type": "text", "text": "What is it?"},
    ]


def loop(reasoning: Any = None) -> list[dict[str, Any]]:
    """A conversation whose last turn holds the results of two calls."""
    calls = [
        {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
        {"id": "toolu_2", "type": "function", "function": {"name": "time", "arguments": ""}},
    ]
    return [
        USER,
        {"role": "assistant", "content": "Let me see.", "tool_calls": calls, "reasoning": reasoning},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "12 degrees"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": ""},
    ]


def test_calls_and_their_results_keep_their_ids_and_share_one_turn() -> None:
    _, assistant, user = said(messages=loop(), tools=TOOLS)["messages"]
    assert assistant["content"] == [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}},
    ]
    assert user == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "12 degrees"},
            {"type": "tool_result", "tool_use_id": "toolu_2"},
        ],
    }


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
        ({"tool_choice": {"type": "function", "function": {"name": "time"}}}, {"type": "tool", "name": "time"}),
        ({"parallel_tool_calls": True}, None),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_a_tool_choice_is_put_into_the_vendors_words(asked: dict[str, Any], sent: Any) -> None:
    assert said(tools=TOOLS, **asked).get("tool_choice") == sent


@pytest.mark.parametrize(("identity", "sent"), [("functions.weather:0", "functions_weather_0"), ("", "call")])
def test_another_vendors_ids_become_ones_that_claude_takes(identity: str, sent: str) -> None:
    calls = [{"id": identity, "function": {"name": "weather", "arguments": "{}"}}]
    history = [{"role": "assistant", "tool_calls": calls}, {"role": "tool", "tool_call_id": identity, "content": "12"}]
    _, assistant, user = said(messages=[USER, *history], tools=TOOLS)["messages"]
    assert assistant["content"][0]["id"] == user["content"][0]["tool_use_id"] == sent


@pytest.mark.parametrize(("kind", "sent"), [("jpg", "image/jpeg"), ("svg+xml", None)])
def test_an_image_has_a_type_that_the_vendor_takes(kind: str, sent: str | None) -> None:
    link = {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{PIXEL}"}}
    messages = [{"role": "user", "content": [link]}]
    if sent is None:
        assert refused(messages=messages).code == "invalid_value"
    else:
        assert said(messages=messages)["messages"][0]["content"][0]["source"]["media_type"] == sent


def test_a_tool_choice_without_tools_is_not_sent() -> None:
    assert "tool_choice" not in said(tool_choice="auto", parallel_tool_calls=False)


def test_sampling_passes_and_what_the_model_does_anyway_does_not() -> None:
    sent = said(temperature=0.5, top_k=5, stop="END")
    assert (sent["temperature"], sent["top_k"], sent["stop_sequences"]) == (0.5, 5, ["END"])
    assert said(stop=["a", "", "b"])["stop_sequences"] == ["a", "b"]
    assert said(temperature=1, top_p=0.5)["top_p"] == 0.5
    assert not {"temperature", "top_p"} & set(said("claude-opus-5", temperature=1, top_p=1))


def test_a_temperature_above_one_is_refused_even_where_parameters_may_be_ignored() -> None:
    assert refused(temperature=1.2).param == "temperature"
    assert "0 to 1" in refused(temperature=1.2, allow_ignored_params=True).message


@pytest.mark.parametrize(
    ("target", "fields", "param"),
    [
        (SONNET, {"temperature": 0.5, "top_p": 0.5}, "top_p"),
        ("claude-opus-4-8", {"temperature": 0.5}, "temperature"),
        ("claude-sonnet-5", {"top_p": 0.99}, "top_p"),
        ("claude-haiku-5-5", {"top_k": 5}, "top_k"),
        (SONNET, {"temperature": 0.5, "reasoning_effort": "low"}, "temperature"),
        (SONNET, {"top_p": 0.9, "reasoning_effort": "low"}, "top_p"),
        (SONNET, {"tools": TOOLS, "tool_choice": "required", "reasoning_effort": "low"}, "tool_choice"),
        ("claude-opus-5-5", {"tools": TOOLS, "tool_choice": "required"}, "tool_choice"),
        ("claude-3-5-haiku-20241022", {"reasoning_effort": "high"}, "reasoning_effort"),
        ("claude-3-5-haiku-20241022", {"extended_thinking": {"enabled": True}}, "extended_thinking"),
        ("claude-opus-5-5", {"reasoning_effort": "none"}, "reasoning_effort"),
        (SONNET, {"response_format": {"type": "json_object"}}, "response_format"),
        (
            "claude-3-7-sonnet-20250219",
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
            "response_format",
        ),
        (SONNET, {"stop": "\n\n"}, "stop"),
        (SONNET, {"min_p": 0.1}, "min_p"),
        (SONNET, {"modalities": ["audio"]}, "modalities"),
    ],
)
def test_what_a_model_cannot_honour_is_refused_or_left_out_and_named(
    target: str, fields: dict[str, Any], param: str
) -> None:
    error = refused(target, **fields)
    assert (error.code, error.param) == ("unsupported_parameter", param)
    lenient = fields | {"allow_ignored_params": True}
    sent = said(target, **lenient)
    assert param in ignored(asked(target, **lenient))
    choice = sent.get("tool_choice", {"type": "auto"})
    assert not {param, "output_config"} & (set(sent) - {"tool_choice"})
    assert choice == {"type": "auto"}


def test_a_stop_sequence_of_blanks_is_left_out_of_others() -> None:
    lenient: dict[str, Any] = {"stop": ["\n\n", "END"], "allow_ignored_params": True}
    assert said(**lenient)["stop_sequences"] == ["END"]
    assert ignored(asked(**lenient)) == ("stop",)
    assert "stop_sequences" not in said(stop="")


def test_who_asks_becomes_the_user_id() -> None:
    assert said(user="u-1", safety_identifier="s-1")["metadata"] == {"user_id": "u-1"}
    assert said(safety_identifier="s-1")["metadata"] == {"user_id": "s-1"}


def test_the_standard_tier_is_asked_for_by_its_name_there() -> None:
    assert said(service_tier="default")["service_tier"] == "standard_only"
    assert said(service_tier="auto")["service_tier"] == "auto"
    assert "service_tier" not in said(service_tier="flex")
    assert ignored(asked(service_tier="flex")) == ("service_tier",)


def test_a_schema_becomes_the_output_format_with_its_objects_closed() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "object", "additionalProperties": True}, "b": {"enum": [{"type": "object"}]}},
        "$defs": {"list": {"type": "array", "items": {"type": "object"}}},
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    sent = said(response_format=form)["output_config"]["format"]
    assert sent["type"] == "json_schema"
    assert sent["schema"] == {
        "type": "object",
        "properties": {"a": {"type": "object", "additionalProperties": False}, "b": {"enum": [{"type": "object"}]}},
        "$defs": {"list": {"type": "array", "items": {"type": "object", "additionalProperties": False}}},
        "additionalProperties": False,
    }


def test_a_strict_tool_is_strict_where_the_model_knows_the_word() -> None:
    tools = [{"type": "function", "function": WEATHER | {"strict": True}}]
    tool = said(tools=tools)["tools"][0]
    assert tool["strict"] is True
    assert tool["input_schema"]["additionalProperties"] is False
    assert "strict" not in said("claude-3-haiku-20240307", tools=tools)["tools"][0]


def test_blank_texts_are_left_out_and_a_prefill_does_not_end_with_a_blank() -> None:
    messages = [{"role": "user", "content": "  \n"}, USER, {"role": "assistant", "content": "I am "}]
    user, assistant = said(messages=messages)["messages"]
    assert user["content"] == [{"type": "text", "text": "Hello"}]
    assert assistant["content"] == [{"type": "text", "text": "I am"}]


def test_instructions_alone_are_refused() -> None:
    assert refused(messages=[{"role": "system", "content": "Be good."}]).param == "messages"


def test_the_table_holds_every_parameter_and_what_it_ignores_is_named() -> None:
    assert set(FIELDS) == set(ChatRequest.__struct_fields__) - {"model", "messages", "stream", "allow_ignored_params"}
    assert ignored(asked(seed=1, n=2, logprobs=True, metadata={"a": "b"}, verbosity="low")) == (
        "seed",
        "n",
        "logprobs",
        "metadata",
        "verbosity",
    )
    assert not {name for name in FIELDS if FIELDS[name].handling is Handling.IGNORED} & set(
        said(seed=1, n=2, store=True)
    )
