"""Answers of an upstream in our own dialect, through the whole gateway."""

import json

import httpx
import pytest

from tests.gateway.conftest import ANSWER, DONE, USAGE, Gateway, delta
from tests.upstream import Exchange


def test_a_plain_answer_is_passed_on_byte_for_byte(gateway: Gateway) -> None:
    answer = gateway.chat()
    assert (answer.status_code, answer.json()) == (200, ANSWER)
    assert "penstock-stand-in" not in answer.headers


def test_the_upstream_is_asked_for_its_own_model_name_with_the_clients_values(gateway: Gateway) -> None:
    seen: list[dict[str, object]] = []

    async def script(exchange: Exchange) -> None:
        seen.append(json.loads(exchange.body))
        assert exchange.header("authorization") is None  # the client's key stays here
        await exchange.answer(json.dumps(ANSWER).encode())

    gateway.upstream.script = script
    assert gateway.chat(temperature=0.25, user="u1", allow_ignored_params=True).status_code == 200
    assert seen[0]["model"] == "upstream-name"
    assert (seen[0]["temperature"], seen[0]["user"]) == (0.25, "u1")
    assert "allow_ignored_params" not in seen[0]


def test_two_model_fields_never_reach_the_upstream(gateway: Gateway) -> None:
    bodies: list[bytes] = []

    async def script(exchange: Exchange) -> None:
        bodies.append(exchange.body)
        await exchange.answer(json.dumps(ANSWER).encode())

    gateway.upstream.script = script
    body = b'{"model":"forbidden","messages":[{"role":"user","content":"x"}],"model":"scripted"}'
    assert gateway.post(body).status_code == 200
    assert bodies[0].count(b'"model"') == 1
    assert b"forbidden" not in bodies[0]


def test_a_dropped_parameter_is_named_and_not_passed_on(gateway: Gateway) -> None:
    bodies: list[bytes] = []

    async def script(exchange: Exchange) -> None:
        bodies.append(exchange.body)
        await exchange.answer(json.dumps(ANSWER).encode())

    gateway.upstream.script = script
    answer = gateway.chat(guided="x", allow_ignored_params=True)
    assert answer.headers["penstock-ignored-params"] == "guided"
    assert b"guided" not in bodies[0]


def test_a_stream_is_relayed_and_metered(gateway: Gateway) -> None:
    asked: list[dict[str, object]] = []

    async def script(exchange: Exchange) -> None:
        asked.append(json.loads(exchange.body))
        await exchange.begin_stream()
        for data in (delta("Hel"), delta("lo"), USAGE, DONE):
            await exchange.chunk(data)
        await exchange.chunk(b"")

    gateway.upstream.script = script
    answer = gateway.chat(stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content == delta("Hel") + delta("lo") + DONE  # the usage chunk was ours, not the client's
    assert asked[0]["stream_options"] == {"include_usage": True}
    settled = gateway.settled(answer.headers["x-request-id"])
    assert (settled.outcome, settled.input_tokens, settled.output_tokens, settled.estimated) == (
        "completed",
        7,
        2,
        False,
    )


def test_the_usage_chunk_is_kept_when_the_client_asked_for_it(gateway: Gateway) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("a") + USAGE + DONE)
        await exchange.chunk(b"")

    gateway.upstream.script = script
    answer = gateway.chat(stream=True, stream_options={"include_usage": True})
    assert answer.content == delta("a") + USAGE + DONE


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_a_stream_cut_into_pieces_and_written_with_crlf_reads_the_same(gateway: Gateway, size: int) -> None:
    data = (b": ping\n\n" + delta("Gr\u00fc\u00dfe \U0001f600") + delta('say [DONE] and "error":') + DONE).replace(
        b"\n", b"\r\n"
    )

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for start in range(0, len(data), size):
            await exchange.chunk(data[start : start + size])
        await exchange.chunk(b"")

    gateway.upstream.script = script
    events = [line[6:] for line in gateway.chat(stream=True).text.split("\n") if line.startswith("data: ")]
    texts = [json.loads(event)["choices"][0]["delta"]["content"] for event in events[:-1]]
    assert (texts, events[-1]) == (["Gr\u00fc\u00dfe \U0001f600", 'say [DONE] and "error":'], "[DONE]")


def test_a_stream_that_ends_without_done_ends_with_a_typed_error_and_no_done(gateway: Gateway) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("a") + delta("b"))
        await exchange.chunk(b"")

    gateway.upstream.script = script
    answer = gateway.chat(stream=True)
    events = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    assert json.loads(events[-1])["error"]["code"] == "upstream_closed"
    assert "[DONE]" not in answer.text
    assert '"finish_reason": "stop"' not in answer.text
    settled = gateway.settled(answer.headers["x-request-id"])
    assert (settled.outcome, settled.output_tokens, settled.estimated) == ("upstream_closed", 2, True)


def test_a_connection_reset_in_a_stream_ends_with_a_typed_error(gateway: Gateway) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("a"))
        exchange.reset()

    gateway.upstream.script = script
    answer = gateway.chat(stream=True)
    assert answer.status_code == 200
    assert '"code":"upstream_closed"' in answer.text.rpartition("data: ")[2]


def test_an_error_event_in_a_stream_is_passed_on_as_ours_with_secrets_masked(gateway: Gateway) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("a") + b'data: {"error":{"message":"overloaded sk-abcdefghijklmnop"}}\n\n')
        await exchange.chunk(b"")

    gateway.upstream.script = script
    last = json.loads(gateway.chat(stream=True).text.rpartition("data: ")[2])
    assert last["error"]["code"] == "upstream_error"
    assert last["error"]["message"] == "The upstream failed: overloaded [masked]"


def test_an_error_as_the_first_event_keeps_its_http_status(gateway: Gateway) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(b'data: {"error":{"message":"no capacity"}}\n\n')
        await exchange.chunk(b"")

    gateway.upstream.script = script
    assert gateway.chat(stream=True).status_code == 502


@pytest.mark.parametrize(
    ("status", "body", "expected", "code"),
    [
        ("400 Bad Request", b'{"error":{"message":"bad temperature"}}', 400, "upstream_refused"),
        (
            "400 Bad Request",
            b'{"error":{"message":"too long","code":"context_length_exceeded"}}',
            400,
            "context_length_exceeded",
        ),
        (
            "401 Unauthorized",
            b'{"error":{"message":"Incorrect API key sk-123456789abc"}}',
            502,
            "upstream_misconfigured",
        ),
        ("404 Not Found", b"", 502, "upstream_misconfigured"),
        ("408 Request Timeout", b"", 504, "upstream_timeout"),
        ("429 Too Many Requests", b'{"error":"slow down"}', 429, "upstream_rate_limited"),
        ("500 Oops", b"<html>oops</html>", 502, "upstream_error"),
        ("503 Busy", b'{"message":"busy"}', 503, "upstream_overloaded"),
        ("529 Overloaded", b"[[[[", 503, "upstream_overloaded"),
        ("200 OK", b'{"error":{"message":"really an error"}}', 502, "upstream_error"),
        ("200 OK", b'{"choices":[', 502, "upstream_error"),
        ("200 OK", b"", 502, "upstream_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_every_failure_of_the_upstream_has_our_code(
    gateway: Gateway, status: str, body: bytes, expected: int, code: str, stream: bool
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, status=status)

    gateway.upstream.script = script
    answer = gateway.chat(stream=stream)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (expected, code)
    assert "sk-" not in answer.text
    assert gateway.settled(answer.headers["x-request-id"]).outcome == code


def test_the_upstreams_retry_after_reaches_the_client(gateway: Gateway) -> None:
    async def script(exchange: Exchange) -> None:
        head = b"HTTP/1.1 429 Slow\r\nretry-after: 17\r\ncontent-length: 0\r\n\r\n"
        await exchange.send(head)

    gateway.upstream.script = script
    assert gateway.chat().headers["retry-after"] == "17"


def test_a_silent_upstream_is_a_504(gateway: Gateway) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.hung_up()

    gateway.upstream.script = script
    assert gateway.chat().status_code == 504


def test_an_upstream_that_does_not_listen_is_a_502(gateway: Gateway) -> None:
    assert gateway.chat(model="dead").json()["error"]["code"] == "upstream_error"


def test_the_next_target_answers_when_the_first_does_not(gateway: Gateway) -> None:
    answer = gateway.chat(model="fallback")
    settled = gateway.settled(answer.headers["x-request-id"])
    assert (answer.status_code, settled.provider, settled.target_model) == (200, "double", "second")


def test_a_client_that_hangs_up_cancels_the_upstream_and_is_settled(gateway: Gateway) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("a"))
        await exchange.hung_up()
        gateway.upstream.cancelled.set()

    gateway.upstream.script = script
    body = {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    url, headers = f"{gateway.server.gateway}/v1/chat/completions", {"authorization": f"Bearer {gateway.key}"}
    with httpx.stream("POST", url, json=body, headers=headers) as answer:
        next(answer.iter_bytes())
        request_id = answer.headers["x-request-id"]
    assert gateway.upstream.cancelled.wait(10)
    settled = gateway.settled(request_id)
    assert (settled.outcome, settled.output_tokens, settled.estimated) == ("disconnected", 1, True)


def test_a_client_that_hangs_up_before_the_first_token_cancels_the_upstream(gateway: Gateway) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.hung_up()
        gateway.upstream.cancelled.set()

    gateway.upstream.script = script
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{gateway.server.gateway}/v1/chat/completions",
            json={"model": "scripted", "messages": [{"role": "user", "content": "x"}]},
            headers={"authorization": f"Bearer {gateway.key}"},
            timeout=0.5,
        )
    assert gateway.upstream.cancelled.wait(10)
