"""The chain of the ledger: each entry's hash is made of the one before it and of all that the entry says."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from penstock.domain.ledger import LedgerEntry

# Before the first entry.
GENESIS = bytes(32)
_encode = msgspec.msgpack.Encoder().encode


class Said(NamedTuple):
    """What an entry says, without its place, and never in another order: hashes that were made would not fit any more.
    The names mean what they do in ``LedgerEntry`` and ``Usage``; its times are floats, never whole numbers."""

    request_id: str
    admitted_us: int
    settled_us: int
    key_id: str
    key_prefix: str
    app_id: str
    app_name: str
    addon_id: str
    attachment_id: str
    asked: str
    model: str
    target: str | None
    stand_in: str | None
    stream: bool
    outcome: str
    cached_answer: bool
    estimated: bool
    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    raw_usage: str | None
    currency: str
    price_version: str | None
    amount_nanos: int
    cost_nanos: int | None
    cost_currency: str | None
    queued_ms: float | None
    first_event_ms: float | None
    total_ms: float
    attempts: str
    idempotency_id: bytes | None


# What a ``Said`` has: made in a fraction of its time, or of an entry's, and so what the ledger's process passes on.
Values = tuple[Any, ...]
# All that is hashed, with the entry's place.
FIELDS = ("seq", *Said._fields)
_OF_USAGE = {name for name in Said._fields if name not in LedgerEntry.__struct_fields__}
_TIMES = {name for name in Said._fields if name.endswith("_ms")}


def said_by(entry: LedgerEntry) -> Said:
    """What the entry says."""
    values = [getattr(entry.usage if name in _OF_USAGE else entry, name) for name in Said._fields]
    return Said._make(
        float(value) if name in _TIMES and value is not None else value
        for name, value in zip(Said._fields, values, strict=True)
    )


def canonical(values: Sequence[object]) -> bytes:
    """The bytes that stand for the values of ``FIELDS``: a MessagePack array in its shortest form, numbers with a
    point always as 64 bits. No other values have the same bytes."""
    return _encode(tuple(values))


def link(previous: bytes, values: Sequence[object]) -> bytes:
    """The hash of the entry with these values behind the one whose hash is ``previous``: SHA-256."""
    return hashlib.sha256(previous + _encode(tuple(values))).digest()
