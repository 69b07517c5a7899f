"""Whether a JSON object names each of its members once.

Which of two values a name has is up to the reader: the gateway, which judges a request by the last one, and an upstream
that takes the first would see different requests.
"""

import re
from collections.abc import Mapping

import msgspec

_SPACE = re.compile(rb"[ \t\r\n]*")


def each_once(raw: bytes, members: Mapping[str, msgspec.Raw]) -> bool:
    """``members`` are what decoding ``raw`` came to: each name that stands there, as it is spelt, once."""
    size = 1
    for name, value in members.items():
        size += len(name) + len(memoryview(value)) + 4
    # Spaces, escapes and repeated names all make the object longer than this.
    return size == len(raw) or _walks(raw, members)


def _walks(raw: bytes, members: Mapping[str, msgspec.Raw]) -> bool:
    """The same of an object with spaces: one member after the other, and nothing between them but what has to be."""
    at = _after(raw, 0, b"{")
    for number, (name, value) in enumerate(members.items()):
        at = _after(raw, at, b",") if number else at
        at = _after(raw, at, b'"%b"' % name.encode())
        at = _after(raw, at, b":")
        at = _after(raw, at, bytes(value))
    return at >= 0 and _after(raw, at, b"}") == len(raw)


def _after(raw: bytes, at: int, token: bytes) -> int:
    """Where the space behind the token ends, if that stands behind space from ``at`` on; -1 if not, or ``at`` is."""
    if at < 0 or (found := _SPACE.match(raw, at)) is None or not raw.startswith(token, found.end()):
        return -1
    behind = _SPACE.match(raw, found.end() + len(token))
    return behind.end() if behind is not None else -1
