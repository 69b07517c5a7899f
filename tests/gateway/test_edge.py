"""The HTTP edge against raw sockets: slow, large, broken and unusual clients."""

import json
import socket
import time

import httpx
import pytest

from tests.gateway.conftest import Gateway, delta
from tests.upstream import Exchange

BODY = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": "x"}]}).encode()


def connect(gateway: Gateway) -> socket.socket:
    host, port = gateway.server.gateway.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=15)


def read_all(client: socket.socket) -> bytes:
    data = b""
    while block := client.recv(65536):
        data += block
    return data


def head(gateway: Gateway, *lines: str) -> bytes:
    return "\r\n".join(
        ["POST /v1/chat/completions HTTP/1.1", "host: x", f"authorization: Bearer {gateway.key}", *lines, "", ""]
    ).encode()


def test_headers_that_never_end_are_timed_out(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-slow: ")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer


def test_a_trickle_of_header_bytes_does_not_extend_the_deadline(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.sendall(b"POST / HTTP/1.1\r\nx-slow: ")
        client.settimeout(0.1)
        deadline = time.monotonic() + 15
        answer = b""
        while not answer and time.monotonic() < deadline:
            try:
                client.sendall(b"y")
                answer = client.recv(100)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_never_ends_is_timed_out(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.sendall(head(gateway, "content-length: 100") + b'{"mod')
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_connection_that_says_nothing_is_closed(gateway: Gateway) -> None:
    with connect(gateway) as client:
        assert read_all(client) == b""


def test_headers_over_the_limit_are_refused(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.sendall(b"POST / HTTP/1.1\r\nx-pad: " + b"y" * 70_000)
        assert read_all(client).startswith(b"HTTP/1.1 431 ")


def test_bytes_that_are_not_http_are_refused_in_the_apis_shape(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    "extra", ["content-length: 5\r\ncontent-length: 6", "content-length: 5\r\ntransfer-encoding: chunked"]
)
def test_ambiguous_framing_is_refused(gateway: Gateway, extra: str) -> None:
    with connect(gateway) as client:
        client.sendall(head(gateway, extra) + b"0\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 400 ")


def test_a_body_over_the_limit_is_refused_although_the_client_is_still_sending(gateway: Gateway) -> None:
    answer = gateway.post(b" " * 10_000_000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_a_chunked_body_over_the_limit_is_refused(gateway: Gateway) -> None:
    def chunks() -> "list[bytes]":
        return [b" " * 65536] * 40

    url, headers = f"{gateway.server.gateway}/v1/chat/completions", {"authorization": f"Bearer {gateway.key}"}
    assert httpx.post(url, content=iter(chunks()), headers=headers).status_code == 413


def test_a_chunked_body_is_read(gateway: Gateway) -> None:
    url, headers = f"{gateway.server.gateway}/v1/chat/completions", {"authorization": f"Bearer {gateway.key}"}
    pieces = iter([BODY[:10], BODY[10:]])
    assert httpx.post(url, content=pieces, headers=headers).status_code == 200


def test_expect_100_continue_is_answered(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.sendall(head(gateway, f"content-length: {len(BODY)}", "expect: 100-continue", "connection: close"))
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(BODY)
        assert read_all(client).startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    one = head(gateway, f"content-length: {len(BODY)}") + BODY
    last = head(gateway, f"content-length: {len(BODY)}", "connection: close") + BODY
    with connect(gateway) as client:
        client.sendall(one + one + last)
        assert read_all(client).count(b"HTTP/1.1 200 ") == 3


def test_an_old_client_of_http_1_0_is_served(gateway: Gateway) -> None:
    request = head(gateway, f"content-length: {len(BODY)}").replace(b"HTTP/1.1", b"HTTP/1.0") + BODY
    with connect(gateway) as client:
        client.sendall(request)
        assert b"200 OK" in read_all(client)


def test_a_client_that_leaves_in_the_middle_of_its_body_disturbs_nobody(gateway: Gateway) -> None:
    for _ in range(20):
        with connect(gateway) as client:
            client.sendall(head(gateway, "content-length: 100") + b'{"mod')
    assert gateway.chat().status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "route_not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/completions", 404, "route_not_found"),
        ("GET", "/v1/models/nope", 404, "model_not_found"),
    ],
)
def test_wrong_routes_and_methods_are_refused(gateway: Gateway, method: str, path: str, status: int, code: str) -> None:
    answer = httpx.request(method, gateway.server.gateway + path, headers={"authorization": f"Bearer {gateway.key}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["x-request-id"].startswith("req_")
    assert status != 405 or answer.headers["allow"] in ("GET", "POST")


def test_a_bug_is_a_500_without_a_trace_of_what_was_sent(gateway: Gateway) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: x\r\nretry-after: \xff\r\ncontent-length: 2\r\n\r\n{}")

    gateway.upstream.script = script
    answer = gateway.chat(messages=[{"role": "user", "content": "CANARY-PROMPT"}])
    assert answer.status_code == 502
    log = gateway.server.log.read_text()
    assert "CANARY-PROMPT" not in log
    assert gateway.key not in log.replace(f"Bearer {gateway.key}", "", 1)
    assert "Traceback" not in log


def test_no_browser_of_another_origin_is_let_in(gateway: Gateway) -> None:
    headers = {"authorization": f"Bearer {gateway.key}", "origin": "https://evil.example"}
    answer = httpx.get(f"{gateway.server.gateway}/v1/models", headers=headers)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_body_behind_an_offered_upgrade_is_read(gateway: Gateway) -> None:
    """Some HTTP clients offer h2c with every cleartext POST; a parser that stops at the offer loses the body."""
    offer = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__")
    request = head(gateway, *offer, f"content-length: {len(BODY)}") + BODY
    after = head(gateway, "connection: close", f"content-length: {len(BODY)}") + BODY
    with connect(gateway) as client:
        client.sendall(request[:-10])
        client.sendall(request[-10:] + after)
        assert read_all(client).count(b"HTTP/1.1 200 ") == 2


def test_head_answers_without_a_body(gateway: Gateway) -> None:
    answer = httpx.head(f"{gateway.server.gateway}/healthz")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


def test_a_refusal_of_the_parser_carries_a_request_id_too(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert b"\r\nx-request-id: req_" in read_all(client)


def test_a_client_that_does_not_read_is_cut_and_its_upstream_with_it(gateway: Gateway) -> None:
    async def flood(exchange: Exchange) -> None:
        await exchange.begin_stream()
        event = delta("x" * 60_000)
        for _ in range(2_000):
            await exchange.chunk(event)

    gateway.upstream.script = flood
    body = BODY[:-1] + b', "stream": true}'
    with connect(gateway) as client:
        client.sendall(head(gateway, f"content-length: {len(body)}") + body)
        assert client.recv(12) == b"HTTP/1.1 200"
        assert gateway.upstream.cancelled.wait(30)


@pytest.mark.parametrize(
    ("sent", "status", "id_"),
    [
        (b"GET / HTTP/1.1\r\nx-slow: ", b"408", "request_timeout"),
        (b"GET / HTTP/1.1\r\nx-pad: " + b"y" * 70_000, b"431", "header_too_large"),
    ],
)
def test_the_control_plane_has_the_same_bounds_in_its_own_shape(
    gateway: Gateway, sent: bytes, status: bytes, id_: str
) -> None:
    host, port = gateway.server.control.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=15) as client:
        client.sendall(sent)
        answer = read_all(client)
    assert answer.split(b" ")[1] == status
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["id"] == id_
