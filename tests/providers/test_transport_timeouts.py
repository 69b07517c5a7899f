"""Every bound on an upstream call, plain and streamed; what says nothing is no first token. And redirects."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from penstock.domain.answer import EventStream
from penstock.domain.catalogue import Timeouts
from penstock.domain.chat import BoundRequest, ChatRequest
from penstock.domain.errors import UpstreamError
from penstock.providers.openai.adapter import OpenAIAdapter
from penstock.providers.transport import (
    Endpoint,
    FirstByteTimeout,
    FirstTokenTimeout,
    IdleTimeout,
    Response,
    TotalTimeout,
    Transport,
    TransportLimits,
)
from tests.upstream import Exchange, Script, ScriptedUpstream

T = TypeVar("T")
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n"
PINGS = [b": ping\n\n", b"\n", b": keep-alive\r\n\r\n"]
SHORT = 0.1


def call(script: Script, client: Callable[[Transport], Awaitable[T]], limits: TransportLimits | None = None) -> T:
    """Run a client against a scripted upstream."""

    async def go() -> T:
        transport = Transport(Endpoint(upstream.base), limits=limits)
        try:
            return await asyncio.wait_for(client(transport), 20)
        finally:
            await transport.aclose()

    with ScriptedUpstream(script) as upstream:
        return asyncio.run(go())


def asked(timeouts: Timeouts, *, stream: bool) -> BoundRequest:
    chat = ChatRequest(model="m", messages=[], stream=stream)
    return BoundRequest(chat, b'{"model":"m","messages":[]}', "m", "chatcmpl-1", 0, "fp", timeouts)


def reads(timeouts: Timeouts, *, stream: bool) -> Callable[[Transport], Awaitable[int]]:
    """A client that reads a whole answer through the adapter and counts its SSE events; a plain one is one."""

    async def client(transport: Transport) -> int:
        events: EventStream = await OpenAIAdapter(transport).open(asked(timeouts, stream=stream))
        try:
            data = b"".join([event.frame async for event in events])
            return data.count(b"data: ") if stream else 1
        finally:
            await events.aclose()

    return client


def streams(*blocks: bytes, again: bytes = b"", end: bool = False) -> Script:
    """The head of a stream, these blocks, then ``again`` and again, or the end, or silence."""

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for block in blocks:
            await exchange.chunk(block)
        while again:
            await exchange.chunk(again)
            await asyncio.sleep(0.01)
        if end:
            await exchange.chunk(b"")
        else:
            await exchange.hung_up()

    return script


async def dribble(exchange: Exchange) -> None:
    await exchange.send(PLAIN)
    while True:
        await exchange.send(b" ")
        await asyncio.sleep(0.01)


async def nothing(exchange: Exchange) -> None:
    await exchange.hung_up()


async def half(exchange: Exchange) -> None:
    await exchange.send(PLAIN + b"{")
    await exchange.hung_up()


def cause(script: Script, timeouts: Timeouts, *, stream: bool, limits: TransportLimits | None = None) -> object:
    """The kind of failure behind an upstream_timeout."""
    with pytest.raises(UpstreamError) as caught:
        call(script, reads(timeouts, stream=stream), limits)
    assert caught.value.code == "upstream_timeout"
    return type(caught.value.__cause__)


def test_nothing_at_all_is_a_late_first_byte() -> None:
    limits = TransportLimits(first_byte_timeout_s=SHORT)
    assert cause(nothing, Timeouts(), stream=False, limits=limits) is FirstByteTimeout
    assert cause(nothing, Timeouts(), stream=True, limits=limits) is FirstByteTimeout


def test_half_an_interim_head_is_still_no_first_byte_of_the_answer() -> None:
    async def interim(exchange: Exchange) -> None:
        while True:
            await exchange.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.01)

    limits = TransportLimits(first_byte_timeout_s=SHORT)
    assert cause(interim, Timeouts(), stream=False, limits=limits) is FirstByteTimeout


@pytest.mark.parametrize("stream", [False, True])
def test_silence_in_the_middle_is_an_idle_timeout(stream: bool) -> None:
    script = streams(EVENT) if stream else half
    assert cause(script, Timeouts(idle_s=SHORT), stream=stream) is IdleTimeout
    assert cause(script, Timeouts(), stream=stream, limits=TransportLimits(idle_timeout_s=SHORT)) is IdleTimeout


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_goes_on_and_on_is_bounded_in_total(stream: bool) -> None:
    script = streams(again=EVENT) if stream else dribble
    assert cause(script, Timeouts(total_s=0.3), stream=stream) is TotalTimeout
    assert cause(script, Timeouts(), stream=stream, limits=TransportLimits(total_timeout_s=0.3)) is TotalTimeout


def test_the_bounds_of_a_call_win_over_those_of_the_provider() -> None:
    limits = TransportLimits(total_timeout_s=SHORT, idle_timeout_s=SHORT, first_token_timeout_s=SHORT)
    patient = Timeouts(total_s=20, idle_s=20, first_token_s=20)

    async def late(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await asyncio.sleep(0.6)  # longer than the provider's bounds and the sweep that watches them
        await exchange.chunk(EVENT + b"data: [DONE]\n\n")
        await exchange.chunk(b"")

    assert call(late, reads(patient, stream=True), limits) == 2


@pytest.mark.parametrize("ping", PINGS)
def test_what_says_nothing_is_no_first_token(ping: bytes) -> None:
    assert cause(streams(again=ping), Timeouts(first_token_s=SHORT), stream=True) is FirstTokenTimeout


def test_silence_behind_the_head_is_a_late_first_token() -> None:
    assert cause(streams(), Timeouts(first_token_s=SHORT), stream=True) is FirstTokenTimeout
    limits = TransportLimits(first_token_timeout_s=SHORT)
    assert cause(streams(), Timeouts(), stream=True, limits=limits) is FirstTokenTimeout


def test_no_head_is_a_late_first_token_too() -> None:
    assert cause(nothing, Timeouts(first_token_s=SHORT), stream=True) is FirstTokenTimeout


def test_behind_the_first_token_its_bound_holds_no_more() -> None:
    async def slow(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(EVENT)
        for _ in range(60):  # longer than the bound and the sweep that watches it
            await exchange.chunk(PINGS[0])
            await asyncio.sleep(0.01)
        await exchange.chunk(b"data: [DONE]\n\n")
        await exchange.chunk(b"")

    assert call(slow, reads(Timeouts(first_token_s=SHORT), stream=True)) == 2


def test_a_plain_answer_has_no_first_token_to_wait_for() -> None:
    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.6)
        await exchange.answer(b'{"choices":[{}]}')

    assert call(slow, reads(Timeouts(first_token_s=SHORT), stream=False)) == 1


def test_a_bound_of_one_call_does_not_hold_for_the_next_on_its_connection() -> None:
    async def twice(transport: Transport) -> Response:
        first = await transport.post("/x", (), b"1", timeouts=Timeouts(total_s=0.3, first_token_s=0.3), streamed=True)
        assert await first.read() == b"ok"
        second = await transport.post("/x", (), b"2")
        assert await second.read() == b"ok"
        return second

    async def script(exchange: Exchange) -> None:
        if exchange.body == b"2":
            await asyncio.sleep(0.9)
        await exchange.answer(b"ok")

    assert call(script, twice).complete


def test_pings_keep_an_answer_from_being_idle() -> None:
    async def slow(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for _ in range(60):
            await exchange.chunk(PINGS[0])
            await asyncio.sleep(0.01)
        await exchange.chunk(EVENT + b"data: [DONE]\n\n")
        await exchange.chunk(b"")

    assert call(slow, reads(Timeouts(idle_s=0.3), stream=True)) == 2


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Moved"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_redirect_is_not_followed_and_takes_no_credential_along(status: str, stream: bool) -> None:
    async def elsewhere(exchange: Exchange) -> None:
        await exchange.answer(b"{}")

    async def moved(exchange: Exchange) -> None:
        assert exchange.header("authorization") == "Bearer sk-canary-0123456789"
        head = f"HTTP/1.1 {status}\r\nlocation: {other.base}/chat/completions\r\ncontent-length: 0\r\n\r\n"
        await exchange.send(head.encode())

    async def client(transport: Transport) -> None:
        adapter = OpenAIAdapter(transport, headers=(("authorization", "Bearer sk-canary-0123456789"),))
        with pytest.raises(UpstreamError, match="base URL redirects") as caught:
            await adapter.open(asked(Timeouts(), stream=stream))
        assert caught.value.code == "upstream_error"

    with ScriptedUpstream(elsewhere) as other:
        call(moved, client)
        assert other.connections == 0
