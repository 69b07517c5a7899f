"""The OpenAI Python SDK against the real server and the real model."""

import json
from typing import Any

import jsonschema
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.sdk.conftest import MODEL, STAND_IN, Inference

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello in one short sentence."}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 30}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
CLOCK: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"enum": ["UTC", "CET"]}},
            "required": ["zone"],
            "additionalProperties": False,
        },
    },
}
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "colour": {"enum": ["red", "green", "blue"]},
    },
    "required": ["name", "age", "colour"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client(standard: Inference) -> OpenAI:
    return OpenAI(base_url=standard.base_url, api_key=standard.key, max_retries=0, timeout=100)


def parameters(tool: Any) -> dict[str, Any]:
    schema: dict[str, Any] = tool["function"]["parameters"]
    return schema


def test_a_plain_answer_has_text_usage_and_the_model_that_was_asked_for(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=16)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.choices[0].message.tool_calls is None
    assert answer.model == MODEL
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 0 < answer.usage.completion_tokens <= 16


def test_an_id_of_the_catalogue_is_answered_by_a_stand_in_that_says_so(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=STAND_IN, messages=HELLO, max_tokens=8)
    assert raw.parse().model == STAND_IN
    assert MODEL in raw.headers["penstock-stand-in"]
    assert raw.headers["x-request-id"]


def test_a_streamed_answer_starts_with_the_role_and_ends_with_a_reason(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=16, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_ends_with_its_usage_when_asked(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    last = list(stream)[-1]
    assert last.choices == []
    assert last.usage is not None
    assert 0 < last.usage.completion_tokens <= 8


def test_the_same_seed_gives_the_same_text(client: OpenAI) -> None:
    def text() -> str | None:
        answer = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=12, seed=7, temperature=1)
        return answer.choices[0].message.content

    assert text() == text()


def test_several_choices_come_back_in_order_with_one_usage(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=4, n=3, temperature=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None
    assert 3 <= answer.usage.completion_tokens <= 12


def test_a_required_tool_choice_always_calls_one_of_the_tools(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, tools=[WEATHER, CLOCK], tool_choice="required", max_tokens=120
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls
    assert calls
    for call in calls:
        assert call.type == "function"
        schema = parameters({"get_weather": WEATHER, "get_time": CLOCK}[call.function.name])
        jsonschema.validate(json.loads(call.function.arguments), schema)


def test_a_named_tool_choice_calls_that_tool(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER, CLOCK],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        max_tokens=120,
    )
    call = (answer.choices[0].message.tool_calls or [])[0]
    assert call.type == "function"
    assert call.function.name == "get_weather"
    jsonschema.validate(json.loads(call.function.arguments), parameters(WEATHER))


def test_an_automatic_tool_choice_answers_or_calls(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, tools=[CLOCK], tool_choice="auto", max_tokens=40
    )
    message = answer.choices[0].message
    assert message.content or message.tool_calls


def test_a_streamed_tool_call_can_be_put_together_by_index(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=HELLO, tools=[WEATHER], tool_choice="required", max_tokens=120, stream=True
    )
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    reasons = []
    for chunk in stream:
        for part in chunk.choices[0].delta.tool_calls or []:
            assert part.function is not None
            names[part.index] = names.get(part.index, "") + (part.function.name or "")
            arguments[part.index] = arguments.get(part.index, "") + (part.function.arguments or "")
        reasons.append(chunk.choices[0].finish_reason)
    assert reasons[-1] == "tool_calls"
    assert sorted(names) == list(range(len(names)))
    assert set(names.values()) == {"get_weather"}
    for text in arguments.values():
        jsonschema.validate(json.loads(text), parameters(WEATHER))


def test_a_tool_result_can_be_handed_back(client: OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "What time is it?"},
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "get_time", "arguments": '{"zone":"UTC"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[CLOCK], max_tokens=24)
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls


def test_a_strict_schema_is_met(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Invent a person."}],
        response_format={"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}},
        max_tokens=120,
    )
    jsonschema.validate(json.loads(answer.choices[0].message.content or ""), PERSON)


def test_a_wrong_key_is_an_authentication_error(standard: Inference) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        OpenAI(base_url=standard.base_url, api_key="inf-wrong", max_retries=0).chat.completions.create(
            model=MODEL, messages=HELLO
        )
    assert caught.value.code == "invalid_api_key"
    assert caught.value.request_id


def test_an_unknown_model_is_a_not_found_error(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_value_out_of_range_is_a_bad_request_error(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, temperature=9)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "temperature")


def test_an_unknown_parameter_is_a_bad_request_error_until_it_may_be_ignored(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, extra_body={"top_q": 1})
    assert (caught.value.code, caught.value.param) == ("unknown_parameter", "top_q")
    extra = {"top_q": 1, "allow_ignored_params": True}
    assert client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=4, extra_body=extra).choices


def test_a_prompt_that_does_not_fit_is_a_bad_request_error(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 20_000}])
    assert caught.value.code == "context_length_exceeded"


def test_another_model_than_the_plans_is_a_permission_error(one_model: Inference) -> None:
    client = OpenAI(base_url=one_model.base_url, api_key=one_model.key, max_retries=0)
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.chat.completions.create(model=STAND_IN, messages=HELLO)
    assert caught.value.code == "model_not_allowed"
    assert client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=4).choices


def test_the_models_are_listed_and_found(client: OpenAI) -> None:
    ids = [model.id for model in client.models.list()]
    assert {MODEL, STAND_IN, "claude-3-7-sonnet"} <= set(ids)
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")
