"""However the bytes of an answer are cut on their way, every adapter gives the client the same bytes."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.providers.lane import CALLS, MAKES_IDS, STREAM, THOUGHT, Heard, Lane, Script, doubles, lines, thinkers
from tests.providers.vendors import Answer
from tests.upstream import Exchange

RICH = Answer(text="Sée 🌊", calls=CALLS[:1], finish="tool_calls", pieces=2)
# A library with layers of its own takes a hundred times as long for an answer: it is cut at fewer places.
_SLOW_STEP = 23


def fixed(lane: Lane, heard: Heard) -> tuple[Any, ...]:
    """All that must not depend on the cuts, less the ids that an adapter makes up where its vendor has none."""
    assert heard.error is None, heard.error
    text = "\n\n".join(heard.payloads()) if heard.streamed else heard.body.decode()
    for identity in heard.spoken.ids if lane.vendor.kind in MAKES_IDS else ():
        text = text.replace(identity, "ID")
    return (text, heard.usage, heard.done, heard.tokens)


def wire(lane: Lane, answer: Answer = RICH) -> bytes:
    """A whole stream with noise in it."""
    events = lane.vendor.events(answer)
    return b"".join([events[0], *lane.vendor.noise(), *events[1:]])


def test_a_stream_cut_in_two_at_any_byte_gives_the_same_bytes(lane: Lane) -> None:
    data, fields = wire(lane), lane.shown(RICH)
    whole = fixed(lane, lane.stream([data], **fields))
    assert whole[2]
    for at in range(1, len(data), _SLOW_STEP if lane.is_slow else 1):
        assert fixed(lane, lane.stream([data[:at], data[at:]], **fields)) == whole, f"cut at {at}"


def test_a_stream_that_comes_byte_by_byte_gives_the_same_bytes(lane: Lane) -> None:
    data, fields = wire(lane), lane.shown(RICH)
    whole = fixed(lane, lane.stream([data], **fields))
    size = _SLOW_STEP if lane.is_slow else 1
    alone = [data[at : at + size] for at in range(0, len(data), size)]
    assert fixed(lane, lane.stream(alone, **fields)) == whole


def test_a_stream_whose_every_event_comes_alone_gives_the_same_bytes(lane: Lane) -> None:
    fields = lane.shown(RICH)
    events = lane.vendor.events(RICH)
    assert fixed(lane, lane.stream(events, **fields)) == fixed(lane, lane.stream([b"".join(events)], **fields))


@thinkers
def test_thinking_cut_at_any_byte_gives_the_same_bytes(lane: Lane) -> None:
    data, fields = wire(lane, THOUGHT), lane.shown(THOUGHT)
    whole = fixed(lane, lane.stream([data], **fields))
    for at in range(1, len(data), _SLOW_STEP if lane.is_slow else 3):
        assert fixed(lane, lane.stream([data[:at], data[at:]], **fields)) == whole, f"cut at {at}"


@lines
def test_cr_lf_cut_at_any_byte_gives_the_same_answer(lane: Lane) -> None:
    data, fields = wire(lane).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), lane.shown(RICH)
    whole = lane.stream([wire(lane)], **fields).whole._replace(ids=[])
    for at in range(1, len(data), _SLOW_STEP if lane.is_slow else 1):
        said = lane.stream([data[:at], data[at:]], **fields).whole
        assert said._replace(ids=[]) == whole, f"cut at {at}"


def test_a_plain_answer_cut_at_any_byte_is_the_same(lane: Lane) -> None:
    body, fields = lane.vendor.plain(RICH), lane.shown(RICH)
    whole = fixed(lane, lane.plain(body, **fields))
    for at in range(1, len(body), _SLOW_STEP if lane.is_slow else 3):
        script = _plainly(lane, [body[:at], body[at:]])
        assert fixed(lane, lane.hear(script, **fields)) == whole, f"cut at {at}"


def _plainly(lane: Lane, blocks: list[bytes]) -> Script:
    async def run(exchange: Exchange) -> None:
        size = sum(map(len, blocks))
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n"
        await exchange.send(head.encode())
        for block in blocks:
            await exchange.send(block)
            await lane.turns()

    return run


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
answers = st.builds(
    Answer,
    text=texts,
    thinking=st.just(""),
    finish=st.just("stop"),
    calls=st.lists(
        st.tuples(st.sampled_from(["look_up", "paint"]), st.dictionaries(st.sampled_from("qxyz"), texts, max_size=2)),
        max_size=3,
    ).map(
        lambda made: tuple(
            (f"call_{at}", name, json.dumps(value, ensure_ascii=False)) for at, (name, value) in enumerate(made)
        )
    ),
    pieces=st.integers(1, 6),
    usage=st.tuples(st.integers(5, 9), st.integers(1, 4), st.integers(0, 5), st.just(0)),
)


@pytest.mark.parametrize("name", sorted(doubles()))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_split_of_the_same_bytes_gives_the_same_bytes_and_usage(
    lanes: dict[str, Lane], name: str, data: st.DataObject
) -> None:
    lane = lanes[name]
    answer = data.draw(answers)
    answer = answer._replace(finish="tool_calls" if answer.calls else data.draw(st.sampled_from(["stop", "length"])))
    if not answer.text and not answer.calls:
        answer = answer._replace(text="x")
    stream = wire(lane, answer)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=5 if lane.is_slow else 30)))
    blocks = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    fields = STREAM | lane.shown(answer)
    whole = lane.stream([stream], **fields)
    assert fixed(lane, lane.stream(blocks, **fields)) == fixed(lane, whole)
    assert (whole.whole.text, whole.whole.finish, whole.whole.usage) == (answer.text, answer.finish, answer.usage)
    assert whole.whole.calls == lane.plain(lane.vendor.plain(answer), **lane.shown(answer)).whole.calls
