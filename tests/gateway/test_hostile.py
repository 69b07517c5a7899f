"""What hostile testing once broke, kept from breaking again."""

import asyncio
import json
import socket
import time

import httpx
import pytest

from tests.gateway.conftest import ANSWER, DONE, Gateway, delta
from tests.gateway.test_edge import BODY, connect, head, read_all
from tests.gateway.test_keys import provision
from tests.upstream import Exchange

STREAM = BODY[:-1] + b', "stream": true}'


def ask(gateway: Gateway, body: bytes = BODY, *lines: str) -> bytes:
    return head(gateway, f"content-length: {len(body)}", *lines) + body


async def flood(exchange: Exchange) -> None:
    await exchange.begin_stream()
    for _ in range(2_000):
        await exchange.chunk(delta("x" * 60_000))


@pytest.mark.parametrize("behind", [b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", b"\x00garbage\r\n\r\n", b"\r\n"])
def test_bytes_behind_a_request_do_not_save_a_client_that_never_reads(gateway: Gateway, behind: bytes) -> None:
    gateway.upstream.script = flood
    with connect(gateway) as client:
        client.sendall(ask(gateway, STREAM))
        assert client.recv(12) == b"HTTP/1.1 200"
        client.sendall(behind)
        assert gateway.upstream.cancelled.wait(30)


def test_a_slow_client_that_goes_on_reading_is_not_cut(gateway: Gateway) -> None:
    size = 12_000_000

    async def large(exchange: Exchange) -> None:
        answer = ANSWER | {"padding": "x" * size}
        await exchange.answer(json.dumps(answer).encode())

    gateway.upstream.script = large
    read = 0
    with connect(gateway) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(ask(gateway, BODY, "connection: close"))
        while block := client.recv(300_000):
            read += len(block)
            time.sleep(0.04)  # the subject: a reader that takes longer in all than any deadline
    assert read > size


def test_trailers_do_not_become_headers(gateway: Gateway) -> None:
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\nauthorization: Bearer %b\r\n\r\n" % (len(BODY), BODY, gateway.key.encode())
    )
    with connect(gateway) as client:
        client.sendall(request)
        assert read_all(client).startswith(b"HTTP/1.1 401 ")


def test_endless_trailers_are_bounded(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.sendall(head(gateway, "transfer-encoding: chunked") + b"1\r\n{\r\n0\r\nx-pad: ")
        client.sendall(b"y" * 200_000)
        assert read_all(client).startswith(b"HTTP/1.1 431 ")


def test_an_early_refusal_reaches_a_client_that_closes_and_is_still_sending(gateway: Gateway) -> None:
    body = b" " * 900_000
    request = head(gateway, f"content-length: {len(body)}", "connection: close").replace(gateway.key.encode(), b"bad")
    for _ in range(5):
        with connect(gateway) as client:
            client.sendall(request + body)
            assert read_all(client).startswith(b"HTTP/1.1 401 ")


def test_one_request_gets_one_answer(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.sendall(head(gateway, "content-length: 100").replace(gateway.key.encode(), b"bad") + b"abc")
        assert read_all(client).count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("behind", [b"\r\n", b"garbage behind it\r\n\r\n"])
def test_bytes_behind_a_request_do_not_cost_its_answer(gateway: Gateway, behind: bytes) -> None:
    async def slow(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for number in range(16):
            await exchange.chunk(delta(str(number)))
            await asyncio.sleep(0.1)  # longer in all than the header and body deadlines
        await exchange.chunk(DONE)
        await exchange.chunk(b"")

    gateway.upstream.script = slow
    with connect(gateway) as client:
        client.sendall(ask(gateway, STREAM))
        assert client.recv(12) == b"HTTP/1.1 200"
        client.sendall(behind)
        client.settimeout(15)
        data = b""
        while b"[DONE]" not in data:
            block = client.recv(65536)
            assert block, data
            data += block


def test_a_hang_up_behind_a_pipelined_request_is_noticed(gateway: Gateway) -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.hung_up()

    gateway.upstream.script = silent
    before = {record.request_id for record in gateway.records()}
    with connect(gateway) as client:
        client.sendall(ask(gateway) + ask(gateway))
        assert gateway.upstream.arrived.wait(10)
    (first,) = {record.request_id for record in gateway.records()} - before
    # Unnoticed, it would be "upstream_timeout".
    assert gateway.settled(first).outcome == "disconnected"


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        {"prompt_tokens": None},
        {"prompt_tokens": 7.5},
        {"prompt_tokens": 2**64},
        {"prompt_tokens": -1},
        "many",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_senseless_usage_does_not_cost_the_answer(gateway: Gateway, usage: object, stream: bool) -> None:
    async def script(exchange: Exchange) -> None:
        if not stream:
            await exchange.answer(json.dumps(ANSWER | {"usage": usage}).encode())
            return
        await exchange.begin_stream()
        last = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
        await exchange.chunk(delta("a") + last + DONE)
        await exchange.chunk(b"")

    gateway.upstream.script = script
    answer = gateway.chat(stream=stream)
    assert answer.status_code == 200
    settled = gateway.settled(answer.headers["x-request-id"])
    assert (settled.outcome, settled.estimated) == ("completed", True)


def test_a_comment_is_not_an_answer_so_the_next_target_is_tried(gateway: Gateway) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(b": PROCESSING\n\n")
        exchange.close()

    gateway.upstream.script = script
    assert gateway.chat(stream=True).status_code == 502


def test_a_connection_is_reused_after_a_stream_whose_end_comes_late(gateway: Gateway) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("a") + DONE)
        await asyncio.sleep(0.01)
        await exchange.chunk(b"")

    gateway.upstream.script = script
    before = gateway.upstream.connections
    with httpx.Client() as client:  # one connection, so one worker
        for _ in range(8):
            body = {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": "x"}]}
            headers = {"authorization": f"Bearer {gateway.key}"}
            client.post(f"{gateway.server.gateway}/v1/chat/completions", json=body, headers=headers)
            time.sleep(0.05)  # the subject: the next request comes after the late end, as a person's would
    assert gateway.upstream.connections - before <= 2


def test_a_small_chunked_body_over_the_limit_is_refused(gateway: Gateway) -> None:
    url, headers = f"{gateway.server.gateway}/v1/chat/completions", {"authorization": f"Bearer {gateway.key}"}
    assert httpx.post(url, content=iter([b" " * 1_100_000]), headers=headers).status_code == 413


def test_an_absolute_target_is_served(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.sendall(b"GET http://penstock.example/healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 200 ")


def test_a_key_of_one_model_does_not_see_another(gateway: Gateway) -> None:
    key = provision(gateway, "sees-one", "scripted")["INFERENCE_KEY"]
    headers = {"authorization": f"Bearer {key}"}
    assert httpx.get(f"{gateway.server.gateway}/v1/models/fallback", headers=headers).status_code == 403
