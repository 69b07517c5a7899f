"""The server of both planes over raw sockets, under an application such as the control plane's."""

import json
import socket
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from penstock.domain.access import Open
from penstock.web.api import Reply, Request, Route, application
from penstock.web.hub import HttpLimits
from tests.control.plane import serving

SHORT = HttpLimits(header_timeout_s=0.5, keep_alive_s=0.5, body_timeout_s=0.5, max_header_bytes=8192)
NEXT = b"GET /source HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def told(request: Request) -> Reply:
    """What the application saw."""
    return Reply(200, {"source": request.source, "body": request.body, "query": request.query})


TABLE = [Route("GET", "/source", told, Open.PUBLIC), Route("DELETE", "/source", told, Open.PUBLIC)]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(application(TABLE, authenticate=lambda credentials, caller: None), limits=SHORT) as found:
        yield found


def connect(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=15)


def read_all(client: socket.socket) -> bytes:
    data = b""
    while block := client.recv(65536):
        data += block
    return data


def exchange(url: str, sent: bytes) -> bytes:
    """All that comes back until the server closes."""
    with connect(url) as client:
        client.sendall(sent)
        return read_all(client)


def refused(answer: bytes) -> tuple[bytes, str]:
    """The status line's number and the id of a refusal in Heroku's shape, which has a request id."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    (request_id,) = [line.partition(b": ")[2] for line in lines if line.startswith(b"request-id: ")]
    assert uuid.UUID(request_id.decode())
    assert sorted(json.loads(body)) == ["id", "message"]
    return lines[0].split(b" ")[1], json.loads(body)["id"]


def test_a_header_without_an_end_is_431(url: str) -> None:
    answer = exchange(url, b"GET /source HTTP/1.1\r\nx-pad: " + b"y" * 9000)
    assert refused(answer) == (b"431", "header_too_large")


def test_headers_without_number_are_431(url: str) -> None:
    answer = exchange(url, b"GET /source HTTP/1.1\r\n" + b"".join(b"x-%d: a\r\n" % number for number in range(900)))
    assert refused(answer) == (b"431", "header_too_large")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /source HTTP/1.1\r\nx-slow: ", b"408"),
        (b"DELETE /source HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{", b"408"),
    ],
)
def test_a_head_or_body_that_does_not_end_is_408(url: str, sent: bytes, status: bytes) -> None:
    assert refused(exchange(url, sent)) == (status, "request_timeout")


def test_bytes_that_are_not_http_are_400_in_the_planes_shape(url: str) -> None:
    assert refused(exchange(url, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")) == (b"400", "bad_request")


def test_a_connection_that_says_nothing_is_closed_before_and_after_an_answer(url: str) -> None:
    with connect(url) as client:
        assert read_all(client) == b""
    assert exchange(url, NEXT.replace(b"connection: close\r\n", b"")).startswith(b"HTTP/1.1 200 ")


def test_a_request_id_of_seven_thousand_bytes_is_taken(url: str) -> None:
    head = NEXT.replace(b"host: x", b"host: x\r\nrequest-id: " + b"u" * 7000)
    assert exchange(url, head).startswith(b"HTTP/1.1 200 ")


def test_the_peers_address_the_query_and_bodies_of_any_method_reach_the_application(url: str) -> None:
    for method in (b"GET", b"DELETE"):
        head = NEXT.replace(b"GET /source", method + b" /source?a=b%20c").replace(b"\r\n\r\n", b"\r\n")
        framed = b"content-length: 7\r\n\r\n" + b'{"a":1}'
        chunked = b'transfer-encoding: chunked\r\n\r\n4\r\n{"a"\r\n3\r\n:1}\r\n0\r\n\r\n'
        for body in (framed, chunked):
            seen = json.loads(exchange(url, head + body).partition(b"\r\n\r\n")[2])
            assert seen == {"source": "127.0.0.1", "body": {"a": 1}, "query": {"a": "b c"}}


def test_a_body_that_waits_for_100_continue_is_asked_for(url: str) -> None:
    with connect(url) as client:
        client.sendall(NEXT.replace(b"host: x", b"host: x\r\ncontent-length: 2\r\nexpect: 100-continue"))
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}")
        assert read_all(client).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("line", [b"GET /source HTTP/1.1\r\nif-none-match: *", b"HEAD /source HTTP/1.1"])
def test_an_answer_without_a_body_leaves_the_connection_to_the_next_request(url: str, line: bytes) -> None:
    answer = exchange(url, line + b"\r\nhost: x\r\n\r\n" + NEXT)
    first, _, rest = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in first
    assert rest.startswith(b"HTTP/1.1 200 ")


def test_an_answer_that_says_close_is_the_last(url: str) -> None:
    over = b"DELETE /source HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n" + b" " * 1_100_000
    answer = exchange(url, over)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.lower().count(b"connection: close\r\n") == 1


def test_the_address_of_a_peer_on_ipv6_is_taken() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    try:
        with serving(app, host="::1") as url:
            answer = exchange(url, NEXT)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"transfer-encoding" not in answer
    assert [len(client) for client in seen] == [2]


def test_a_client_that_hangs_up_is_told_to_the_application_which_goes_on_and_is_waited_for() -> None:
    reached, heard, ended = threading.Event(), list[str](), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        reached.set()
        heard.append((await receive())["type"])
        ended.set()

    with serving(app) as url, connect(url) as client:
        client.sendall(NEXT)
        assert reached.wait(15)
        client.close()
    assert ended.is_set()
    assert heard == ["http.disconnect"]


def test_a_stop_waits_for_the_work_of_a_client_that_is_gone() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), list[str]()

    def slow(request: Request) -> Reply:
        begun.set()
        go_on.wait(15)
        done.append(request.path)
        return Reply(200, {})

    app = application([Route("GET", "/source", slow, Open.PUBLIC)], authenticate=lambda credentials, caller: None)
    with serving(app, drain_s=15) as url:
        with connect(url) as client:
            client.sendall(NEXT)
            assert begun.wait(15)
        threading.Timer(0.2, go_on.set).start()
    assert done == ["/source"]
