"""What an upstream itself says of usage, kept as it said it beside what the meter makes of it."""

import msgspec

MAX_BYTES = 4096
# What a Raw field holds when its key is missing or null.
ABSENT = (b"", b"null")
# What is counted in an answer whose upstream says nothing of usage: about so many bytes of text are a token.
BYTES_PER_TOKEN = 4

_parts = msgspec.json.Decoder(dict[str, msgspec.Raw])


def kept(said: msgspec.Raw) -> bytes | None:
    """The account as it was received; None when there is none, or when it is too large to be one."""
    raw = bytes(said)
    return None if raw in ABSENT or len(raw) > MAX_BYTES else raw


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
