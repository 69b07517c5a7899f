"""Gemini behind the whole gateway, as the OpenAI SDK sees it: a conversation with tools, streamed."""

import json
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from tests.providers.vendors.gemini import KEY, Double, event, response
from tests.server import running
from tests.upstream import Exchange, ScriptedUpstream

CONFIG = """
[engine]
enabled = false
[gateway]
workers = 1
{row}
[[model]]
id = "flash"
targets = [{{ provider = "double", model = "gemini-3-flash" }}]
"""
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
SIGNATURE = "Ab+/w9=="


async def talk(exchange: Exchange) -> None:
    """Calls a tool, then answers from its result; refuses what has no signature, as Gemini 3 does."""
    contents = json.loads(exchange.body)["contents"]
    assert exchange.header("x-goog-api-key") == KEY
    if len(contents) == 1:
        call = {"functionCall": {"name": "weather", "args": {"city": "Oslo"}}, "thoughtSignature": SIGNATURE}
        events = [event(response([call])), event(response([{"text": ""}], "STOP"))]
    elif contents[1]["parts"][0].get("thoughtSignature") != SIGNATURE:
        await exchange.answer(Double().error("invalid")[2], status="400 Bad Request")
        return
    else:
        said = contents[2]["parts"][0]["functionResponse"]["response"]["output"]
        events = [event(response([{"text": f"It is {said}"}])), event(response([{"text": " there."}], "STOP"))]
    await exchange.begin_stream()
    for made in events:
        await exchange.chunk(made)
    await exchange.chunk(b"")


def test_a_tool_is_called_and_its_result_answered_from_in_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in Double.environ.items():
        monkeypatch.setenv(name, value)
    with ScriptedUpstream(talk) as upstream:
        config = tmp_path / "penstock.toml"
        config.write_text(CONFIG.format(row=Double().row(upstream.base)))
        with running(tmp_path / "home", "--config", str(config)) as server:
            client = OpenAI(base_url=f"{server.gateway}/v1", api_key=server.config_var("hello", "INFERENCE_KEY"))
            messages: list[Any] = [{"role": "user", "content": "Weather in Oslo?"}]
            with client.chat.completions.stream(model="flash", messages=messages, tools=[TOOL]) as stream:
                answer = stream.get_final_completion().choices[0]
            assert answer.finish_reason == "tool_calls"
            assert answer.message.tool_calls
            (call,) = answer.message.tool_calls
            assert json.loads(call.function.arguments) == {"city": "Oslo"}
            messages += [answer.message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})]
            messages += [{"role": "tool", "tool_call_id": call.id, "content": "grey"}]
            with client.chat.completions.stream(model="flash", messages=messages, tools=[TOOL]) as stream:
                answer = stream.get_final_completion().choices[0]
            assert (answer.message.content, answer.finish_reason) == ("It is grey there.", "stop")
            messages[1]["tool_calls"][0]["id"] = messages[2]["tool_call_id"] = "forgotten"
            with pytest.raises(BadRequestError) as refused:
                client.chat.completions.create(model="flash", messages=messages, tools=[TOOL])
            assert refused.value.code == "upstream_refused"
