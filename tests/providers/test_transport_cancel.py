"""Cancelled calls: the upstream is hung up on at once, no place of the pool is lost, and no other call is harmed."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from penstock.cli.interop.authority import Authority
from penstock.domain.chat import BoundRequest, ChatRequest
from penstock.providers.openai.adapter import OpenAIAdapter
from penstock.providers.transport import Endpoint, Transport, TransportError, TransportLimits
from tests.upstream import Exchange, ScriptedUpstream

PLACES = 4


class Upstream:
    """Answers by the word that a request's body begins with, with that body."""

    def __init__(self) -> None:
        self.seen: Counter[bytes] = Counter()
        self.held = asyncio.Barrier(PLACES)

    async def script(self, exchange: Exchange) -> None:
        self.seen[exchange.body] += 1
        word = exchange.body.split()[0]
        if word == b"reset":
            exchange.reset()
            return
        if word == b"slow":
            await asyncio.sleep(0.005)
        if word == b"held":
            await self.held.wait()
        if word == b"stream":
            await exchange.begin_stream()
            for _ in range(5):
                await exchange.chunk(exchange.body)
                await asyncio.sleep(0.001)
            await exchange.chunk(b"")
            return
        await exchange.answer(exchange.body)
        if word == b"close":
            exchange.close()


async def echoed(transport: Transport, body: bytes) -> None:
    response = await transport.post("/x", (), body)
    try:
        assert await response.read() == body * (5 if body.startswith(b"stream") else 1)
    finally:
        response.close()


async def turns(count: int) -> None:
    """Let everything else take this many steps."""
    for _ in range(count):
        await asyncio.sleep(0)


async def full(transport: Transport) -> None:
    """Every place of the pool is there: the upstream answers these only once all of them have arrived."""
    await asyncio.gather(*(echoed(transport, b"held") for _ in range(PLACES)))


@pytest.fixture(params=["plain", "tunnel", "uvloop"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def over(way: str, tmp_path: Path, client: Callable[[Transport, Upstream], Awaitable[None]]) -> Upstream:
    """Run the client over this way to an upstream."""
    authority = Authority(tmp_path / "ca")
    server = Upstream()

    async def go() -> None:
        limits = TransportLimits(max_connections=PLACES, connect_timeout_s=20)
        async with tunnel() as proxy:
            transport = Transport(
                Endpoint(upstream.base),
                limits=limits,
                proxy=proxy if way == "tunnel" else None,
                ca_file=str(authority.certificate_path),
            )
            await asyncio.wait_for(client(transport, server), 60)
            await transport.aclose()

    factory = uvloop.new_event_loop if way == "uvloop" else asyncio.new_event_loop
    tls = authority.context("127.0.0.1") if way != "plain" else None
    with ScriptedUpstream(server.script, tls=tls) as upstream, asyncio.Runner(loop_factory=factory) as runner:
        runner.run(go())
    return server


@asynccontextmanager
async def tunnel() -> AsyncIterator[str]:
    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        there = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_a_call_that_is_cancelled_at_any_step_leaves_its_place(way: str, tmp_path: Path) -> None:
    async def client(transport: Transport, _: Upstream) -> None:
        for steps in range(0, 120, 2):
            calls = [asyncio.create_task(echoed(transport, b"slow %d" % n)) for n in range(PLACES + 2)]
            await turns(steps)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        await full(transport)

    over(way, tmp_path, client)


@pytest.mark.parametrize("seed", range(2))
def test_after_calls_cancelled_at_random_the_pool_is_whole_and_no_answer_went_astray(
    seed: int, way: str, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    words = [b"fast", b"fast", b"slow", b"stream", b"reset", b"close"]

    async def one(transport: Transport, number: int) -> None:
        call = asyncio.create_task(echoed(transport, b"%s %d" % (chance.choice(words), number)))
        if chance.random() < 0.7:
            await asyncio.sleep(chance.random() * 0.02)
            call.cancel()
        try:
            await call
        except (TransportError, asyncio.CancelledError):
            return

    async def client(transport: Transport, _: Upstream) -> None:
        for start in range(0, 200, 20):
            await asyncio.gather(*(one(transport, start + number) for number in range(20)))
        await full(transport)

    over(way, tmp_path, client)


def test_a_call_cancelled_as_its_answer_arrives_does_not_harm_the_next_on_its_connection(tmp_path: Path) -> None:
    rounds = 400

    async def client(transport: Transport, _: Upstream) -> None:
        await echoed(transport, b"fast")
        for number in range(rounds):
            first = asyncio.create_task(transport.post("/x", (), b"fast first"))
            await turns(number % 100)
            first.cancel()
            await echoed(transport, b"fast %d" % number)  # on the same connection, where the answer has just arrived

    seen = over("plain", tmp_path, client).seen
    assert [seen[b"fast %d" % number] for number in range(rounds)] == [1] * rounds


@pytest.mark.parametrize("stream", [False, True])
def test_cancelling_an_open_answer_hangs_up(stream: bool) -> None:
    async def script(exchange: Exchange) -> None:
        if stream:
            await exchange.begin_stream()
            await exchange.chunk(b": ping\n\n")
        else:
            await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{")
        await exchange.hung_up()
        upstream.cancelled.set()

    async def go() -> None:
        chat = ChatRequest(model="m", messages=[], stream=stream)
        request = BoundRequest(chat, b'{"model":"m","messages":[]}', "m", "chatcmpl-1", 0, "fp")
        opening = asyncio.create_task(OpenAIAdapter(Transport(Endpoint(upstream.base))).open(request))
        assert await asyncio.to_thread(upstream.arrived.wait, 10)
        await asyncio.sleep(0.05)  # the head is there, the adapter reads on
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert await asyncio.to_thread(upstream.cancelled.wait, 10)

    with ScriptedUpstream(script) as upstream:
        asyncio.run(go())


def test_what_comes_behind_an_answer_that_was_let_go_keeps_no_place_of_the_pool() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(b"data: [DONE]\n\n")
        while True:  # until the client has hung up
            await exchange.chunk(b": " + b"y" * 60_000 + b"\n\n")

    async def go() -> None:
        limits = TransportLimits(max_connections=1, max_answer_bytes=1 << 40)
        transport = Transport(Endpoint(upstream.base), limits=limits)
        for _ in range(2):
            response = await transport.post("/x", (), b"{}")
            assert (await response.block()).startswith(b"data: [DONE]")
            response.let_go()
        await transport.aclose()

    with ScriptedUpstream(script) as upstream:
        asyncio.run(go())


def test_a_drip_behind_an_answer_that_was_let_go_keeps_no_place_of_the_pool() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(b"data: [DONE]\n\n")
        while True:
            await exchange.chunk(b":\n\n")
            await asyncio.sleep(0.01)

    async def go() -> None:
        transport = Transport(Endpoint(upstream.base), limits=TransportLimits(max_connections=1))
        for _ in range(2):
            response = await transport.post("/x", (), b"{}")
            await response.block()
            response.let_go()
        await transport.aclose()

    with ScriptedUpstream(script) as upstream:
        asyncio.run(go())
