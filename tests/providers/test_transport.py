"""The upstream client against real bytes on a real socket."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.providers.transport import (
    AnswerTooLarge,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    Endpoint,
    FirstByteTimeout,
    IdleTimeout,
    ProtocolViolation,
    Transport,
    TransportLimits,
)
from tests.upstream import Exchange, Script, ScriptedUpstream

T = TypeVar("T")
JSON = (("content-type", "application/json"),)


def call(script: Script, client: Callable[[Transport], Awaitable[T]], limits: TransportLimits | None = None) -> T:
    """Run a client against a scripted upstream."""

    async def go() -> T:
        transport = Transport(Endpoint(upstream.base), limits=limits)
        try:
            return await client(transport)
        finally:
            await transport.aclose()

    with ScriptedUpstream(script) as upstream:
        return asyncio.run(go())


async def body_of(transport: Transport) -> bytes:
    return await (await transport.post("/chat/completions", JSON, b"{}")).read()


def raw(data: bytes, *, close: bool = False) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.send(data)
        if close:
            exchange.close()

    return script


def test_a_content_length_body_is_read_whole() -> None:
    assert call(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"), body_of) == b"hello"


def test_a_chunked_body_is_joined() -> None:
    data = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\ntrailer: 1\r\n\r\n"
    assert call(raw(data), body_of) == b"hello"


def test_a_body_without_framing_ends_with_the_connection() -> None:
    assert call(raw(b"HTTP/1.1 200 OK\r\n\r\nhello", close=True), body_of) == b"hello"


def test_interim_answers_are_skipped() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    data = interim + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    assert call(raw(data), body_of) == b"ok"


def test_a_body_shorter_than_announced_is_an_error_and_not_a_short_answer() -> None:
    with pytest.raises(ConnectionLost):
        call(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello", close=True), body_of)


def test_a_chunked_body_without_its_last_chunk_is_an_error() -> None:
    with pytest.raises(ConnectionLost):
        call(raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", close=True), body_of)


def test_bytes_that_are_not_http_are_refused() -> None:
    with pytest.raises(ProtocolViolation):
        call(raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), body_of)


def test_an_answer_over_the_limit_is_cut() -> None:
    limits = TransportLimits(max_answer_bytes=10)
    with pytest.raises(AnswerTooLarge):
        call(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n" + b"x" * 50), body_of, limits)


def test_headers_over_the_limit_are_cut() -> None:
    limits = TransportLimits(max_header_bytes=1000)
    with pytest.raises(AnswerTooLarge):
        call(raw(b"HTTP/1.1 200 OK\r\n" + b"x-pad: " + b"y" * 5000), body_of, limits)


def test_a_silent_upstream_times_out_before_the_first_byte() -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.hung_up()

    with pytest.raises(FirstByteTimeout):
        call(silent, body_of, TransportLimits(first_byte_timeout_s=0.1))


def test_an_upstream_that_stops_in_the_middle_times_out() -> None:
    async def stalls(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(b"data: 1\n\n")
        await exchange.hung_up()

    with pytest.raises(IdleTimeout):
        call(stalls, body_of, TransportLimits(idle_timeout_s=0.1))


def test_nobody_listening_is_a_failed_connect() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused

        async def go() -> None:
            await Transport(Endpoint(f"http://127.0.0.1:{taken.getsockname()[1]}")).post("/x", JSON, b"")

        with pytest.raises(ConnectFailed):
            asyncio.run(go())


def test_a_pool_that_is_full_refuses_after_the_connect_timeout() -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.hung_up()

    async def two(transport: Transport) -> None:
        first = asyncio.create_task(transport.post("/x", JSON, b"{}"))
        assert await asyncio.to_thread(upstream.arrived.wait, 10)
        with pytest.raises(ConnectTimeout):
            await transport.post("/x", JSON, b"{}")
        first.cancel()

    with ScriptedUpstream(silent) as upstream:
        asyncio.run(
            two(Transport(Endpoint(upstream.base), limits=TransportLimits(max_connections=1, connect_timeout_s=0.1)))
        )


def test_one_connection_serves_many_requests() -> None:
    async def many(transport: Transport) -> None:
        for _ in range(20):
            assert await body_of(transport) == b"ok"

    with ScriptedUpstream(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")) as upstream:
        asyncio.run(many(Transport(Endpoint(upstream.base))))
        assert (upstream.requests, upstream.connections) == (20, 1)


def test_connection_close_is_honoured() -> None:
    async def twice(transport: Transport) -> None:
        for _ in range(2):
            assert await body_of(transport) == b"ok"

    with ScriptedUpstream(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")) as upstream:
        asyncio.run(twice(Transport(Endpoint(upstream.base))))
        assert upstream.connections == 2


def test_a_pooled_connection_that_the_upstream_dropped_is_replaced() -> None:
    async def script(exchange: Exchange) -> None:
        if upstream.requests == 2:
            exchange.reset()  # the race: the request is on its way while the peer closes
            return
        await exchange.answer(b"ok")

    async def twice(transport: Transport) -> None:
        for _ in range(2):
            assert await body_of(transport) == b"ok"

    with ScriptedUpstream(script) as upstream:
        asyncio.run(twice(Transport(Endpoint(upstream.base))))
        assert (upstream.requests, upstream.connections) == (3, 2)


def test_a_pooled_connection_that_is_lost_while_the_request_is_served_is_not_tried_again() -> None:
    async def script(exchange: Exchange) -> None:
        if upstream.requests == 1:
            await exchange.answer(b"ok")
            return
        await asyncio.sleep(0.5)  # the request is being worked on: sending it again would be a second call
        exchange.reset()

    async def twice(transport: Transport) -> None:
        assert await body_of(transport) == b"ok"
        with pytest.raises(ConnectionLost):
            await body_of(transport)

    with ScriptedUpstream(script) as upstream:
        asyncio.run(twice(Transport(Endpoint(upstream.base))))
        assert upstream.requests == 2


def test_bytes_behind_an_answer_never_answer_the_next_request() -> None:
    async def script(exchange: Exchange) -> None:
        poison = b"HTTP/1.1 503 Poison\r\nx-p: " if upstream.requests == 1 else b""
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" + poison)

    async def twice(transport: Transport) -> None:
        for _ in range(2):
            response = await transport.post("/x", JSON, b"{}")
            assert (response.status, await response.read()) == (200, b"ok")

    with ScriptedUpstream(script) as upstream:
        asyncio.run(twice(Transport(Endpoint(upstream.base))))
        assert upstream.connections == 2


def test_a_failed_dial_passes_its_place_on() -> None:
    async def go(port: int) -> None:
        limits = TransportLimits(max_connections=1, connect_timeout_s=5)
        transport = Transport(Endpoint(f"http://127.0.0.1:{port}"), limits=limits)
        calls = [asyncio.create_task(transport.post("/x", JSON, b"")) for _ in range(3)]
        done, _ = await asyncio.wait(calls, timeout=4)
        assert len(done) == 3
        assert all(type(call.exception()) is ConnectFailed for call in done)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        asyncio.run(go(taken.getsockname()[1]))


def test_a_waiter_that_is_cancelled_as_it_is_woken_passes_its_turn_on() -> None:
    async def script(exchange: Exchange) -> None:
        if upstream.requests == 1:
            await exchange.hung_up()
        await exchange.answer(b"ok")

    async def go(transport: Transport) -> None:
        first = asyncio.create_task(transport.post("/x", JSON, b"{}"))
        assert await asyncio.to_thread(upstream.arrived.wait, 10)
        second = asyncio.create_task(transport.post("/x", JSON, b"{}"))
        third = asyncio.create_task(body_of(transport))
        await asyncio.sleep(0)
        first.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
            second.cancel()
        assert await asyncio.wait_for(third, 5) == b"ok"

    with ScriptedUpstream(script) as upstream:
        asyncio.run(go(Transport(Endpoint(upstream.base), limits=TransportLimits(max_connections=1))))


@pytest.mark.parametrize("places", [4, 512])
def test_a_request_goes_out_twice_at_most_however_many_connections_rest(places: int) -> None:
    rested = asyncio.Barrier(4)

    async def script(exchange: Exchange) -> None:
        if upstream.requests > 4:
            exchange.reset()
            return
        await rested.wait()
        await exchange.answer(b"ok")

    async def client(transport: Transport) -> None:
        await asyncio.gather(*(body_of(transport) for _ in range(4)))
        with pytest.raises(ConnectionLost):
            await body_of(transport)
        await transport.aclose()

    with ScriptedUpstream(script) as upstream:
        asyncio.run(client(Transport(Endpoint(upstream.base), limits=TransportLimits(max_connections=places))))
        assert (upstream.requests, upstream.connections) == (4 + 2, 4 + 1)


def test_a_new_connection_that_is_dropped_is_not_tried_again() -> None:
    async def script(exchange: Exchange) -> None:
        exchange.reset()

    with ScriptedUpstream(script) as upstream:
        with pytest.raises(ConnectionLost):
            asyncio.run(body_of(Transport(Endpoint(upstream.base))))
        assert upstream.requests == 1


def test_an_answer_that_has_begun_is_not_tried_again() -> None:
    async def script(exchange: Exchange) -> None:
        if upstream.requests == 1:
            await exchange.answer(b"ok")
            return
        await exchange.send(b"HTTP/1.1 200 OK\r\n")
        exchange.close()

    async def twice(transport: Transport) -> None:
        assert await body_of(transport) == b"ok"
        with pytest.raises(ConnectionLost):
            await body_of(transport)

    with ScriptedUpstream(script) as upstream:
        asyncio.run(twice(Transport(Endpoint(upstream.base))))
        assert upstream.requests == 2


def test_cancelling_while_waiting_for_the_head_hangs_up() -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.hung_up()
        upstream.cancelled.set()

    async def cancel(transport: Transport) -> None:
        task = asyncio.create_task(transport.post("/x", JSON, b"{}"))
        assert await asyncio.to_thread(upstream.arrived.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(upstream.cancelled.wait, 10)

    with ScriptedUpstream(silent) as upstream:
        asyncio.run(cancel(Transport(Endpoint(upstream.base))))


def test_closing_a_response_hangs_up() -> None:
    async def stream(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(b"data: 1\n\n")
        await exchange.hung_up()
        upstream.cancelled.set()

    async def close(transport: Transport) -> None:
        response = await transport.post("/x", JSON, b"{}")
        assert await response.block() == b"data: 1\n\n"
        response.close()
        assert await asyncio.to_thread(upstream.cancelled.wait, 10)

    with ScriptedUpstream(stream) as upstream:
        asyncio.run(close(Transport(Endpoint(upstream.base))))


def test_a_slow_reader_holds_the_upstream_back() -> None:
    sent: list[int] = []

    async def flood(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for _ in range(400):
            await exchange.chunk(b"x" * 65536)
            sent.append(1)
        await exchange.chunk(b"")

    async def slow(transport: Transport) -> int:
        response = await transport.post("/x", JSON, b"{}")
        previous = -1
        while len(sent) != previous:  # until the upstream can write no more
            previous = len(sent)
            await asyncio.sleep(0.2)
        stalled = len(sent)
        size = 0
        while block := await response.block():
            size += len(block)
        assert size == 400 * 65536
        return stalled

    assert call(flood, slow) < 400


def test_a_header_with_a_line_break_is_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        asyncio.run(Transport(Endpoint("http://127.0.0.1:1")).post("/x", (("a", "b\r\nc: d"),), b""))


def test_a_unix_socket_is_an_endpoint(tmp_path: Path) -> None:
    path = str(tmp_path / "u.sock")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /chat HTTP/1.1\r\nhost: localhost\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async def go() -> bytes:
        server = await asyncio.start_unix_server(serve, path)
        async with server:
            transport = Transport(Endpoint(f"unix://{path}"))
            data = await (await transport.post("/chat", JSON, b"")).read()
            await transport.aclose()
            return data

    assert asyncio.run(go()) == b"ok"


_HEAD = b"HTTP/1.1 200 OK\r\nx-a: \xc3\xa4\r\ntransfer-encoding: chunked\r\n\r\n"
_ANSWER = _HEAD + b"4\r\n\xf0\x9f\x98\x80\r\n3\r\nabc\r\n0\r\n\r\n"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, len(_ANSWER) - 1), max_size=8, unique=True))
def test_any_cut_of_the_same_bytes_gives_the_same_answer(cuts: list[int]) -> None:
    async def pieces(exchange: Exchange) -> None:
        edges = [0, *sorted(cuts), len(_ANSWER)]
        for start, end in pairwise(edges):
            await exchange.send(_ANSWER[start:end])
            await asyncio.sleep(0)

    assert call(pieces, body_of) == "😀abc".encode()
