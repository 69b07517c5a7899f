"""Truthful endings: an answer that its upstream did not finish is never a whole one, wherever it is cut."""

import pytest

from tests.providers.lane import CALLS, MAKES_IDS, STREAM, THOUGHT, Heard, Lane, doubles
from tests.providers.vendors import Answer
from tests.upstream import Exchange

ENDS = ("end", "close", "reset")
# No adapter that made up an ending would choose these finishes.
CUT = {
    "text": Answer(text="Hello the", finish="length", pieces=4),
    "withheld": Answer(text="Hello the", finish="content_filter", pieces=1),
    "calls": Answer(text="So.", calls=CALLS, finish="tool_calls", pieces=3),
    "thinking": THOUGHT,
}


def assert_is_no_answer(heard: Heard) -> None:
    """The client is told that it failed, and nothing says that it is complete."""
    assert not heard.done
    assert heard.error is not None
    assert heard.error.code == "upstream_closed"
    assert b"[DONE]" not in heard.body


@pytest.mark.parametrize(
    ("lane", "name"),
    [(lane, name) for lane, vendor in doubles().items() for name in CUT if name != "thinking" or vendor.thinks],
    indirect=["lane"],
)
def test_a_stream_that_ends_early_adds_nothing_to_what_was_sent(lane: Lane, name: str) -> None:
    """After every event: what a client has heard by then is all that it hears, and it hears that this is not all."""
    answer = CUT[name]
    fields = STREAM | lane.shown(answer)
    events = lane.vendor.events(answer)
    taken: list[int] = []
    whole = lane.hear(lane.streaming(events, taken=taken), **fields)
    assert whole.done
    for end in ENDS:
        for count in range(len(events)):
            cut = lane.hear(lane.streaming(events[:count], end=end), **fields)
            assert_is_no_answer(cut)
            known = taken[count - 1] if count else 0
            assert _unnamed(lane, cut) == _unnamed(lane, whole, known), f"{end} after event {count}"
            assert bool(known) == cut.opened, f"{end} after event {count}"


def _unnamed(lane: Lane, heard: Heard, size: int | None = None) -> str:
    """What the client got, less ids that the adapter makes up where its vendor has none."""
    text = "\n\n".join(heard.payloads(size))
    for identity in heard.spoken.ids if lane.vendor.kind in MAKES_IDS else ():
        text = text.replace(identity, "ID")
    return text


def test_a_stream_cut_at_any_byte_is_no_answer(lane: Lane) -> None:
    answer = Answer(text="Hé 🌊", calls=CALLS[:1], finish="tool_calls", pieces=2)
    fields = STREAM | lane.shown(answer)
    stream = b"".join(lane.vendor.events(answer))
    # Without the line break behind it the last event may count.
    size = len(stream.rstrip()) if lane.vendor.stream_type == "text/event-stream" else len(stream)
    whole = lane.stream([stream], **fields)
    assert whole.done
    for at in range(0, size, 29 if lane.is_slow else 1):
        cut = lane.stream([stream[:at]], **fields)
        assert not cut.done, f"cut at {at}"
        assert cut.error is not None, f"cut at {at}"
        assert cut.error.code in ("upstream_closed", "upstream_error"), f"cut at {at}"
        assert b"[DONE]" not in cut.body


def test_a_finish_is_not_made_up_for_a_stream_that_ends_before_it(lane: Lane) -> None:
    answer = Answer(text="one two three", pieces=3)
    for end in ENDS:
        events = lane.vendor.events(answer)
        heard = lane.hear(lane.streaming(events[: len(events) // 2], end=end), **STREAM)
        assert heard.spoken.finish is None
        assert heard.spoken.usage is None
        assert heard.usage is None or heard.usage.estimated


@pytest.mark.parametrize("end", ENDS)
def test_a_chunk_that_breaks_off_is_no_answer(lane: Lane, end: str) -> None:
    """The connection goes in the middle of a chunk of HTTP, inside an event."""
    stream = b"".join(lane.vendor.events(Answer()))

    async def script(exchange: Exchange) -> None:
        kind = lane.vendor.stream_type
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        await exchange.send(head + b"%x\r\n" % len(stream) + stream[: len(stream) // 2])
        await lane.turns()
        await lane.finish(exchange, "close" if end == "end" else end)

    heard = lane.hear(script, **STREAM)
    assert_is_no_answer(heard)


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_plain_answer_cut_at_any_byte_is_an_error(lane: Lane, end: str) -> None:
    body = lane.vendor.plain(Answer())

    def cut(at: int) -> Heard:
        async def script(exchange: Exchange) -> None:
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            await exchange.send(head.encode() + body[:at])
            await lane.turns()
            await lane.finish(exchange, end)

        return lane.hear(script)

    for at in range(0, len(body), 40 if lane.is_slow else 3):
        heard = cut(at)
        assert not heard.done
        assert heard.error is not None
        assert heard.error.code == "upstream_closed", f"cut at {at}"


def test_an_answer_whose_length_nobody_announced_is_whole_only_by_its_own_end(lane: Lane) -> None:
    """HTTP/1.0 style: the body ends with the connection, so only the vendor's own end tells a whole answer."""
    events = lane.vendor.events(Answer())

    def until(count: int) -> Heard:
        async def script(exchange: Exchange) -> None:
            await exchange.send(
                f"HTTP/1.1 200 OK\r\ncontent-type: {lane.vendor.stream_type}\r\nconnection: close\r\n\r\n".encode()
            )
            await exchange.send(b"".join(events[:count]))
            await lane.turns()
            exchange.close()

        return lane.hear(script, **STREAM)

    assert until(len(events)).whole.text == Answer().text
    for count in range(len(events)):
        assert_is_no_answer(until(count))


def test_a_plain_answer_that_is_cut_json_is_an_error(lane: Lane) -> None:
    body = lane.vendor.plain(Answer())
    for at in range(0, len(body.rstrip()), 40 if lane.is_slow else 3):
        heard = lane.plain(body[:at])
        assert not heard.done
        assert heard.error is not None
        assert heard.error.code == "upstream_error", f"cut at {at}"
