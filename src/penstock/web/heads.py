"""Heads that are known: on a connection that is kept, a client repeats its head but for the length of the body.

What a parser makes of bytes depends on the bytes alone, so the same head again is what it was the first time. Anything
else, be it one byte that differs, goes to the parser.
"""

from typing import Any

_LENGTH = b"\r\ncontent-length: "
_END = b"\r\n\r\n"
_LONGEST_NUMBER = 9


class KnownHead:
    """A head around the digits of its content-length, and the ASGI scope that it came to."""

    __slots__ = ("_after", "_at", "_before", "_headers", "_name", "_scope")

    def __init__(self, before: bytes, after: bytes, scope: dict[str, Any], at: int) -> None:
        self._before = before
        self._after = after
        self._scope = scope.copy()  # the application may write into its own
        self._headers: list[tuple[bytes, bytes]] = scope["headers"].copy()
        self._at = at
        self._name = self._headers[at][0]

    def body_at(self, data: bytes) -> int:
        """Where the body begins, when the data is this head and the whole body of its request; else 0."""
        before, after = self._before, self._after
        if not data.startswith(before):
            return 0
        start = len(before)
        end = data.find(b"\r\n", start, start + _LONGEST_NUMBER + 2)
        if end < 0 or not data.startswith(after, end):
            return 0
        digits = data[start:end]
        body = end + len(after)
        return body if digits.isdigit() and int(digits) == len(data) - body else 0

    def scope(self, data: bytes, body: int) -> dict[str, Any]:
        """The scope of this request, whose body begins at ``body``."""
        headers = self._headers.copy()
        headers[self._at] = (self._name, data[len(self._before) : body - len(self._after)])
        scope = self._scope.copy()
        scope["headers"] = headers
        return scope


def known_head(data: bytes, scope: dict[str, Any]) -> KnownHead | None:
    """What is to be known of a request that came whole and alone, as ``data``, and was parsed as ``scope``; None where
    its length does not stand there in plain digits, once."""
    end = data.find(_END) + len(_END)
    at = data[:end].lower().find(_LENGTH)
    places = [place for place, (name, _) in enumerate(scope["headers"]) if name == b"content-length"]
    if at < 0 or end < len(_END) or len(places) != 1:
        return None
    start = at + len(_LENGTH)
    stop = data.find(b"\r\n", start)
    known = KnownHead(data[:start], data[stop:end], scope, places[0])
    digits = scope["headers"][places[0]][1]
    return known if data[start:stop] == digits and known.body_at(data) == end else None
