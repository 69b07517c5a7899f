"""The whole gateway between the OpenAI SDK and an upstream that speaks the Messages API."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.providers.vendors import Answer
from tests.providers.vendors.anthropic import MODEL, SIGNATURE, Double
from tests.server import running
from tests.upstream import Exchange, Script, ScriptedUpstream

DOUBLE = Double()
CONFIG = """
[engine]
enabled = false
{row}
[[model]]
id = "claude"
targets = [{{ provider = "double", model = "{model}" }}]
"""
CALLS = (("toolu_1", "weather", '{"city":"Tromsø"}'), ("toolu_2", "time", "{}"))
ANSWER = Answer(thinking="They ask for two things.", calls=CALLS, finish="tool_calls", usage=(20, 9, 8, 5))
ASKED: dict[str, Any] = {"model": "claude", "messages": [{"role": "user", "content": "Weather and time?"}]}
THINK = {"extended_thinking": {"enabled": True, "include_reasoning": True}}


class Line:
    """A client of the gateway, and what stands behind it."""

    def __init__(self, client: OpenAI, upstream: ScriptedUpstream) -> None:
        self.client = client
        self._upstream = upstream
        self.sent: list[dict[str, Any]] = []

    def answers(self, script: Script) -> None:
        """From now on the upstream answers so; what it is asked is kept."""

        async def kept(exchange: Exchange) -> None:
            self.sent.append(json.loads(exchange.body))
            await script(exchange)

        self._upstream.script = kept


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("anthropic")
    with ScriptedUpstream(plainly) as upstream, pytest.MonkeyPatch.context() as patch:
        for name, value in DOUBLE.environ.items():
            patch.setenv(name, value)
        config = folder / "penstock.toml"
        row = DOUBLE.row(f"http://127.0.0.1:{upstream.port}")
        config.write_text(CONFIG.format(row=row, model=MODEL))
        with running(folder / "home", "--config", str(config)) as server:
            key = server.config_var("hello", "INFERENCE_KEY")
            client = OpenAI(base_url=f"{server.gateway}/v1", api_key=key, max_retries=0, timeout=60)
            yield Line(client, upstream)


async def plainly(exchange: Exchange) -> None:
    assert exchange.header("x-api-key") in DOUBLE.environ.values()
    await exchange.answer(DOUBLE.plain(ANSWER))


async def streaming(exchange: Exchange) -> None:
    await exchange.begin_stream()
    for one in DOUBLE.events(ANSWER):
        await exchange.chunk(one)
    await exchange.chunk(b"")


def test_a_plain_answer_goes_back_with_its_thoughts_and_the_next_turn_keeps_them(line: Line) -> None:
    line.answers(plainly)
    message = line.client.chat.completions.create(**ASKED, extra_body=THINK).choices[0].message
    assert message.content == ANSWER.text
    assert message.tool_calls is not None
    results = [{"role": "tool", "tool_call_id": call.id, "content": "fine"} for call in message.tool_calls]
    messages = [*ASKED["messages"], message.model_dump(exclude_none=True), *results]
    line.client.chat.completions.create(**ASKED | {"messages": messages}, extra_body=THINK)
    _, assistant, user = line.sent[-1]["messages"]
    assert assistant["content"][0] == {"type": "thinking", "thinking": ANSWER.thinking, "signature": SIGNATURE}
    assert [block["id"] for block in assistant["content"][2:]] == ["toolu_1", "toolu_2"]
    assert [block["tool_use_id"] for block in user["content"]] == ["toolu_1", "toolu_2"]
    assert "thinking" in line.sent[-1]


def test_streamed_tools_are_put_together_by_the_sdk(line: Line) -> None:
    line.answers(streaming)
    with line.client.chat.completions.stream(**ASKED, stream_options={"include_usage": True}) as stream:
        for _ in stream:
            pass
        answer = stream.get_final_completion()
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == ANSWER.text
    calls = [(c.id, c.function.name, json.loads(c.function.arguments)) for c in choice.message.tool_calls or []]
    assert calls == [("toolu_1", "weather", {"city": "Tromsø"}), ("toolu_2", "time", {})]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (20, 9)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 8
    assert line.sent[-1]["stream"] is True


def test_an_overloaded_vendor_is_a_503_and_a_refusal_of_ours_reaches_no_vendor(line: Line) -> None:
    async def overloaded(exchange: Exchange) -> None:
        status, _, body = DOUBLE.error("overloaded")
        await exchange.answer(body, status=f"{status} Overloaded")

    line.answers(overloaded)
    with pytest.raises(openai.InternalServerError) as caught:
        line.client.chat.completions.create(**ASKED)
    assert caught.value.status_code == httpx.codes.SERVICE_UNAVAILABLE
    before = len(line.sent)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        line.client.chat.completions.create(**ASKED, temperature=1.5)
    assert len(line.sent) == before
