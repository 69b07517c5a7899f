"""Events that arrive in many pieces: each byte is copied a few times, however many pieces there are."""

from typing import Any

import pytest

from penstock.providers.openai.events import Manner
from penstock.providers.sse import SseParser
from tests.providers.test_openai_stream import DONE, relayed, said

TEXT = "x" * 200_000
MANNER = Manner(keep_usage=True)


class Piece(bytes):
    """Counts the bytes that are copied to put this behind them. In place, into a bytearray, nothing is."""

    copied = 0

    def __radd__(self, other: Any) -> Any:
        Piece.copied += len(other) if isinstance(other, bytes) else 0
        return NotImplemented


def cut(wire: bytes, size: int) -> list[bytes]:
    Piece.copied = 0
    return [Piece(wire[at : at + size]) for at in range(0, len(wire), size)]


@pytest.mark.parametrize("before", [b"", b": a line that ends in CR\r\n\r\n"], ids=["LF", "CRLF"])
def test_a_large_event_in_small_pieces_is_put_together_once(before: bytes) -> None:
    heard = relayed(cut(before + said(TEXT) + DONE, 100), MANNER)
    assert heard.done
    assert TEXT.encode() in heard.body
    assert Piece.copied < 4 * len(TEXT)


def test_an_event_of_many_lines_is_put_together_once() -> None:
    lines = b"".join(b"data: %b\n" % (b"x" * 93) for _ in range(2000))
    heard = relayed(cut(b"data: " + lines[6:], 100), MANNER)
    assert not heard.done
    assert Piece.copied < 4 * len(lines)


@pytest.mark.parametrize("line", [b"data: xxxx\n", b"data:\n", b"xxxxxxxxxx"])
def test_an_event_has_a_bound_whatever_it_is_made_of(line: bytes) -> None:
    parser = SseParser(max_bytes=1000)
    parser.feed(b"data: {}\n\n" * 1000)
    with pytest.raises(ValueError, match="too large"):
        list(map(parser.feed, [line] * 1000))


def test_events_that_end_do_not_add_up() -> None:
    parser = SseParser(max_bytes=1000)
    assert sum(len(parser.feed(b"data: {}\n\ndata: ")) + len(parser.feed(b"{}\n\n")) for _ in range(1000)) == 2000
