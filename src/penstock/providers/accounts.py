"""What an upstream itself says of usage, kept as it said it beside what the meter makes of it.

Numbers and short words are kept, and nothing in which a prompt could stand: this goes into the journal and the ledger.
"""

import re
from typing import Any

import msgspec

MAX_BYTES = 4096
# What a Raw field holds when its key is missing or null.
ABSENT = (b"", b"null")
# What is counted in an answer whose upstream says nothing of usage: about so many bytes of text are a token.
BYTES_PER_TOKEN = 4

_WORD = re.compile(r"[\w.:/-]{0,40}", re.ASCII)
_parts = msgspec.json.Decoder(dict[str, msgspec.Raw])


def kept(said: msgspec.Raw) -> bytes | None:
    """The account as it was received, without texts; None when there is none, or when it is too large to be one."""
    raw = bytes(said)
    if raw in ABSENT or len(raw) > MAX_BYTES:
        return None
    # Each quote that closes a name has its colon: then no value is a text.
    return raw if raw.count(b'"') == 2 * raw.count(b'":') else _without_texts(raw)


def merged(before: bytes | None, said: msgspec.Raw) -> bytes | None:
    """An account given in parts, as one object: a later part says again what has changed and leaves out the rest, so
    its members that are not null take the place of those before. Empty once it is too large to be one."""
    more = b"" if len(bytes(said)) > MAX_BYTES else kept(said)
    if not before or not more:
        return b"" if b"" in (before, more) else more or before
    try:
        members = _parts.decode(before)
        members.update((name, value) for name, value in _parts.decode(more).items() if bytes(value) not in ABSENT)
    except (ValueError, RecursionError):
        return more
    return kept(msgspec.Raw(msgspec.json.encode(members))) or b""


def _without_texts(raw: bytes) -> bytes | None:
    try:
        left = _numbers(msgspec.json.decode(raw))
    except (ValueError, RecursionError):
        return None
    return None if left is msgspec.UNSET else msgspec.json.encode(left)


def _numbers(value: Any) -> Any:
    """The value without what is no number and no single short word."""
    if isinstance(value, dict):
        members = ((name, _numbers(one)) for name, one in value.items() if _WORD.fullmatch(name))
        return {name: one for name, one in members if one is not msgspec.UNSET}
    if isinstance(value, list):
        return [one for one in map(_numbers, value) if one is not msgspec.UNSET]
    return msgspec.UNSET if isinstance(value, str) and not _WORD.fullmatch(value) else value
