"""Answers that come compressed although nobody asked: decoded as they arrive, whole or not at all."""

import asyncio
import gzip
import tracemalloc
import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.providers.outbound.encoding import Inflater
from penstock.providers.transport import (
    AnswerTooLarge,
    ConnectionLost,
    Endpoint,
    ProtocolViolation,
    Response,
    Transport,
    TransportLimits,
)
from tests.upstream import Exchange, Script, ScriptedUpstream

TEXT = "Hello wörld 🌊, ".encode() * 300


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKED = {"gzip": gzip.compress(TEXT), "x-gzip": gzip.compress(TEXT), "deflate": zlib.compress(TEXT)}


def head(encoding: str, *more: str) -> bytes:
    lines = ("HTTP/1.1 200 OK", f"content-encoding: {encoding}", *more, "", "")
    return "\r\n".join(lines).encode()


def whole(encoding: str, body: bytes) -> bytes:
    return head(encoding, f"content-length: {len(body)}") + body


def says(data: bytes, *, close: bool = False) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.send(data)
        if close:
            exchange.close()

    return script


def fetch(script: Script, limits: TransportLimits | None = None, *, times: int = 1) -> bytes:
    """The body of the last of ``times`` answers, read as a stream is."""

    async def go() -> bytes:
        transport = Transport(Endpoint(upstream.base), limits=limits)
        try:
            for _ in range(times):
                data = await blocks(await transport.post("/x", (), b"{}"))
            return data
        finally:
            await transport.aclose()

    async def blocks(response: Response) -> bytes:
        data = b""
        while block := await response.block():
            data += block
        assert "content-encoding" not in response.headers
        return data

    with ScriptedUpstream(script) as upstream:
        data = asyncio.run(go())
        assert upstream.connections == 1
        return data


@pytest.mark.parametrize("encoding", PACKED)
def test_a_compressed_answer_is_decoded(encoding: str) -> None:
    assert fetch(says(whole(encoding, PACKED[encoding])), times=2) == TEXT


def test_bare_deflate_is_deflate_too() -> None:
    assert fetch(says(whole("deflate", bare_deflate(TEXT)))) == TEXT


def test_identity_is_no_encoding() -> None:
    assert fetch(says(whole("Identity", b"hello"))) == b"hello"


def test_members_of_gzip_are_joined() -> None:
    assert fetch(says(whole("gzip", gzip.compress(b"hel") + gzip.compress(b"lo")))) == b"hello"


def test_a_compressed_answer_without_a_body_is_empty() -> None:
    assert fetch(says(head("gzip", "content-length: 0"))) == b""


def test_a_compressed_answer_that_ends_by_close_is_whole() -> None:
    assert fetch(says(head("gzip") + PACKED["gzip"], close=True)) == TEXT


def test_an_event_reaches_the_reader_before_the_next_is_sent() -> None:
    async def script(exchange: Exchange) -> None:
        packer = zlib.compressobj(wbits=31)
        await exchange.send(head("gzip", "content-type: text/event-stream", "transfer-encoding: chunked"))
        for number in range(3):
            await exchange.chunk(packer.compress(b"data: %d\n\n" % number) + packer.flush(zlib.Z_SYNC_FLUSH))
            await taken[number].wait()
        await exchange.chunk(packer.flush())
        await exchange.chunk(b"")

    async def go() -> None:
        response = await Transport(Endpoint(upstream.base)).post("/x", (), b"{}", streamed=True)
        for number in range(3):
            assert await response.block() == b"data: %d\n\n" % number
            upstream.call(taken[number].set)
        assert await response.block() == b""

    taken = [asyncio.Event() for _ in range(3)]
    with ScriptedUpstream(script) as upstream:
        asyncio.run(asyncio.wait_for(go(), 20))


@pytest.mark.parametrize("cut", [1, 10, len(PACKED["gzip"]) // 2, len(PACKED["gzip"]) - 1])
@pytest.mark.parametrize("close", [False, True])
def test_a_compressed_body_cut_short_is_an_error_and_not_a_short_answer(cut: int, close: bool) -> None:
    part = PACKED["gzip"][:cut]
    with pytest.raises(ConnectionLost, match="ends early"):
        fetch(says(head("gzip") + part if close else whole("gzip", part), close=close))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"hello, this is no gzip", id="plain"),
        pytest.param(PACKED["gzip"][:-6] + b"\0\0\0\0\0\0", id="wrong checksum"),
        pytest.param(PACKED["gzip"] + b"and more", id="rest"),
    ],
)
def test_a_corrupt_body_is_an_error(body: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="encoding"):
        fetch(says(whole("gzip", body)))


def test_bytes_behind_deflate_are_an_error() -> None:
    with pytest.raises(ProtocolViolation, match="behind its compressed end"):
        fetch(says(whole("deflate", PACKED["deflate"] + PACKED["deflate"])))


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "x" * 5000])
def test_an_encoding_that_we_cannot_read_is_an_error(encoding: str) -> None:
    with pytest.raises(ProtocolViolation, match="not asked for") as caught:
        fetch(says(whole(encoding, b"hello")))
    assert len(str(caught.value)) < 120


def test_a_small_body_that_stands_for_a_huge_one_is_cut_at_the_limit() -> None:
    limits = TransportLimits(max_answer_bytes=100_000)
    bomb = gzip.compress(bytes(200_000_000), 9)
    tracemalloc.start()
    with pytest.raises(AnswerTooLarge):
        fetch(says(whole("gzip", bomb)), limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_a_body_of_nothing_but_members_without_content_is_an_error() -> None:
    with pytest.raises(ProtocolViolation):
        fetch(says(whole("gzip", gzip.compress(b"") * 2000)))


def test_an_endless_body_that_stands_for_nothing_is_an_error() -> None:
    packer = zlib.compressobj(wbits=31)
    nothing = packer.flush(zlib.Z_SYNC_FLUSH) + b"\0\0\0\xff\xff" * 10_000  # empty stored blocks
    with pytest.raises(ProtocolViolation):
        fetch(says(whole("gzip", nothing)), TransportLimits(max_answer_bytes=20_000))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["gzip", "deflate", "bare"]), st.data())
def test_any_cut_of_the_same_bytes_gives_the_same_text(text: bytes, kind: str, data: st.DataObject) -> None:
    packed = gzip.compress(text) if kind == "gzip" else zlib.compress(text) if kind == "deflate" else bare_deflate(text)
    cuts = data.draw(st.lists(st.integers(0, len(packed)), max_size=8))
    inflater = Inflater("gzip" if kind == "gzip" else "deflate", 10_000)
    edges = [0, *sorted(cuts), len(packed)]
    assert b"".join(inflater.feed(packed[start:end]) for start, end in pairwise(edges)) == text
    assert inflater.whole


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]), st.booleans())
def test_any_bytes_are_decoded_or_refused(noise: bytes, encoding: str, begins_well: bool) -> None:
    inflater = Inflater(encoding, 1000)
    try:
        decoded = inflater.feed(PACKED[encoding][:20] * begins_well + noise)
    except ValueError:
        return
    assert len(decoded) <= 1001
