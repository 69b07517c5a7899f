"""Asks an adapter of the product over a real socket, as the gateway does, and keeps what came of it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from penstock.domain.chat import BoundRequest, ChatRequest
from penstock.domain.errors import PenstockError
from penstock.domain.usage import Usage
from penstock.providers.registry import make_adapter, make_transport
from penstock.providers.spec import Bound, Credential, Image, ProviderSpec
from tests.upstream import Exchange, ScriptedUpstream

KEY = "sk-double-4f9a1c7e55aa"
SAID = b'{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"}}]}'


class Heard:
    """What a client would have got. ``opened`` tells whether there was a first event."""

    def __init__(self) -> None:
        self.body = b""
        self.error: PenstockError | None = None
        self.opened = False
        self.done = False
        self.usage: Usage | None = None
        self.tokens = 0
        self.ignored: tuple[str, ...] = ()
        self.requests: list[Exchange] = []

    @property
    def facts(self) -> tuple[Any, ...]:
        """All that must not depend on how the bytes were cut."""
        error = (self.error.code, self.error.message) if self.error else None
        return (self.body, self.usage, self.tokens, self.done, self.opened, error)

    @property
    def sent(self) -> dict[str, Any]:
        """The body of the one request that arrived."""
        (exchange,) = self.requests
        data: dict[str, Any] = json.loads(exchange.body)
        return data


class NoImages:
    """Fetches nothing."""

    async def fetch(self, url: str, param: str, /) -> Image:
        raise AssertionError(url)


def spec(**fields: Any) -> ProviderSpec:
    """A provider of the openai kind; its base URL is filled in when it is asked."""
    return ProviderSpec(**({"name": "double", "kind": "openai", "base_url": ""} | fields))


def bound(raw: bytes, **fields: Any) -> BoundRequest:
    """A request as the gateway hands it over."""
    chat = msgspec.json.decode(raw, type=ChatRequest)
    request = BoundRequest(chat, raw, "their-model", "c", 1, "f")
    return msgspec.structs.replace(request, **fields)


def asked(**fields: Any) -> bytes:
    """The body of a client's request."""
    return json.dumps({"model": "our-model", "messages": [{"role": "user", "content": "x"}]} | fields).encode()


def ask(provider: ProviderSpec, script: Callable[[Exchange], Awaitable[None]], **fields: Any) -> Heard:
    """One request to an upstream that follows the script."""
    heard = Heard()

    async def noted(exchange: Exchange) -> None:
        heard.requests.append(exchange)
        await script(exchange)

    with ScriptedUpstream(noted) as upstream:
        base = upstream.base.removesuffix("/v1") if provider.kind == "azure" else upstream.base
        asyncio.run(_ask(msgspec.structs.replace(provider, base_url=base), bound(asked(**fields)), heard))
    return heard


async def _ask(provider: ProviderSpec, request: BoundRequest, heard: Heard) -> None:
    transport = make_transport(provider)
    adapter = make_adapter(Bound(provider, Credential(secret=KEY), transport, NoImages()))
    heard.ignored = adapter.ignored(request)
    try:
        events = await adapter.open(request)
        heard.opened = True
        async for event in events:
            heard.body += event.frame
            heard.tokens += event.output_tokens
            heard.usage = event.usage or heard.usage
            heard.done = event.done
        await events.aclose()
    except PenstockError as error:
        heard.error = error
    finally:
        await transport.aclose()


def streaming(blocks: Sequence[bytes]) -> Callable[[Exchange], Awaitable[None]]:
    """A script that streams these bytes and ends the body as HTTP has it."""

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for block in blocks:
            await exchange.chunk(block)
        await exchange.chunk(b"")

    return script


def answering(body: bytes, *, status: str = "200 OK", headers: str = "") -> Callable[[Exchange], Awaitable[None]]:
    """A script that answers with this body."""

    async def script(exchange: Exchange) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {len(body)}\r\n\r\n"
        await exchange.send(head.encode() + body)

    return script


def plain(exchange: Exchange) -> Awaitable[None]:
    """A script: the shortest plain answer."""
    return exchange.answer(SAID)
