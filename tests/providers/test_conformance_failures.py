"""Every adapter tells the same failure by the same code, in its vendor's words and without the operator's secret."""

import gzip
import json
import socket
from typing import Any

import pytest

from tests.providers.lane import CALLS, STREAM, Heard, Lane, answering, make, only
from tests.providers.vendors import Answer
from tests.upstream import Exchange, ScriptedUpstream

# What a vendor says of itself, and what our clients are told: the code, its status, whether the words are passed on.
EXPECTED = {
    "invalid": ("upstream_refused", 400, True),
    "unauthorized": ("upstream_misconfigured", 502, False),
    "forbidden": ("upstream_misconfigured", 502, False),
    "not_found": ("upstream_misconfigured", 502, True),
    "rate_limited": ("upstream_rate_limited", 429, True),
    "overloaded": ("upstream_overloaded", 503, True),
    "internal": ("upstream_error", 502, True),
    "too_long": ("context_length_exceeded", 400, True),
}
MODES: list[dict[str, Any]] = [{}, STREAM]
modes = pytest.mark.parametrize("fields", MODES, ids=["plain", "streamed"])


def words(body: bytes) -> str:
    """The message of a vendor's error body, wherever it stands in it."""
    found: list[str] = []

    def look(value: Any) -> None:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(inner, dict | list):
                look(inner)
            elif str(key).lower() == "message":
                found.append(inner)

    look(json.loads(body))
    return max(found, key=len)


def assert_failed(heard: Heard, *codes: str) -> str:
    """That no answer came of it; returns what the client is told."""
    assert not heard.done
    assert heard.error is not None
    assert heard.error.code in codes, heard.error.message
    return heard.error.message


@modes
@pytest.mark.parametrize("kind", EXPECTED)
def test_a_refusal_has_the_code_of_its_kind(lane: Lane, kind: str, fields: dict[str, Any]) -> None:
    status, headers, body = lane.vendor.error(kind)
    code, public, passed = EXPECTED[kind]
    heard = lane.hear(answering(body, status=status, headers=headers), **fields)
    message = assert_failed(heard, code)
    assert heard.error is not None
    assert heard.error.status == public
    assert not heard.opened
    assert (words(body) in message) is passed


def test_the_vendors_own_wait_is_passed_on(lane: Lane) -> None:
    status, headers, body = lane.vendor.error("rate_limited")
    heard = lane.hear(answering(body, status=status, headers=headers))
    assert heard.error is not None
    wait = heard.error.retry_after_s
    assert wait == (7 if any(name.lower() == "retry-after" for name in headers) else wait)
    assert wait is not None
    assert wait >= 1


@modes
@pytest.mark.parametrize("kind", EXPECTED)
def test_a_credential_that_is_quoted_back_is_masked(lane: Lane, kind: str, fields: dict[str, Any]) -> None:
    status, headers, body = lane.vendor.error(kind)
    said = words(body)
    for secret in lane.secrets:
        quoting = body.replace(json.dumps(said)[1:-1].encode(), json.dumps(f"{said} {secret} (key)")[1:-1].encode())
        assert secret.encode() in quoting
        message = assert_failed(lane.hear(answering(quoting, status=status, headers=headers), **fields), *CODES)
        assert secret not in message


CODES = tuple(code for code, _, _ in EXPECTED.values())


@modes
def test_an_error_page_of_a_proxy_is_the_upstreams_failure(lane: Lane, fields: dict[str, Any]) -> None:
    """Whoever answers in the vendor's place speaks no dialect."""
    script = answering(b"<html>Bad Gateway</html>", status=502, headers={"content-type": "text/html"})
    assert_failed(lane.hear(script, **fields), "upstream_error")
    assert_failed(lane.hear(answering(b"", status=500), **fields), "upstream_error")
    assert_failed(lane.hear(answering(b'{"message": 7, "error": [1]}', status=503), **fields), "upstream_overloaded")


@modes
def test_a_200_that_holds_an_error_is_no_answer(lane: Lane, fields: dict[str, Any]) -> None:
    _, _, body = lane.vendor.error("overloaded")
    message = assert_failed(lane.hear(answering(body), **fields), "upstream_error", "upstream_overloaded")
    assert words(body) in message


@modes
@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b"", b"hello", b"\xff\xfe", b"[" * 100_000])
def test_a_200_that_holds_nothing_is_no_answer(lane: Lane, fields: dict[str, Any], body: bytes) -> None:
    assert_failed(lane.hear(answering(body), **fields), "upstream_error", "upstream_closed")


def test_a_stream_that_is_a_plain_answer_is_an_error(lane: Lane) -> None:
    """An upstream that does not stream when asked to: its answer is not passed off as a stream."""
    assert_failed(lane.hear(answering(lane.vendor.plain(Answer())), **STREAM), "upstream_error")


def test_a_failure_in_place_of_the_first_event_comes_before_the_answer(lane: Lane) -> None:
    """So that another target may still be tried."""
    heard = lane.stream([lane.vendor.error_event()])
    assert_failed(heard, "upstream_error", "upstream_overloaded")
    assert not heard.opened
    assert heard.body == b""


def test_a_failure_between_any_two_events_ends_the_answer_as_failed(lane: Lane) -> None:
    answer = Answer(text="one two", calls=CALLS[:1], finish="tool_calls")
    events = lane.vendor.events(answer)
    for count in range(1, len(events)):
        for blocks in (
            [*events[:count], lane.vendor.error_event()],
            [b"".join(events[:count]) + lane.vendor.error_event()],
        ):
            heard = lane.stream(blocks, **lane.shown(answer))
            assert_failed(heard, "upstream_error", "upstream_overloaded")
            assert b"[DONE]" not in heard.body


def test_what_came_before_a_failure_in_the_same_bytes_is_still_told(lane: Lane) -> None:
    events = lane.vendor.events(Answer(text="one two", pieces=1))
    alone = lane.stream([*events[: len(events) - 1], lane.vendor.error_event()])
    together = lane.stream([b"".join(events[: len(events) - 1]) + lane.vendor.error_event()])
    assert together.spoken.text == alone.spoken.text


# The dialect of our own is passed through: blocks of events in which nothing concerns the meter are not read at all.
@only(lambda vendor: vendor.kind not in ("openai", "azure"))
def test_an_event_that_is_broken_ends_the_answer_as_failed(lane: Lane) -> None:
    events = lane.vendor.events(Answer(text="one two three", pieces=3))
    broken = _broken(lane, events[len(events) // 2])
    heard = lane.stream([*events[: len(events) // 2], broken, *events[len(events) // 2 + 1 :]])
    assert_failed(heard, "upstream_error")


def _broken(lane: Lane, event: bytes) -> bytes:
    if lane.vendor.stream_type == "text/event-stream":
        return event.rstrip()[:-3] + b"\n\n"
    middle = len(event) // 2
    return event[:middle] + bytes([event[middle] ^ 1]) + event[middle + 1 :]


@modes
def test_an_upstream_that_nobody_runs_is_an_error_before_the_answer(lane: Lane, fields: dict[str, Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"

        async def made() -> Any:
            return make(lane.vendor, base)[0]

        heard = lane.hear(answering(b""), adapter=lane.runner.run(made()), **fields)
    assert_failed(heard, "upstream_error", "upstream_closed")
    assert not heard.opened


@modes
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-ty"])
def test_a_connection_that_goes_before_the_head_is_an_error_before_the_answer(
    lane: Lane, fields: dict[str, Any], end: str, sent: bytes
) -> None:
    async def script(exchange: Exchange) -> None:
        if sent:
            await exchange.send(sent)
            await lane.turns()
        await lane.finish(exchange, end)

    heard = lane.hear(script, **fields)
    assert_failed(heard, "upstream_closed", "upstream_error")
    assert not heard.opened


@only(lambda vendor: vendor.kind != "any-llm")  # there the library reads the body
@modes
def test_a_refusal_whose_body_breaks_off_is_told_by_its_status(lane: Lane, fields: dict[str, Any]) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 429 Busy\r\nretry-after: 7\r\ncontent-length: 99\r\n\r\n{")
        exchange.close()

    heard = lane.hear(script, **fields)
    assert_failed(heard, "upstream_rate_limited")
    assert heard.error is not None
    assert heard.error.retry_after_s == 7


@modes
def test_an_upstream_that_does_not_speak_http_is_an_error(lane: Lane, fields: dict[str, Any]) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        exchange.close()

    assert_failed(lane.hear(script, **fields), "upstream_closed", "upstream_error")


def test_a_plain_answer_in_gzip_is_read_or_refused(lane: Lane) -> None:
    """Nobody asked for it; what must never happen is that its bytes reach a client."""
    script = answering(gzip.compress(lane.vendor.plain(Answer())), headers={"content-encoding": "gzip"})
    heard = lane.hear(script)
    if heard.error is None:
        assert heard.whole.text == Answer().text
    else:
        assert_failed(heard, "upstream_error")


def test_a_stream_in_gzip_is_read_or_refused(lane: Lane) -> None:
    body = gzip.compress(b"".join(lane.vendor.events(Answer())))
    headers = {"content-encoding": "gzip", "content-type": lane.vendor.stream_type}
    heard = lane.hear(answering(body, headers=headers), **STREAM)
    if heard.error is None:
        assert heard.whole.text == Answer().text
    else:
        assert_failed(heard, "upstream_error", "upstream_closed")
        assert heard.body == b""


@modes
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_takes_no_credential_elsewhere(
    lane: Lane, fields: dict[str, Any], status: int
) -> None:
    async def elsewhere(exchange: Exchange) -> None:
        await exchange.answer(lane.vendor.plain(Answer()))

    with ScriptedUpstream(elsewhere) as other:
        script = answering(b"{}", status=status, headers={"location": f"{other.base}/messages"})
        assert_failed(lane.hear(script, **fields), "upstream_error")
        assert other.connections == 0


@modes
def test_the_credential_goes_in_a_header_only(lane: Lane, fields: dict[str, Any]) -> None:
    vendor = lane.vendor
    if fields:
        assert lane.stream(vendor.events(Answer())).done
    else:
        assert lane.plain(vendor.plain(Answer())).done
    exchange = lane.exchanges[-1]
    line = exchange.head.split(b"\r\n", 1)[0]
    for secret in lane.secrets:
        assert secret.encode() not in line
        assert secret.encode() not in exchange.body
