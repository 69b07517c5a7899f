"""The whole gateway before a double of Bedrock: SigV4 with a profile's keys, event-stream bytes, OpenAI's own SDK."""

import calendar
import json
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletionToolParam

from penstock.providers.bedrock.sign import Keys
from tests.gateway.conftest import control
from tests.providers.bedrock_calls import DOUBLE, says, stream_of
from tests.providers.test_bedrock_sign import by_botocore
from tests.providers.vendors import Answer
from tests.server import running
from tests.upstream import Exchange, Script, ScriptedUpstream

CONFIG = """
[engine]
enabled = false
[[provider]]
name = "aws"
kind = "bedrock"
base_url = "http://127.0.0.1:{port}"
region = "eu-central-1"
aws_profile = "team"
[[model]]
id = "claude"
targets = [{{ provider = "aws", model = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0" }}]
"""
SECRET = "a/secret+of-the-team"
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}
CALLS = Answer(text="Let me look.", calls=(("tooluse_1", "weather", '{"at":"Köln"}'),), finish="tool_calls")


class Bedrock:
    """The double behind the server: answers only what botocore would have signed so, with the next script."""

    def __init__(self) -> None:
        self.script: Script = says(Answer())
        self.bodies: list[bytes] = []

    async def __call__(self, exchange: Exchange) -> None:
        if not _is_signed(exchange):
            status, _, body = DOUBLE.error("unauthorized")
            await exchange.answer(body, status=f"{status} Forbidden")
            return
        self.bodies.append(exchange.body)
        await self.script(exchange)


def _is_signed(exchange: Exchange) -> bool:
    target, host, date = exchange.head.split(b" ")[1].decode(), exchange.header("host"), exchange.header("x-amz-date")
    if host is None or date is None:
        return False
    moment = calendar.timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))
    expected = by_botocore(Keys("AKIDTEAM", SECRET), host, target, exchange.body, moment)
    return abs(moment - time.time()) < 300 and exchange.header("authorization") == expected["authorization"]


@pytest.fixture(scope="module")
def bedrock() -> Bedrock:
    """The double."""
    return Bedrock()


@pytest.fixture(scope="module")
def client(bedrock: Bedrock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK with a key of a server whose only model is Bedrock's."""
    folder: Path = tmp_path_factory.mktemp("bedrock")
    (folder / "credentials").write_text(f"[team]\naws_access_key_id = AKIDTEAM\naws_secret_access_key = {SECRET}\n")
    with pytest.MonkeyPatch.context() as patch, ScriptedUpstream(bedrock) as upstream:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
        config = folder / "penstock.toml"
        config.write_text(CONFIG.format(port=upstream.port))
        with running(folder / "home", "--config", str(config)) as server:
            key = control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]
            yield openai.OpenAI(base_url=f"{server.gateway}/v1", api_key=key, max_retries=0)


def test_tools_stream_through_the_sdk_and_the_result_goes_back(client: openai.OpenAI, bedrock: Bedrock) -> None:
    bedrock.script = says(CALLS)
    with client.chat.completions.stream(
        model="claude",
        messages=[{"role": "user", "content": "Weather in Köln?"}],
        tools=[WEATHER],
        stream_options={"include_usage": True},
    ) as stream:
        answer = stream.get_final_completion()
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me look."
    assert choice.message.tool_calls is not None
    call = choice.message.tool_calls[0]
    assert (call.id, call.function.name) == ("tooluse_1", "weather")
    assert json.loads(call.function.arguments) == {"at": "Köln"}
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 2)

    bedrock.script = says(Answer(text="It rains."))
    said = client.chat.completions.create(
        model="claude",
        messages=[
            {"role": "user", "content": "Weather in Köln?"},
            choice.message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}),  # type: ignore[list-item]
            {"role": "tool", "tool_call_id": call.id, "content": "rain"},
        ],
        tools=[WEATHER],
    )
    assert said.choices[0].message.content == "It rains."
    result = json.loads(bedrock.bodies[-1])["messages"][-1]["content"][0]["toolResult"]
    assert result == {"toolUseId": "tooluse_1", "content": [{"text": "rain"}]}


def test_a_throttled_call_is_a_rate_limit_and_tells_no_secret(client: openai.OpenAI, bedrock: Bedrock) -> None:
    async def throttled(exchange: Exchange) -> None:
        body = json.dumps({"__type": "ThrottlingException", "message": f"Too many tokens for AKIDTEAM {SECRET}"})
        await exchange.answer(body.encode(), status="429 Too Many Requests")

    bedrock.script = throttled
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="claude", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "upstream_rate_limited"
    assert "Too many tokens" in caught.value.message
    assert not [secret for secret in ("AKIDTEAM", SECRET) if secret in caught.value.response.text]


def test_a_stream_that_is_cut_is_an_error_in_the_sdk(client: openai.OpenAI, bedrock: Bedrock) -> None:
    bedrock.script = stream_of(DOUBLE.events(Answer())[:3])
    stream = client.chat.completions.create(model="claude", messages=[{"role": "user", "content": "hi"}], stream=True)
    with pytest.raises(openai.APIError, match="upstream"):
        list(stream)
