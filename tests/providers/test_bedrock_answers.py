"""What Converse's answers become in our dialect: plain, streamed, cut and failed."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.errors import UpstreamError
from penstock.domain.usage import Usage
from penstock.providers.bedrock.events import Reader
from penstock.providers.bedrock.failures import Failures
from tests.providers.bedrock_calls import BEARER, DOUBLE, KEYS, bound_request, call, says, stream_of
from tests.providers.vendors import REFUSALS, Answer
from tests.providers.vendors.bedrock import exception, frame, message
from tests.upstream import Exchange

FULL = Answer(
    text="Hello wörld 🌊",
    thinking="Let me see…",
    calls=(("tooluse_1", "weather", '{"at":"Köln"}'), ("tooluse_2", "time", "{}")),
    finish="tool_calls",
    usage=(30, 9, 20, 4),
)
USAGE = Usage(input_tokens=30, output_tokens=9, cached_input_tokens=20, cache_write_tokens=4)
SHOWN: dict[str, Any] = {"extended_thinking": {"enabled": True, "include_reasoning": True}}
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}, **SHOWN}


def test_a_plain_answer_has_text_thoughts_calls_and_usage() -> None:
    outcome = call(bound_request(**SHOWN), says(FULL))
    choice = outcome.answer["choices"][0]
    said = choice["message"]
    assert said["content"] == FULL.text
    assert said["reasoning"] == {"thinking": FULL.thinking, "signature": "c2lnbmVk"}
    assert [(c["id"], c["function"]["name"], json.loads(c["function"]["arguments"])) for c in said["tool_calls"]] == [
        ("tooluse_1", "weather", {"at": "Köln"}),
        ("tooluse_2", "time", {}),
    ]
    assert choice["finish_reason"] == "tool_calls"
    assert outcome.events[0].usage == USAGE
    assert outcome.answer["usage"]["prompt_tokens"] == 30


def test_a_streamed_answer_says_the_same() -> None:
    outcome = call(bound_request(**STREAM), says(FULL))
    deltas = [chunk["choices"][0]["delta"] for chunk in outcome.chunks if chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == FULL.text
    thoughts = [delta["reasoning"] for delta in deltas if "reasoning" in delta]
    assert "".join(thought.get("thinking", "") for thought in thoughts) == FULL.thinking
    assert thoughts[-1] == {"signature": "c2lnbmVk"}
    calls = [fragment for delta in deltas for fragment in delta.get("tool_calls", [])]
    assert [(c["index"], c["id"], c["function"]) for c in calls if "id" in c] == [
        (0, "tooluse_1", {"name": "weather", "arguments": ""}),
        (1, "tooluse_2", {"name": "time", "arguments": ""}),
    ]
    arguments = "".join(c["function"]["arguments"] for c in calls if c["index"] == 0)
    assert json.loads(arguments) == {"at": "Köln"}
    assert outcome.events[-1].done
    assert outcome.events[-1].usage == USAGE
    assert sum(event.output_tokens for event in outcome.events) > 6
    assert outcome.chunks[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 20, "cache_write_tokens": 4}


@pytest.mark.parametrize("thinking", [None, {"enabled": True}])
@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_are_shown_to_no_one_who_did_not_ask_but_count(thinking: Any, stream: bool) -> None:
    quiet = call(bound_request(stream=stream, extended_thinking=thinking), says(FULL))
    shown = call(bound_request(stream=stream, **SHOWN), says(FULL))
    assert quiet.events[-1].done
    frames = b"".join(event.frame for event in quiet.events)
    assert b"reasoning" not in frames
    assert b"Hell" in frames
    assert sum(e.output_tokens for e in quiet.events) == sum(e.output_tokens for e in shown.events)


REASONS = [
    ("end_turn", "stop"),
    ("stop_sequence", "stop"),
    ("max_tokens", "length"),
    ("model_context_window_exceeded", "length"),
    ("guardrail_intervened", "content_filter"),
    ("content_filtered", "content_filter"),
    ("a_reason_of_next_year", "stop"),
]


@pytest.mark.parametrize(("reason", "finish"), REASONS)
def test_every_stop_reason_has_its_finish(reason: str, finish: str) -> None:
    blocks = [frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "x"}}), stopped(reason), usage()]
    outcome = call(bound_request(stream=True), stream_of(blocks))
    assert [c["choices"][0]["finish_reason"] for c in outcome.chunks][-1] == finish
    plain = json.loads(DOUBLE.plain(Answer())) | {"stopReason": reason}

    async def script(exchange: Exchange) -> None:
        await exchange.answer(json.dumps(plain).encode())

    assert call(bound_request(), script).answer["choices"][0]["finish_reason"] == finish


@pytest.mark.parametrize("fragments", [[], [""], ['{"at":', '"Ulm"}']])
@pytest.mark.parametrize("stop", [True, False])
def test_the_arguments_of_a_streamed_call_are_always_json(fragments: list[str], stop: bool) -> None:
    blocks = [called(0), *(fragment(0, text) for text in fragments), called(1), fragment(1, '{"b":1}')]
    if stop:
        blocks += [frame("contentBlockStop", {"contentBlockIndex": at}) for at in (0, 1)]
    outcome = call(bound_request(stream=True), stream_of([*blocks, stopped("tool_use"), usage()]))
    calls = [call for chunk in outcome.chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    first, second = ("".join(c["function"]["arguments"] for c in calls if c["index"] == at) for at in (0, 1))
    assert first == ("".join(fragments) or "{}")
    assert second == '{"b":1}'


@pytest.mark.parametrize(("reason", "finish"), [("end_turn", "tool_calls"), ("max_tokens", "length")])
def test_an_answer_with_calls_stops_for_them_whatever_the_model_says(reason: str, finish: str) -> None:
    blocks = [called(0), fragment(0, "{}"), stopped(reason), usage()]
    outcome = call(bound_request(stream=True), stream_of(blocks))
    assert outcome.chunks[-1]["choices"][0]["finish_reason"] == finish
    plain = json.loads(DOUBLE.plain(FULL)) | {"stopReason": reason}
    assert call(bound_request(), plainly(plain)).answer["choices"][0]["finish_reason"] == finish


def test_an_answer_without_calls_stops_for_none() -> None:
    blocks = [
        frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "x"}}),
        stopped("tool_use"),
        usage(),
    ]
    outcome = call(bound_request(stream=True), stream_of(blocks))
    assert outcome.chunks[-1]["choices"][0]["finish_reason"] == "stop"


def plainly(answer: dict[str, Any]) -> Any:
    """An upstream that gives this plain answer."""

    async def script(exchange: Exchange) -> None:
        await exchange.answer(json.dumps(answer).encode())

    return script


def called(at: int) -> bytes:
    """The beginning of a call."""
    start = {"toolUse": {"toolUseId": f"t{at}", "name": "weather"}}
    return frame("contentBlockStart", {"contentBlockIndex": at, "start": start})


def fragment(at: int, text: str) -> bytes:
    """A piece of a call's arguments."""
    return frame("contentBlockDelta", {"contentBlockIndex": at, "delta": {"toolUse": {"input": text}}})


def stopped(reason: str) -> bytes:
    """The stop of the message."""
    return frame("messageStop", {"stopReason": reason})


def usage() -> bytes:
    """The event with the usage."""
    return DOUBLE.events(Answer())[-1]


@pytest.mark.parametrize("reason", ["malformed_model_output", "malformed_tool_use"])
def test_a_malformed_answer_is_a_failure_and_no_stop(reason: str) -> None:
    blocks = [frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "x"}}), stopped(reason), usage()]
    outcome = call(bound_request(stream=True), stream_of(blocks))
    assert outcome.error is not None
    assert outcome.error.code == "upstream_error"
    assert not any(event.done for event in outcome.events)


def failures() -> Failures:
    """Failures without secrets."""
    return Failures(lambda: (), lambda: None)


def read(blocks: list[bytes]) -> tuple[list[Any], bool]:
    """The parts that a reader makes of these blocks, and whether the answer is whole."""
    reader = Reader(failures())
    parts = [part for block in blocks for part in reader.feed(block)]
    return [*parts, *reader.end()], reader.done


@given(st.lists(st.integers(0, 3000), max_size=8))
def test_any_split_of_the_bytes_gives_the_same_parts(cuts: list[int]) -> None:
    wire = b"".join(DOUBLE.events(FULL))
    places = sorted({0, len(wire), *(min(cut, len(wire)) for cut in cuts)})
    assert read([wire[a:b] for a, b in itertools.pairwise(places)]) == read(DOUBLE.events(FULL))


def test_only_the_stop_and_the_usage_make_an_answer_whole() -> None:
    events = DOUBLE.events(FULL)
    for count in range(len(events) + 1):
        assert read(events[:count])[1] == (count == len(events)), count
    assert not read([*events[:-1], events[-1][:-1]])[1]
    assert read([*events[:-2], events[-1], events[-2]])[1]


def test_a_stream_without_its_end_is_an_upstream_that_closed() -> None:
    events = DOUBLE.events(FULL)
    cut = call(bound_request(stream=True), stream_of(events[:-1], end=lambda exchange: exchange.reset()))
    assert cut.error is not None
    assert cut.error.code == "upstream_closed"
    ended = call(bound_request(stream=True), stream_of(events[:-2]))
    assert not any(event.done for event in ended.events)


def test_thoughts_in_several_blocks_go_back_as_the_blocks_they_were() -> None:
    def delta(at: int, content: dict[str, str]) -> bytes:
        return frame("contentBlockDelta", {"contentBlockIndex": at, "delta": {"reasoningContent": content}})

    blocks = [
        *(delta(0, {"text": "first "}), delta(0, {"text": "thought"}), delta(0, {"signature": "s1"})),
        delta(1, {"redactedContent": "aGlkZGVu"}),
        *(delta(2, {"text": "second"}), delta(2, {"signature": "s2"})),
        frame("contentBlockDelta", {"contentBlockIndex": 3, "delta": {"text": "so"}}),
        stopped("end_turn"),
        usage(),
    ]
    deltas = [c["choices"][0]["delta"] for c in call(bound_request(**STREAM), stream_of(blocks)).chunks if c["choices"]]
    thoughts = [delta["reasoning"] for delta in deltas if "reasoning" in delta]
    streamed = {
        "thinking": "".join(thought.get("thinking", "") for thought in thoughts),
        "signature": thoughts[-1]["signature"],
    }
    content = [
        {"reasoningContent": {"reasoningText": {"text": "first thought", "signature": "s1"}}},
        {"reasoningContent": {"redactedContent": "aGlkZGVu"}},
        {"reasoningContent": {"reasoningText": {"text": "second", "signature": "s2"}}},
    ]
    plain = json.loads(DOUBLE.plain(Answer()))
    plain["output"]["message"]["content"] = content

    async def script(exchange: Exchange) -> None:
        await exchange.answer(json.dumps(plain).encode())

    assert call(bound_request(**SHOWN), script).answer["choices"][0]["message"]["reasoning"] == streamed
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "so", "reasoning": streamed},
        {"role": "user", "content": "more"},
    ]
    assert call(bound_request(messages=messages)).sent["messages"][1]["content"] == [*content, {"text": "so"}]


def test_thoughts_between_what_was_said_have_no_signature_because_they_would_come_back_before_it() -> None:
    thought = {"reasoningText": {"text": "hm", "signature": "s"}}
    plain = json.loads(DOUBLE.plain(Answer()))
    plain["output"]["message"]["content"] = [
        {"reasoningContent": thought},
        {"text": "so"},
        {"reasoningContent": thought},
    ]
    assert call(bound_request(**SHOWN), plainly(plain)).answer["choices"][0]["message"]["reasoning"] == {
        "thinking": "hmhm"
    }
    said = [
        {"reasoningContent": thought["reasoningText"]},
        {"text": "so"},
        {"reasoningContent": thought["reasoningText"]},
    ]
    blocks = [frame("contentBlockDelta", {"contentBlockIndex": at, "delta": one}) for at, one in enumerate(said)]
    outcome = call(bound_request(**STREAM), stream_of([*blocks, stopped("end_turn"), usage()]))
    deltas = [chunk["choices"][0]["delta"] for chunk in outcome.chunks if chunk["choices"]]
    assert [delta["reasoning"] for delta in deltas if "reasoning" in delta] == [{"thinking": "hm"}] * 2


@pytest.mark.parametrize("signature", ["blocks:[[1]]", "blocks:nonsense", "blocks:{}"])
def test_a_signature_that_a_client_made_up_is_left_out(signature: str) -> None:
    reasoning = {"thinking": "x", "signature": signature}
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a", "reasoning": reasoning}]
    body = call(bound_request(messages=[*messages, {"role": "user", "content": "b"}])).sent
    assert body["messages"][1]["content"] == [{"text": "a"}]


def test_the_vendors_own_tools_are_no_calls_of_the_client() -> None:
    start = {"toolUse": {"toolUseId": "s1", "name": "nova_grounding", "type": "server_tool_use"}}
    blocks = [
        frame("contentBlockStart", {"contentBlockIndex": 0, "start": start}),
        frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": "{}"}}}),
        *DOUBLE.events(Answer()),
    ]
    parts, done = read(blocks)
    assert done
    assert not [delta for part in parts for delta in part.deltas if isinstance(delta.tool_calls, list)]


def test_noise_says_nothing() -> None:
    events = DOUBLE.events(FULL)
    noisy = [block for event in events[:-1] for block in (*DOUBLE.noise(), event)]
    assert read([*noisy, events[-1]]) == read(events)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("throttlingException", "upstream_rate_limited"),
        ("serviceUnavailableException", "upstream_overloaded"),
        ("internalServerException", "upstream_error"),
        ("modelStreamErrorException", "upstream_error"),
        ("validationException", "upstream_refused"),
        ("modelTimeoutException", "upstream_timeout"),
        ("exceptionOfNextYear", "upstream_error"),
    ],
)
def test_an_exception_in_the_stream_follows_what_came_before_it(kind: str, code: str) -> None:
    block = b"".join(DOUBLE.events(Answer())[:2]) + exception(kind, "what happened")
    outcome = call(bound_request(stream=True), stream_of([block]))
    assert outcome.error is not None
    assert outcome.error.code == code
    assert "what happened" in outcome.error.message
    assert outcome.chunks


def test_an_error_message_of_the_stream_is_a_failure() -> None:
    headers = {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "went wrong"}
    with pytest.raises(UpstreamError, match="went wrong"):
        read([message(headers, b"")])


@pytest.mark.parametrize("block", [b"\x00" * 16, message({":message-type": "event", ":event-type": "metadata"}, b"{")])
def test_a_broken_stream_is_a_failure(block: bytes) -> None:
    outcome = call(bound_request(stream=True), stream_of([b"".join(DOUBLE.events(Answer())[:2]), block]))
    assert outcome.error is not None
    assert outcome.error.code == "upstream_error"


def refuses(status: int, headers: dict[str, str], body: bytes) -> Any:
    """An upstream that answers everything so."""

    async def script(exchange: Exchange) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} Whatever\r\n{lines}content-length: {len(body)}\r\n\r\n"
        await exchange.send(head.encode() + body)

    return script


@pytest.mark.parametrize(
    ("kind", "code"),
    REFUSALS,
)
@pytest.mark.parametrize("stream", [False, True])
def test_refusals_have_our_codes(kind: str, code: str, stream: bool) -> None:
    outcome = call(bound_request(stream=stream), refuses(*DOUBLE.error(kind)))
    assert outcome.error is not None
    assert outcome.error.code == code


@pytest.mark.parametrize(
    ("status", "name", "text", "code"),
    [
        (429, "ModelNotReadyException", "warming up", "upstream_overloaded"),
        (408, "ModelTimeoutException", "slow", "upstream_timeout"),
        (424, "ModelErrorException", "broke", "upstream_error"),
        (400, "ServiceQuotaExceededException", "quota", "upstream_rate_limited"),
        (403, "ExpiredTokenException", "expired", "upstream_misconfigured"),
        (403, "InvalidSignatureException", "mismatch", "upstream_misconfigured"),
        (400, "IncompleteSignatureException", "mismatch", "upstream_misconfigured"),
        (400, "ValidationException", "The model says: prompt is too long: 9 > 8 maximum", "context_length_exceeded"),
        (400, "ValidationException", "Input Tokens Exceeded: 9", "context_length_exceeded"),
        (400, "ValidationException", "A stop sequence is too long", "upstream_refused"),
        (400, "ValidationException", "with on-demand throughput isn't supported", "upstream_misconfigured"),
        (400, "ValidationException", "The provided model identifier is invalid.", "upstream_misconfigured"),
        (418, "NewException", "odd", "upstream_refused"),
    ],
)
def test_the_type_says_more_than_the_status(status: int, name: str, text: str, code: str) -> None:
    body = json.dumps({"__type": f"com.amazon.coral.service#{name}", "message": text}).encode()
    assert failures().of(status, {}, body).code == code
    upper = json.dumps({"Message": text}).encode()
    assert failures().of(status, {"x-amzn-errortype": f"{name}:http://x/"}, upper).code == code


@pytest.mark.parametrize(
    "text",
    [
        "The model returned: input length and `max_tokens` exceed context limit: 196395 + 64000 > 204698",
        "400 Bad Request: Too many input tokens. Max input tokens: 8192, request input token count: 9000",
    ],
)
def test_a_conversation_that_does_not_fit_is_told_as_that(text: str) -> None:
    body = json.dumps({"message": text}).encode()
    outcome = call(bound_request(), refuses(400, {"x-amzn-errortype": "ValidationException"}, body))
    assert outcome.error is not None
    assert outcome.error.code == "context_length_exceeded"


def test_a_200_with_an_error_in_it_is_a_failure() -> None:
    body = b'{"message":"not today"}'
    for stream in (False, True):
        outcome = call(bound_request(stream=stream), refuses(200, {"content-type": "application/json"}, body))
        assert outcome.error is not None
        assert outcome.error.code == "upstream_error"
        assert "not today" in outcome.error.message


def test_no_message_tells_a_credential() -> None:
    secrets = [KEYS.secret, KEYS.access_key_id or "", KEYS.session_token or "", "AKIAIOSFODNN7OTHER"]
    body = json.dumps({"message": f"bad {' '.join(secrets)} {BEARER.secret}"}).encode()
    for credential in (KEYS, BEARER):
        outcome = call(bound_request(), refuses(400, {"x-amzn-errortype": "ValidationException"}, body), credential)
        assert outcome.error is not None
        assert "bad" in outcome.error.message
        mine = [*secrets[:3]] if credential is KEYS else [BEARER.secret]
        assert not [secret for secret in (*mine, secrets[3]) if secret in outcome.error.message]
