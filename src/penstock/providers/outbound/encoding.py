"""Undoes the content encoding of an answer as it arrives: gzip and deflate, which some servers send unasked."""

import zlib
from typing import Any

_GZIP, _ZLIB, _RAW = 31, 15, -15
_KNOWN = ("gzip", "x-gzip", "deflate")
_MAX_MEMBERS = 1000  # each costs a new decoder: a body of nothing but empty ones must not keep us busy


class Inflater:
    """Decodes one body. It takes at most ``max_bytes`` and gives at most one more, by which the caller sees too much.

    Raises ValueError for an encoding that we do not read.
    """

    def __init__(self, encoding: str, max_bytes: int) -> None:
        if encoding not in _KNOWN:
            raise ValueError(f"has a content encoding that was not asked for ({encoding[:20]!r})")
        self._gzip = encoding != "deflate"
        self._room = max_bytes + 1
        self._intake = max_bytes
        self._members = 0
        self._member: Any = None

    @property
    def whole(self) -> bool:
        """Whether the body may end here: its last member has ended, or there was none."""
        return self._member is None

    def feed(self, data: bytes) -> bytes:
        """What these bytes stand for, all of it that is known so far. Raises ValueError for a corrupt body."""
        self._intake -= len(data)
        pieces = []
        try:
            while data and self._room:
                if self._member is None:
                    self._member = self._begin(data)
                piece = self._member.decompress(data, self._room)
                pieces.append(piece)
                self._room -= len(piece)
                data = self._member.unused_data
                if self._member.eof:
                    self._member = None
        except zlib.error:
            raise ValueError("is not what its content encoding says") from None
        if self._intake < 0 < self._room:
            raise ValueError("has a content encoding that makes it larger")
        return b"".join(pieces)

    def _begin(self, data: bytes) -> Any:
        self._members += 1
        if self._members > (_MAX_MEMBERS if self._gzip else 1):
            raise ValueError("goes on behind its compressed end")
        # RFC 9110 8.4.1.2: "deflate" is the zlib format; some servers send bare deflate, whose first byte differs.
        return zlib.decompressobj(_GZIP if self._gzip else _ZLIB if data[0] & 0x0F == 8 else _RAW)
