"""Heads that are known: what a connection makes of a request does not depend on what came before it."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.web.heads import known_head
from penstock.web.hub import HttpLimits
from tests.control.plane import serving

LIMITS = HttpLimits(header_timeout_s=5, keep_alive_s=5, body_timeout_s=5, max_header_bytes=8192)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with all that an application sees of a request, and spoils its scope afterwards."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    names = ("method", "path", "raw_path", "query_string", "http_version", "headers")
    seen = json.dumps({"body": str(body), **{name: str(scope[name]) for name in names}}).encode()
    scope["headers"].clear()
    scope.clear()
    head = [(b"content-length", b"%d" % len(seen))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": seen})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(echo, limits=LIMITS) as found:
        yield found


def connect(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=15)


def answer(client: socket.socket) -> bytes:
    """The status and body of one answer, without the head's date; b"" when the server has closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (block := client.recv(65536)):
            return data[:12]
        data += block
    head, _, body = data.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        return answer(client) if not body else b"unexpected"
    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < size:
        body += client.recv(65536)
    return head[:12] + body if head.startswith(b"HTTP/1.1 200") else head[:12]


def fresh(url: str, sent: bytes) -> bytes:
    """The answer to the first request of a connection."""
    with connect(url) as client:
        client.sendall(sent)
        return answer(client)


def request(line: bytes, extra: bytes, length: bytes, body: bytes) -> bytes:
    return line + b"\r\nhost: x\r\n" + extra + length + b"\r\n\r\n" + body


LINES = [b"POST /a HTTP/1.1", b"POST /a?q=1 HTTP/1.1", b"POST /b%20c HTTP/1.1", b"PUT /a HTTP/1.1"]
EXTRA = [b"", b"x-one: 1\r\n", b"x-one: 2\r\n", b"connection: keep-alive\r\n", b"x-lengths: content-length: 3\r\n"]
NAMES = [b"content-length: ", b"Content-Length: ", b"content-length:", b"content-length:  "]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One good request with a body."""
    body = draw(st.binary(max_size=40) | st.sampled_from([b"", b"x" * 5000]))
    zeros = draw(st.sampled_from([b"", b"", b"0"]))
    length = draw(st.sampled_from(NAMES)) + zeros + b"%d" % len(body)
    return request(draw(st.sampled_from(LINES)), draw(st.sampled_from(EXTRA)), length, body)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(requests(), min_size=2, max_size=6), cut=st.integers(0, 200))
def test_a_request_is_seen_alike_whatever_came_before_it_on_its_connection(
    url: str, sent: list[bytes], cut: int
) -> None:
    with connect(url) as client:
        for number, one in enumerate(sent):
            first, rest = (one[:cut], one[cut:]) if number % 3 == 2 else (one, b"")
            client.sendall(first)
            client.sendall(rest)
            assert answer(client) == fresh(url, one)


REPEATED = request(b"POST /a HTTP/1.1", b"x-one: 1\r\n", b"content-length: 4", b"body")


@pytest.mark.parametrize(
    "odd",
    [
        REPEATED.replace(b"length: 4", b"length: -4"),
        REPEATED.replace(b"length: 4", b"length: +4"),
        REPEATED.replace(b"length: 4", b"length: 4 4"),
        REPEATED.replace(b"length: 4", b"length: 4, 4"),
        REPEATED.replace(b"length: 4", b"length: "),
        REPEATED.replace(b"length: 4", b"length: 4\r\ncontent-length: 5"),
        REPEATED.replace(b"length: 4", b"length: 4\r\ntransfer-encoding: chunked"),
        REPEATED.replace(b"length: 4", b"length: 99999999999999999999"),
        REPEATED.replace(b"HTTP/1.1", b"HTTP/1.9"),
        REPEATED.replace(b"host: x\r\n", b"host: x\n"),
        REPEATED.replace(b"x-one: 1", b"x-one: 1\x00"),
    ],
)
def test_what_is_refused_on_a_new_connection_is_refused_behind_good_requests(url: str, odd: bytes) -> None:
    with connect(url) as client:
        for _ in range(3):
            client.sendall(REPEATED)
            assert answer(client).startswith(b"HTTP/1.1 200")
        client.sendall(odd)
        assert answer(client) == fresh(url, odd)


def test_bytes_behind_a_known_request_are_the_next_request(url: str) -> None:
    other = request(b"POST /b HTTP/1.1", b"", b"content-length: 2", b"hi")
    with connect(url) as client:
        for _ in range(2):
            client.sendall(REPEATED)
            assert answer(client) == fresh(url, REPEATED)
        with client.makefile("rb") as answers:
            client.sendall(REPEATED + other)
            paths = []
            for _ in range(2):
                length = 0
                while (line := answers.readline()) != b"\r\n":
                    if line.startswith(b"content-length: "):
                        length = int(line.split()[1])
                paths.append(json.loads(answers.read(length))["path"])
    assert paths == ["/a", "/b"]


def test_a_known_head_ends_with_its_connection(url: str) -> None:
    closing = REPEATED.replace(b"x-one: 1", b"connection: close")
    with connect(url) as client:
        client.sendall(REPEATED)
        assert answer(client)
        client.sendall(closing)
        assert answer(client) == fresh(url, closing)
        assert client.recv(1) == b""


def scope() -> dict[str, Any]:
    return {"path": "/a", "headers": [(b"host", b"x"), (b"x-one", b"1"), (b"content-length", b"4")]}


def test_a_known_head_fits_with_another_length_and_nothing_else() -> None:
    known = known_head(REPEATED, scope())
    assert known is not None
    longer = REPEATED.replace(b"length: 4", b"length: 12").replace(b"body", b"b" * 12)
    at = known.body_at(longer)
    assert longer[at:] == b"b" * 12
    assert known.scope(longer, at) == scope() | {
        "headers": [(b"host", b"x"), (b"x-one", b"1"), (b"content-length", b"12")]
    }
    for other in (
        longer[:-1],
        longer + b"b",
        longer.replace(b"x-one: 1", b"x-one: 2"),
        longer.replace(b"12", b"1 "),
        longer.replace(b"12", b"0000000012"),
        b"",
    ):
        assert known.body_at(other) == 0


def test_a_head_without_one_plain_length_is_not_learnt() -> None:
    assert known_head(REPEATED.replace(b"content-length: 4\r\n", b""), scope()) is None
    assert known_head(REPEATED, {"headers": [(b"host", b"x")]}) is None
    assert known_head(REPEATED.replace(b": 4", b": 04"), scope()) is None
    assert known_head(REPEATED + b"more", scope()) is None
