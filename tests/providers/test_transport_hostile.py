"""An upstream that means harm: what it sends besides a body is bounded, and never becomes part of an answer."""

import asyncio

import pytest

from penstock.providers.transport import (
    AnswerTooLarge,
    Endpoint,
    ProtocolViolation,
    Response,
    Transport,
    TransportError,
    TransportLimits,
)
from tests.upstream import Exchange, ScriptedUpstream

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
SMALL = TransportLimits(max_header_bytes=4096)


def asked(first: bytes, forever: bytes = b"", *, limits: TransportLimits | None = None) -> tuple[Response, bytes]:
    """One call of an upstream that sends ``first``, and then ``forever`` until it is hung up on."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(first)
        while forever:
            await exchange.send(forever)
            await asyncio.sleep(0)

    async def go() -> tuple[Response, bytes]:
        transport = Transport(Endpoint(upstream.base), limits=limits)
        try:
            async with asyncio.timeout(30):
                response = await transport.post("/x", (), b"{}")
                return response, await response.read()
        finally:
            await transport.aclose()

    with ScriptedUpstream(script) as upstream:
        return asyncio.run(go())


@pytest.mark.parametrize(
    ("first", "forever"),
    [
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"a: b\r\n" * 100),
        (CHUNKED + b"2\r\n{}\r\n0\r\na: ", b"b" * 500),
        (CHUNKED + b"2\r\n{}\r\n2;a=", b"b" * 500),
        (OK, b"set-cookie: a\r\n" * 100),
        (OK + b"a: ", b"b" * 500),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20),
        (b"\r\n", b"\r\n" * 100),
    ],
    ids=["trailers", "trailer", "chunk extension", "headers", "header", "interim answers", "empty lines"],
)
def test_what_is_no_body_has_an_end(first: bytes, forever: bytes) -> None:
    with pytest.raises(AnswerTooLarge):
        asked(first, forever, limits=SMALL)


def test_headers_that_repeat_in_one_read_are_bounded_as_they_are_joined() -> None:
    head = OK + b"a: b\r\n" * 2000 + b"content-length: 2\r\n\r\n{}"
    with pytest.raises(AnswerTooLarge):
        asked(head, limits=TransportLimits(max_header_bytes=1000))


def test_a_body_may_be_longer_than_headers_may() -> None:
    body = b"".join(b"1\r\nx\r\n" for _ in range(20_000))
    assert asked(CHUNKED + body + b"0\r\n\r\n", limits=SMALL)[1] == b"x" * 20_000


def test_trailers_are_no_headers() -> None:
    response, body = asked(CHUNKED + b"2\r\n{}\r\n0\r\nretry-after: 9\r\ncontent-type: x\r\n\r\n")
    assert (body, sorted(response.headers)) == (b"{}", ["transfer-encoding"])


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK + b"content-length: 0\r\n\r\n",
        b"HTTP/1.1 099 No\r\ncontent-length: 600000\r\n\r\n" + b"x" * 600_000,
        b"HTTP/1.1 000 No\r\ncontent-length: 2\r\n\r\n{}" + OK + b"content-length: 2\r\n\r\n{}",
        OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"content-length: 5\r\ncontent-length: 2\r\n\r\nhello",
        OK + b"content-length: 5\n\nhello",
    ],
    ids=["upgrade", "101", "099", "000", "two framings", "two lengths", "bare LF"],
)
def test_an_answer_that_can_be_read_in_two_ways_is_none(answer: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        asked(answer)


@pytest.mark.parametrize("hint", ["timeout=\xb2", "timeout=", "timeout=" + "9" * 400, "timeout=-1", "max=5"])
def test_any_keep_alive_hint_leaves_the_answer_whole(hint: str) -> None:
    head = OK + b"keep-alive: %b\r\ncontent-length: 2\r\n\r\n{}" % hint.encode("latin-1")
    assert asked(head)[1] == b"{}"


@pytest.mark.parametrize("more", [OK + b"content-length: 3\r\n\r\nBAD", b"H", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_bytes_behind_an_answer_never_answer_the_next_call(more: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(OK + b"content-length: 2\r\n\r\n{}" + more)

    async def go() -> list[bytes]:
        transport = Transport(Endpoint(upstream.base))
        try:
            return [await (await transport.post("/x", (), b"{}")).read() for _ in range(5)]
        except TransportError as error:
            pytest.fail(str(error))
        finally:
            await transport.aclose()

    with ScriptedUpstream(script) as upstream:
        assert asyncio.run(go()) == [b"{}"] * 5
        assert upstream.connections == 5


@pytest.mark.parametrize("head", [b"", b"connection: close\r\n"])
def test_an_answer_to_a_request_that_was_not_read_frees_its_place(head: bytes) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK + head + b"content-length: 2\r\n\r\n{}")
        await done.wait()  # and the body is never read
        writer.close()

    async def go() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024) as server:
            limits = TransportLimits(max_connections=1, first_byte_timeout_s=5.0)
            transport = Transport(Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), limits=limits)
            try:
                for _ in range(2):
                    assert await (await transport.post("/x", (), b"x" * 16_000_000)).read() == b"{}"
            finally:
                done.set()
                await transport.aclose()

    done = asyncio.Event()
    asyncio.run(go())
    assert len(heads) == 2
