"""Every adapter understands its vendor's answers, plain and streamed, however the stream is written."""

import json

import pytest

from penstock.domain.usage import Usage
from tests.providers.lane import ANSWERS, CALLS, STREAM, THOUGHT, Lane, Spoken, expected, lines, only, thinkers
from tests.providers.vendors import Answer

RICH = Answer(text="Let me see 🌊.", calls=CALLS, finish="tool_calls")


def same(said: Spoken, meant: Answer, lane: Lane) -> bool:
    """Whether a client understood what was meant. A vendor without ids for calls gets ours, each its own."""
    wanted = expected(meant)
    assert len(set(said.ids)) == len(meant.calls)
    assert said._replace(ids=[]) == wanted._replace(ids=[])
    return said.ids == wanted.ids or lane.vendor.kind == "gemini"


@pytest.mark.parametrize("name", ANSWERS)
def test_a_plain_answer_says_what_the_vendor_said(lane: Lane, name: str) -> None:
    answer = ANSWERS[name]
    heard = lane.plain(lane.vendor.plain(answer), **lane.shown(answer))
    assert same(heard.whole, answer, lane)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_streamed_answer_says_what_the_vendor_said(lane: Lane, name: str) -> None:
    answer = ANSWERS[name]
    heard = lane.stream(lane.vendor.events(answer), **lane.shown(answer))
    assert same(heard.whole, answer, lane)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_meter_gets_the_vendors_own_counts(lane: Lane, streamed: bool) -> None:
    answer = Answer(usage=(11, 5, 4, 0))
    vendor = lane.vendor
    heard = lane.stream(vendor.events(answer)) if streamed else lane.plain(vendor.plain(answer))
    assert heard.usage == Usage(input_tokens=11, output_tokens=5, cached_input_tokens=4)


@only(lambda vendor: vendor.kind in ("anthropic", "bedrock"))
@pytest.mark.parametrize("streamed", [False, True])
def test_tokens_written_to_a_cache_are_counted_where_the_vendor_says_them(lane: Lane, streamed: bool) -> None:
    answer = Answer(usage=(20, 5, 4, 6))
    vendor = lane.vendor
    heard = lane.stream(vendor.events(answer)) if streamed else lane.plain(vendor.plain(answer))
    assert heard.whole.usage == (20, 5, 4, 6)
    assert heard.usage == Usage(input_tokens=20, output_tokens=5, cached_input_tokens=4, cache_write_tokens=6)


@thinkers
@pytest.mark.parametrize("streamed", [False, True])
def test_thinking_is_told_apart_from_the_answer(lane: Lane, streamed: bool) -> None:
    vendor = lane.vendor
    fields = lane.shown(THOUGHT)
    heard = lane.stream(vendor.events(THOUGHT), **fields) if streamed else lane.plain(vendor.plain(THOUGHT), **fields)
    assert heard.whole[:2] == (THOUGHT.text, THOUGHT.thinking)


@only(lambda vendor: vendor.usage_early(RICH) is not None)
def test_the_usage_may_come_before_the_finish(lane: Lane) -> None:
    early = lane.vendor.usage_early(RICH)
    assert early is not None
    heard = lane.stream(early, **lane.shown(RICH))
    assert same(heard.whole, RICH, lane)
    assert heard.usage == Usage(input_tokens=7, output_tokens=2, cached_input_tokens=3)


def test_a_stream_that_was_not_asked_for_its_usage_shows_none_and_is_metered(lane: Lane) -> None:
    heard = lane.stream(lane.vendor.events(Answer()), stream_options=None)
    assert heard.whole.usage is None
    assert heard.usage == Usage(input_tokens=7, output_tokens=2, cached_input_tokens=3)


def test_the_first_chunk_has_the_role_and_each_answer_one_identity(lane: Lane) -> None:
    heard = lane.stream(lane.vendor.events(RICH), **lane.shown(RICH))
    chunks = [chunk for chunk in heard.chunks() if chunk["choices"]]  # Azure begins with its filters' results
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks}) == 1
    assert chunks[0]["object"] == "chat.completion.chunk"


def test_noise_between_any_two_events_changes_nothing(lane: Lane) -> None:
    noise = lane.vendor.noise()
    events = [part for event in lane.vendor.events(RICH) for part in (*noise, event)]
    assert same(lane.stream(events, **lane.shown(RICH)).whole, RICH, lane)


def test_noise_alone_is_no_answer(lane: Lane) -> None:
    """A target that only pings has not answered: another one may still be tried."""
    heard = lane.stream([event for event in lane.vendor.noise() if event.startswith(b":")] * 3)
    assert not heard.opened
    assert heard.error is not None
    assert heard.error.code == "upstream_closed"


@lines
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_may_end_otherwise(lane: Lane, end: bytes) -> None:
    events = [event.replace(b"\r\n", b"\n").replace(b"\n", end) for event in lane.vendor.events(RICH)]
    events.append(b": over" + end + end)  # a CR at the very end might still be half of a CRLF
    assert same(lane.stream(events, **lane.shown(RICH)).whole, RICH, lane)
    assert same(lane.stream([b"".join(events)], **lane.shown(RICH)).whole, RICH, lane)


@lines
def test_a_field_may_stand_close_to_its_colon_or_with_fields_that_nobody_knows(lane: Lane) -> None:
    events = [
        b"id: 7\nretry: 10\n" + event.replace(b"data: ", b"data:", 1).replace(b"event: ", b"event:", 1)
        for event in lane.vendor.events(RICH)
    ]
    assert same(lane.stream(events, **lane.shown(RICH)).whole, RICH, lane)


@lines
def test_an_event_may_have_several_data_lines(lane: Lane) -> None:
    events = [_in_lines(event) for event in lane.vendor.events(RICH)]
    assert same(lane.stream(events, **lane.shown(RICH)).whole, RICH, lane)


def _in_lines(event: bytes) -> bytes:
    head, _, payload = event.partition(b"data: ")
    try:
        pretty = json.dumps(json.loads(payload), indent=1, ensure_ascii=False).encode()
    except ValueError:
        return event
    return head + b"".join(b"data: " + line + b"\n" for line in pretty.split(b"\n")) + b"\n"


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_delta_of_a_megabyte_arrives_whole(lane: Lane, pieces: int) -> None:
    answer = Answer(text="sea 🌊 " * 160_000, pieces=pieces)
    assert lane.stream([b"".join(lane.vendor.events(answer))]).whole.text == answer.text
    assert lane.plain(lane.vendor.plain(answer)).whole.text == answer.text


def test_arguments_of_a_megabyte_arrive_whole(lane: Lane) -> None:
    calls = (("call_a1", "look_up", json.dumps({"q": "🌊" * 250_000}, ensure_ascii=False)),)
    answer = Answer(text="", calls=calls, finish="tool_calls", pieces=7)
    assert same(lane.stream(lane.vendor.events(answer), **lane.shown(answer)).whole, answer, lane)


def test_a_hundred_answers_go_over_one_connection(lane: Lane) -> None:
    """A stream that is read to its end leaves its connection to the next request."""
    before = {id(exchange._writer) for exchange in lane.exchanges}
    for _ in range(100):
        assert lane.stream([b"".join(lane.vendor.events(Answer()))]).done
    assert lane.hear(lane.streaming(lane.vendor.events(Answer())), **STREAM).done
    after = {id(exchange._writer) for exchange in lane.exchanges} - before
    assert len(after) <= 2
