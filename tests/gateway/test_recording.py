"""A recording: whatever the pieces in which an answer is made, every follower gets the same bytes from its place on."""

import asyncio
import contextlib
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.chat import ChatRequest, Message
from penstock.domain.errors import PenstockError
from penstock.gateway.replay.asking import event_id, fingerprint, parse_event_id
from penstock.gateway.replay.recording import Recording, RunLostError, numbered
from penstock.gateway.replay.sealing import Cipher, Head, Piece, place_of
from penstock.gateway.wire import Parsed
from tests.gateway.lab import run, until

START = {"type": "http.response.start", "status": 200, "headers": [(b"x-ratelimit-limit-requests", b"9")]}
EVENTS = st.lists(st.integers(0, 10**6).map(lambda n: b'data: {"n":%d}\n\n' % n), min_size=1, max_size=20)


def recording(*, bound: int = 1 << 20, attempt: int = 1) -> Recording:
    return Recording(b"f", attempt, streamed=True, bound=bound)


class Client:
    """What one follower got."""

    def __init__(self) -> None:
        self.body = b""
        self.heads: list[dict[str, Any]] = []
        self.stuck: asyncio.Event | None = None
        self.whole = False

    async def relay(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.heads.append(message)
            return
        self.body += message["body"]
        self.whole = not message["more_body"]
        if self.stuck is not None:
            await self.stuck.wait()


async def record(made: Recording, frames: list[bytes]) -> None:
    """Make an answer of these frames, and end it."""
    await made.send(START)
    for at, frame in enumerate(frames):
        await made.send({"type": "http.response.body", "body": frame, "more_body": at + 1 < len(frames)})
        await asyncio.sleep(0)
    made.end()


def cut(events: list[bytes], cuts: set[int]) -> list[bytes]:
    """The events in frames of one or several."""
    frames, held = [], b""
    for at, event in enumerate(events):
        held += event
        if at in cuts:
            frames.append(held)
            held = b""
    return [*frames, held] if held else frames


@given(EVENTS, st.sets(st.integers(0, 19)), st.sets(st.integers(0, 19)), st.data())
def test_any_split_and_any_place_give_the_bytes_of_the_whole(
    events: list[bytes], cuts: set[int], other_cuts: set[int], data: st.DataObject
) -> None:
    after = data.draw(st.integers(0, len(events)))
    early = data.draw(st.booleans())

    async def test() -> None:
        whole, same, client = recording(), recording(), Client()
        following = asyncio.create_task(whole.follow(client.relay, after=after)) if early else None
        await record(whole, cut(events, cuts))
        await record(same, cut(events, other_cuts))
        await (following or whole.follow(client.relay, after=after))
        expected = [b"id: %d\n%b" % (at + 1, event) for at, event in enumerate(events)]
        assert whole.frames == same.frames == expected
        assert client.body == b"".join(expected[after:])
        assert client.whole

    run(test)


@given(EVENTS, st.lists(st.integers(1, 5), min_size=1, max_size=30))
def test_what_is_stored_in_pieces_is_the_same_elsewhere(events: list[bytes], sizes: list[int]) -> None:
    async def test() -> None:
        here, there, client = recording(attempt=3), recording(attempt=3), Client()
        await record(here, events)
        cipher, at, number = Cipher(b"secret", info=b"i"), 0, 0
        while at < here.total:
            end = min(here.total, at + sizes[number % len(sizes)])
            sealed = cipher.seal_piece(here.piece(at, end), place=place_of(3, number))
            there.load(cipher.open_piece(sealed, place=place_of(3, number)))
            at, number = end, number + 1
        there.end()
        await there.follow(client.relay)
        assert (there.frames, there.head) == (here.frames, here.head)
        assert client.body == b"".join(here.frames)

    run(test)


@given(st.integers(1, 10**8), st.integers(0, 10**11))
def test_the_id_of_an_event_says_attempt_and_number(attempt: int, number: int) -> None:
    assert parse_event_id(event_id(attempt, number).decode()) == (attempt, number)


@given(st.text(max_size=12))
def test_an_id_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(PenstockError):
        attempt, number = parse_event_id(text)
        assert event_id(attempt, number).decode() in (text, text.removeprefix("1-"))


def test_a_slow_follower_does_not_hold_others() -> None:
    async def test() -> None:
        made, slow, quick = recording(), Client(), Client()
        slow.stuck = asyncio.Event()
        followers = [asyncio.create_task(made.follow(one.relay)) for one in (slow, quick)]
        await record(made, [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"])
        await followers[1]
        assert b"data: 3" in quick.body
        assert b"data: 3" not in slow.body
        slow.stuck.set()
        await followers[0]
        assert slow.body == quick.body

    run(test)


def test_what_is_too_large_is_held_by_its_followers_alone() -> None:
    async def test() -> None:
        made, client = recording(bound=100), Client()
        following = asyncio.create_task(made.follow(client.relay))
        frames = [b"data: %060d\n\n" % at for at in range(50)]
        await record(made, frames)
        await following
        assert client.body == b"".join(frame for at, frame in enumerate(frames) for frame in numbered(frame, 1, at + 1))
        assert (made.too_large, made.size) == (True, 0)

    run(test)


def test_the_end_of_an_answer_waits_until_it_is_kept() -> None:
    async def test() -> None:
        made, client = recording(), Client()
        following = asyncio.create_task(made.follow(client.relay))
        await made.send(START)
        await made.send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await made.send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})
        for _ in range(10):
            await asyncio.sleep(0)
        assert b"[DONE]" not in client.body
        made.end()
        await following
        assert client.body.endswith(b"id: 2\ndata: [DONE]\n\n")

    run(test)


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_is_lost_is_told_to_those_who_have_begun(begun: bool) -> None:
    async def test() -> None:
        made, client = recording(), Client()
        following = asyncio.create_task(made.follow(client.relay))
        if begun:
            await made.send(START)
            await made.send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            await until(lambda: client.body != b"")
        made.end(lost=True)
        with pytest.raises(PenstockError if begun else RunLostError):
            await following

    run(test)


def test_a_repeat_does_not_tell_what_the_limits_once_were() -> None:
    async def test() -> None:
        made, first, again = recording(), Client(), Client()
        await record(made, [b"data: 1\n\n"])
        await made.follow(first.relay)
        await made.follow(again.relay, repeated=True)
        assert first.heads[0]["headers"] == START["headers"]
        assert again.heads[0]["headers"] == [(b"idempotent-replayed", b"true")]

    run(test)


def test_a_sealed_piece_opens_at_its_place_and_under_its_secret_only() -> None:
    piece = Piece([b"frame"], Head(200, [(b"a", b"b")]))
    cipher = Cipher(b"secret", info=b"one")
    sealed = cipher.seal_piece(piece, place=place_of(1, 0))
    assert cipher.open_piece(sealed, place=place_of(1, 0)) == piece
    assert sealed != cipher.seal_piece(piece, place=place_of(1, 0))
    for other, place in (
        (cipher, place_of(1, 1)),
        (cipher, place_of(2, 0)),
        (cipher, place_of(1)),
        (Cipher(b"secret", info=b"two"), place_of(1, 0)),
        (Cipher(b"another", info=b"one"), place_of(1, 0)),
    ):
        with pytest.raises(InvalidTag):
            other.open_piece(sealed, place=place)


def test_a_fingerprint_is_of_what_is_asked_not_of_how_it_is_written() -> None:
    hi = [Message("user", [{"type": "text", "text": "hi"}])]
    same = [Message("user", [{"text": "hi", "type": "text"}])]
    one = fingerprint(Parsed(ChatRequest("m", hi, logit_bias={"1": 1, "2": 2}), b"one"))
    assert one == fingerprint(Parsed(ChatRequest("m", same, logit_bias={"2": 2, "1": 1}), b"two"))
    assert one != fingerprint(Parsed(ChatRequest("m", hi, logit_bias={"1": 1, "2": 3}), b"one"))
