"""Decodes ``application/vnd.amazon.eventstream``: length-prefixed messages of typed headers and a payload, with CRCs.

Our own, because botocore's parser costs several times as much per event (bench/signing.py); a property test holds them
equal.
"""

from collections.abc import Iterator
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import NamedTuple
from zlib import crc32

_PRELUDE = Struct("!III")
_CRC = Struct("!I")
_SHORT = Struct("!H")
_HEAD = _PRELUDE.size
_OVERHEAD = _HEAD + _CRC.size
# botocore's bounds (eventstream.py, 1.44).
_MAX_HEADERS = 128 * 1024
_MAX_PAYLOAD = 24 * 1024 * 1024
_REMEMBERED = 64

Value = str | bytes | int | bool
_INTEGERS = {2: Struct("!b"), 3: Struct("!h"), 4: Struct("!i"), 5: Struct("!q"), 8: Struct("!q")}


class BrokenFrame(Exception):
    """The bytes are no event stream."""


class Message(NamedTuple):
    """One message of the stream."""

    headers: dict[str, Value]
    payload: bytes


class Frames:
    """Takes the body in blocks of any size."""

    __slots__ = ("_buffer", "_known")

    def __init__(self) -> None:
        self._buffer = bytearray()
        # The headers of a stream's messages are few and the same again and again.
        self._known: dict[bytes, dict[str, Value]] = {}

    def feed(self, block: bytes) -> Iterator[Message]:
        """The messages that the block completes. Raises BrokenFrame, after those before it."""
        buffer = self._buffer
        buffer += block
        start = 0
        try:
            while len(buffer) - start >= _HEAD:
                total, headers, checked = _PRELUDE.unpack_from(buffer, start)
                crc = crc32(buffer[start : start + 8])
                if crc != checked:
                    raise BrokenFrame("the prelude's checksum is wrong")
                if headers > _MAX_HEADERS or not _OVERHEAD + headers <= total <= _OVERHEAD + headers + _MAX_PAYLOAD:
                    raise BrokenFrame("a length is out of bounds")
                end = start + total
                if len(buffer) < end:
                    break
                with memoryview(buffer) as view:
                    crc = crc32(view[start + 8 : end - 4], crc)
                if crc != _CRC.unpack_from(buffer, end - 4)[0]:
                    raise BrokenFrame("the message's checksum is wrong")
                split = start + _HEAD + headers
                message = Message(self._headers(bytes(buffer[start + _HEAD : split])), bytes(buffer[split : end - 4]))
                start = end
                yield message
        finally:
            del buffer[:start]

    def _headers(self, raw: bytes) -> dict[str, Value]:
        known = self._known.get(raw)
        if known is None:
            try:
                known = read_headers(raw)
            except (IndexError, StructError, UnicodeDecodeError, KeyError) as error:
                raise BrokenFrame("the headers are malformed") from error
            if len(self._known) < _REMEMBERED:
                self._known[raw] = known
        return known


def read_headers(raw: bytes) -> dict[str, Value]:
    """The headers of one message. Raises BrokenFrame and what unpacking raises."""
    headers: dict[str, Value] = {}
    at = 0
    while at < len(raw):
        end = at + 1 + raw[at]
        name = _exactly(raw, at + 1, end).decode()
        if name in headers:
            raise BrokenFrame("a header stands twice")
        headers[name], at = _value(raw, raw[end], end + 1)
    return headers


def _value(raw: bytes, kind: int, at: int) -> tuple[Value, int]:
    if kind in (0, 1):
        return kind == 0, at
    if kind in (6, 7):
        end = at + 2 + _SHORT.unpack_from(raw, at)[0]
        value = _exactly(raw, at + 2, end)
        return (value.decode() if kind == 7 else value), end
    if kind == 9:
        return _exactly(raw, at, at + 16), at + 16
    number = _INTEGERS[kind]
    return number.unpack_from(raw, at)[0], at + number.size


def _exactly(raw: bytes, start: int, end: int) -> bytes:
    if end > len(raw):
        raise BrokenFrame("a header is cut")
    return raw[start:end]
