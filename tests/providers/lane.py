"""One adapter in front of a real socket whose every byte a test decides, both in the same event loop.

In one loop a script can let the adapter take what was sent before it sends more, so a cut is where the test puts it.
"""

import asyncio
import json
import tomllib
from collections.abc import Awaitable, Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from penstock.domain.chat import BoundRequest, ChatRequest
from penstock.domain.errors import PenstockError, UpstreamError
from penstock.domain.usage import Usage
from penstock.providers.catalogue import resolve_providers
from penstock.providers.registry import KINDS, Adapter, make_adapter, make_transport
from penstock.providers.spec import Bound, Image
from penstock.settings.tree import ProviderRow, Settings
from tests.providers.vendors import Answer, Vendor
from tests.upstream import Exchange

Script = Callable[[Exchange], Awaitable[None]]

CREATED = 1_760_000_000
PIXEL = Image("image/png", b"\x89PNG\r\n\x1a\n-one-pixel")
# Turns of the loop in which what was sent has certainly been taken, by ours and by a library with layers of its own.
_TURNS, _SLOW_TURNS = 6, 60
_LIMIT_S = 60
MODELS = {
    "anthropic": "claude-sonnet-4-5",
    "bedrock": "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "gemini": "gemini-2.5-flash",
}


def doubles() -> dict[str, Vendor]:
    """Every double of tests/providers/vendors whose adapter is there, by the name of its file."""
    files = sorted((Path(__file__).parent / "vendors").glob("[a-z]*.py"))
    found = {file.stem: import_module(f"tests.providers.vendors.{file.stem}").Double() for file in files}
    return {name: double for name, double in found.items() if double.kind in KINDS}


def only(fits: Callable[[Vendor], bool]) -> pytest.MarkDecorator:
    """Gives a test the lanes of those vendors alone that its subject exists for."""
    return pytest.mark.parametrize("lane", sorted(n for n, double in doubles().items() if fits(double)), indirect=True)


thinkers = only(lambda vendor: vendor.thinks)
lines = only(lambda vendor: vendor.stream_type == "text/event-stream")


class Spoken(NamedTuple):
    """What a client understood of an answer."""

    text: str
    thinking: str
    calls: list[tuple[str, Any]]  # name and decoded arguments
    finish: str | None
    usage: tuple[int, int, int, int] | None
    ids: list[str]


class Heard:
    """What came of one request: the bytes for the client, and what the meter was told."""

    def __init__(self, *, streamed: bool) -> None:
        self.streamed = streamed
        self.frames: list[bytes] = []
        self.error: PenstockError | None = None
        self.opened = False
        self.done = False
        self.usage: Usage | None = None
        self.tokens = 0

    @property
    def body(self) -> bytes:
        """All bytes that the client got."""
        return b"".join(self.frames)

    def payloads(self, size: int | None = None) -> list[str]:
        """What the data events of a stream hold, those of its first bytes or all: comments are no events, and how an
        event is laid out is left to the upstream where its bytes are passed through."""
        lines = [event.split("\n") for event in self.body[:size].decode().split("\n\n")]
        data = [[line[5:].removeprefix(" ") for line in event if line.startswith("data:")] for event in lines]
        return ["\n".join(event) for event in data if event]

    def chunks(self) -> list[dict[str, Any]]:
        """The JSON of the data events of a stream, without the end mark."""
        return [json.loads(text) for text in self.payloads() if text != "[DONE]"]

    @property
    def whole(self) -> Spoken:
        """The answer, which must be complete. Fails with the error that came instead."""
        assert self.error is None, f"{self.error.code}: {self.error.message}" if self.error else ""
        assert self.done
        assert not self.streamed or self.payloads()[-1] == "[DONE]"
        return self.spoken

    @property
    def spoken(self) -> Spoken:
        """What was said so far."""
        return streamed_answer(self.chunks()) if self.streamed else plain_answer(json.loads(self.body))


def plain_answer(answer: dict[str, Any]) -> Spoken:
    """A plain answer as a client reads it."""
    assert answer["object"] == "chat.completion"
    choice = answer["choices"][0]
    message = choice["message"]
    calls = message.get("tool_calls") or []
    return Spoken(
        text=message.get("content") or "",
        thinking=(message.get("reasoning") or {}).get("thinking", ""),
        calls=[(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls],
        finish=choice["finish_reason"],
        usage=_usage(answer.get("usage")),
        ids=[call["id"] for call in calls],
    )


def streamed_answer(chunks: list[dict[str, Any]]) -> Spoken:
    """A stream as a client puts it together: calls by index, begun by their id."""
    text, thinking, finish, usage = "", "", None, None
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    ids: dict[int, str] = {}
    for chunk in chunks:
        usage = _usage(chunk.get("usage")) or usage
        for choice in chunk["choices"]:
            assert finish is None or not _says(choice["delta"]), "something follows the finish"
            finish = choice.get("finish_reason") or finish
            text += choice["delta"].get("content") or ""
            thinking += (choice["delta"].get("reasoning") or {}).get("thinking", "")
            for call in choice["delta"].get("tool_calls") or ():
                at = call["index"]
                if "id" in call:
                    assert at not in ids, "a call begins once"
                    assert call["type"] == "function"
                    ids[at], names[at], arguments[at] = call["id"], call["function"]["name"], ""
                arguments[at] += call["function"].get("arguments", "")
    assert sorted(ids) == list(range(len(ids)))
    calls = [(names[at], _arguments(arguments[at])) for at in sorted(ids)]
    return Spoken(text, thinking, calls, finish, usage, [ids[at] for at in sorted(ids)])


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # a fragment


def _says(delta: dict[str, Any]) -> bool:
    return bool(delta.get("content") or delta.get("tool_calls") or delta.get("reasoning"))


def _usage(wire: dict[str, Any] | None) -> tuple[int, int, int, int] | None:
    if wire is None:
        return None
    details = wire.get("prompt_tokens_details") or {}
    assert wire["total_tokens"] == wire["prompt_tokens"] + wire["completion_tokens"]
    cached, written = details.get("cached_tokens", 0), details.get("cache_write_tokens", 0)
    return (wire["prompt_tokens"], wire["completion_tokens"], cached, written)


class _Images:
    """Gives the same image for every address."""

    async def fetch(self, url: str, param: str, /) -> Image:
        return PIXEL


def make(vendor: Vendor, base: str, *, profile: str | None = None, ca_file: str | None = None) -> tuple[Adapter, Any]:
    """The vendor's adapter against a base URL, and its transport, made as the product makes them."""
    row = msgspec.convert(tomllib.loads(vendor.row(base))["provider"][0], ProviderRow)
    row = msgspec.structs.replace(row, profile=profile, ca_file=ca_file)
    provider = resolve_providers(Settings(provider=(row,)), vendor.environ)[row.name]
    transport = make_transport(provider.spec)
    return make_adapter(Bound(provider.spec, provider.credential, transport, _Images())), transport


def bound(fields: dict[str, Any], target: str) -> BoundRequest:
    """A request as the gateway hands it to an adapter, under a fixed identity."""
    body = {"model": "house-model", "messages": [{"role": "user", "content": "hi"}]} | fields
    chat = msgspec.convert(body, ChatRequest)
    raw = json.dumps(body).encode()
    return BoundRequest(chat, raw, target, "chatcmpl-fixed", CREATED, "heroku-inf-000000")


class Lane:
    """One vendor: its adapter, and the socket that it calls. ``exchanges`` are the requests that arrived."""

    def __init__(self, name: str, vendor: Vendor, runner: asyncio.Runner) -> None:
        self.name = name
        self.vendor = vendor
        self.runner = runner
        self.exchanges: list[Exchange] = []
        self.script: Script | None = None
        self.heard = Heard(streamed=False)
        self.is_slow = vendor.kind == "any-llm"
        self.model = getattr(vendor, "model", None) or MODELS.get(vendor.kind, "target-name")
        self.secrets = [value for name, value in vendor.environ.items() if "REGION" not in name]
        self._server = runner.run(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.adapter, self._transport = self._make()

    def _make(self) -> tuple[Adapter, Any]:
        async def made() -> tuple[Adapter, Any]:
            return make(self.vendor, self.base)

        return self.runner.run(made())

    @property
    def base(self) -> str:
        """Where the adapter's calls go."""
        return f"http://127.0.0.1:{self.port}/v1"

    def close(self) -> None:
        """Let go of the sockets."""
        self._server.close()
        self.runner.run(self._transport.aclose())

    def shown(self, answer: Answer) -> dict[str, Any]:
        """The request fields that such an answer needs; a library of many vendors has one word for thinking only."""
        fields = shown(answer)
        if self.is_slow and fields.pop("extended_thinking", None):
            fields["reasoning_effort"] = "low"
        return fields

    def hear(self, script: Script, *, adapter: Adapter | None = None, **fields: Any) -> Heard:
        """One request, answered by the script."""
        self.script = script
        return self.runner.run(self._hear(adapter or self.adapter, fields))

    def stream(self, blocks: Iterable[bytes], **fields: Any) -> Heard:
        """One streamed request, answered by these blocks, each taken by the adapter before the next is sent."""
        return self.hear(self.streaming(blocks), **(STREAM | fields))

    def plain(self, body: bytes, **fields: Any) -> Heard:
        """One plain request, answered by this body."""
        return self.hear(answering(body), **fields)

    def streaming(self, blocks: Iterable[bytes], *, end: str = "end", taken: list[int] | None = None) -> Script:
        """A script: the blocks, then the body's end, or the connection's by ``close`` or ``reset``. ``taken`` gets
        the number of bytes that the client has after each block."""

        async def run(exchange: Exchange) -> None:
            kind = self.vendor.stream_type
            await exchange.send(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n".encode() + _CHUNKED)
            for block in blocks:
                await exchange.chunk(block)
                await self.turns()
                if taken is not None:
                    taken.append(len(self.heard.body))
            await self.finish(exchange, end)

        return run

    async def turns(self) -> None:
        """Let the adapter take what was sent."""
        for _ in range(_SLOW_TURNS if self.is_slow else _TURNS):
            await asyncio.sleep(0)

    async def finish(self, exchange: Exchange, end: str) -> None:
        """End a chunked body well, or the connection in one of two ways."""
        if end == "end":
            await exchange.chunk(b"")
        elif end == "close":
            exchange.close()
        else:
            exchange.reset()

    async def _hear(self, adapter: Adapter, fields: dict[str, Any]) -> Heard:
        heard = self.heard = Heard(streamed=bool(fields.get("stream")))
        try:
            async with asyncio.timeout(_LIMIT_S):
                events = await adapter.open(bound(fields, self.model))
                heard.opened = True
                try:
                    async for event in events:
                        assert not heard.done, "an event follows the last one"
                        heard.frames.append(event.frame)
                        heard.done = event.done
                        heard.usage = event.usage or heard.usage
                        heard.tokens += event.output_tokens
                finally:
                    await events.aclose()
                if not heard.done:  # as the pipeline takes it
                    heard.error = UpstreamError("upstream_closed", "The upstream ended early.")
        except PenstockError as error:
            heard.error = error
        return heard

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=64 * 1024 * 1024)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                exchange = Exchange(head, b"", writer, reader)
                exchange.body = await reader.readexactly(int(exchange.header("content-length") or 0))
                self.exchanges.append(exchange)
                assert self.script is not None
                await self.script(exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def answering(body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> Script:
    """A script: one plain answer."""
    fields = {"content-type": "application/json", "content-length": str(len(body))} | (headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())

    async def run(exchange: Exchange) -> None:
        await exchange.send(f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body)

    return run


def expected(answer: Answer) -> Spoken:
    """What a client must understand of it."""
    calls = [(name, json.loads(arguments)) for _, name, arguments in answer.calls]
    ids = [identity for identity, _, _ in answer.calls]
    return Spoken(answer.text, answer.thinking, calls, answer.finish, answer.usage, ids)


def shown(answer: Answer) -> dict[str, Any]:
    """The request fields that such an answer needs."""
    fields: dict[str, Any] = {}
    if answer.calls:
        names = dict.fromkeys(name for _, name, _ in answer.calls)
        fields["tools"] = [{"type": "function", "function": {"name": name, "parameters": ANY}} for name in names]
    if answer.thinking:
        fields["extended_thinking"] = {"enabled": True, "budget_tokens": 1024, "include_reasoning": True}
    return fields


# Their calls may come without ids: the adapter makes some up.
MAKES_IDS = ("gemini", "any-llm")
ANY: dict[str, Any] = {"type": "object", "properties": {"q": {"type": "string"}}}
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
_CHUNKED = b"transfer-encoding: chunked\r\n\r\n"

CALLS = (("call_a1", "look_up", '{"q":"wörld 🌊","n":[1,2]}'), ("call_b2", "paint", '{"q":"sea"}'))
ANSWERS = {
    "text": Answer(),
    "one delta": Answer(text="Hi.", pieces=1),
    "cut by its bound": Answer(text="Hello the", finish="length"),
    "withheld": Answer(text="He", finish="content_filter"),
    "one call": Answer(text="", calls=CALLS[:1], finish="tool_calls", pieces=5),
    "parallel calls": Answer(text="", calls=CALLS, finish="tool_calls", pieces=4),
    "text, then calls": Answer(text="Let me see 🌊.", calls=CALLS, finish="tool_calls"),
    "a call without arguments": Answer(text="", calls=(("call_a1", "look_up", "{}"),), finish="tool_calls", pieces=1),
}
THOUGHT = Answer(text="42 🌊", thinking="Six times seven: let me sée.")
