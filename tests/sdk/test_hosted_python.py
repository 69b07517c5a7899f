"""The OpenAI Python SDK against hosted models of other dialects: streamed tools, thinking, usage, failures."""

import json
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.providers.hosted import Host, Hosted
from tests.providers.vendors import Answer
from tests.sdk.talk import CALL, FINAL, QUESTION, SCHEMA, THOUGHT, assert_results_went_back, weather

TOOL: ChatCompletionToolParam = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
ASKED: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": QUESTION},
]


@pytest.fixture(scope="module")
def client(hosted: Hosted) -> OpenAI:
    return OpenAI(base_url=hosted.base_url, api_key=hosted.key, max_retries=0, timeout=30)


def test_streamed_tools_are_called_and_answered_from(client: OpenAI, host: Host) -> None:
    host.answer(CALL, FINAL)
    messages = list(ASKED)
    with client.chat.completions.stream(model=host.model, messages=messages, tools=[TOOL]) as stream:
        first = stream.get_final_completion().choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.content == CALL.text
    calls = first.message.tool_calls or []
    assert [json.loads(call.function.arguments) for call in calls] == [json.loads(call[2]) for call in CALL.calls]
    messages.append(first.message.model_dump(exclude_none=True, exclude={"parsed"}))  # type: ignore[arg-type]
    for call in calls:
        city = json.loads(call.function.arguments)["city"]
        messages.append({"role": "tool", "tool_call_id": call.id, "content": weather(city)})
    last = client.chat.completions.create(model=host.model, messages=messages, tools=[TOOL])
    assert last.choices[0].message.content == FINAL.text
    assert_results_went_back(host)


def test_a_stream_ends_with_the_vendors_usage(client: OpenAI, host: Host) -> None:
    host.answer(FINAL)
    stream = client.chat.completions.create(
        model=host.model, messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == FINAL.text
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (60, 9, 69)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 40


@pytest.mark.parametrize("streamed", [False, True])
def test_thinking_stands_beside_the_answer(client: OpenAI, host: Host, streamed: bool) -> None:
    host.answer(THOUGHT)
    extra = {"extended_thinking": {"enabled": True, "budget_tokens": 1024, "include_reasoning": True}}
    if streamed:
        stream = client.chat.completions.create(model=host.model, messages=ASKED, stream=True, extra_body=extra)
        deltas: list[Any] = [chunk.choices[0].delta for chunk in stream if chunk.choices]
        thinking = "".join((getattr(delta, "reasoning", None) or {}).get("thinking", "") for delta in deltas)
        text = "".join(delta.content or "" for delta in deltas)
    else:
        message: Any = (
            client.chat.completions.create(model=host.model, messages=ASKED, extra_body=extra).choices[0].message
        )
        thinking, text = message.reasoning["thinking"], message.content
    assert (thinking, text) == (THOUGHT.thinking, THOUGHT.text)


def test_a_thought_that_is_sent_back_reaches_its_vendor_again(client: OpenAI, host: Host) -> None:
    """Tool use with thinking needs it there: the SDK keeps the message as it came, signature and all."""
    thoughtful = CALL._replace(thinking="Two cities to look up.", text="")
    host.answer(thoughtful, FINAL)
    extra = {"extended_thinking": {"enabled": True, "budget_tokens": 1024, "include_reasoning": True}}
    messages: list[Any] = list(ASKED)
    first = client.chat.completions.create(model=host.model, messages=messages, tools=[TOOL], extra_body=extra)
    messages.append(first.choices[0].message.model_dump(exclude_none=True))
    for call in first.choices[0].message.tool_calls or ():
        assert call.type == "function"
        city = json.loads(call.function.arguments)["city"]
        messages.append({"role": "tool", "tool_call_id": call.id, "content": weather(city)})
    last = client.chat.completions.create(model=host.model, messages=messages, tools=[TOOL], extra_body=extra)
    assert last.choices[0].message.content == FINAL.text
    assert_results_went_back(host)
    if host.vendor.kind != "gemini":  # proves its thoughts by the calls that came of them
        assert b"Two cities to look up." in host.exchanges[1].body


def test_an_overloaded_vendor_is_a_failure_of_the_server(client: OpenAI, host: Host) -> None:
    status, headers, body = host.vendor.error("rate_limited")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    async def script(exchange: Any) -> None:
        head = f"HTTP/1.1 {status} No\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
        await exchange.send(head.encode() + body)

    host.upstream.script = script
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model=f"{host.model}-rate_limited", messages=ASKED)
    assert caught.value.code == "upstream_rate_limited"
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_a_stream_that_breaks_is_raised_and_not_a_short_answer(client: OpenAI, host: Host) -> None:
    events = host.vendor.events(Answer(text="one two three", pieces=3))

    async def script(exchange: Any) -> None:
        await host.stream(exchange, events[:-2], end=False)
        exchange.reset()

    host.upstream.script = script
    stream = client.chat.completions.create(model=f"{host.model}-cut", messages=ASKED, stream=True)
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "upstream_closed"
