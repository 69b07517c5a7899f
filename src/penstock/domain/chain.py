"""The chain of the ledger: each entry's hash is made of the one before it and of all that the entry says."""

import hashlib
from collections.abc import Sequence

import msgspec

from penstock.domain.ledger import LedgerEntry

# Before the first entry.
GENESIS = bytes(32)
# Said by an entry, in this order, and never in another: hashes that were made would not fit any more.
FIELDS = (
    "seq",
    "request_id",
    "admitted_us",
    "settled_us",
    "key_id",
    "key_prefix",
    "app_id",
    "app_name",
    "addon_id",
    "attachment_id",
    "asked",
    "model",
    "target",
    "stand_in",
    "stream",
    "outcome",
    "cached_answer",
    "estimated",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "raw_usage",
    "currency",
    "price_version",
    "amount_nanos",
    "cost_nanos",
    "cost_currency",
    "queued_ms",
    "first_event_ms",
    "total_ms",
    "attempts",
    "idempotency_id",
)
_encode = msgspec.msgpack.Encoder().encode


def values_of(entry: LedgerEntry, seq: int) -> tuple[object, ...]:
    """What an entry says at its place in the chain: the values of ``FIELDS``."""
    usage = entry.usage
    return (
        seq,
        entry.request_id,
        entry.admitted_us,
        entry.settled_us,
        entry.key_id,
        entry.key_prefix,
        entry.app_id,
        entry.app_name,
        entry.addon_id,
        entry.attachment_id,
        entry.asked,
        entry.model,
        entry.target,
        entry.stand_in,
        entry.stream,
        entry.outcome,
        entry.cached_answer,
        usage.estimated,
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        entry.raw_usage,
        entry.currency,
        entry.price_version,
        entry.amount_nanos,
        entry.cost_nanos,
        entry.cost_currency,
        None if entry.queued_ms is None else float(entry.queued_ms),
        None if entry.first_event_ms is None else float(entry.first_event_ms),
        float(entry.total_ms),
        entry.attempts,
        entry.idempotency_id,
    )


def canonical(values: Sequence[object]) -> bytes:
    """The bytes that stand for the values of ``FIELDS``: a MessagePack array in its shortest form, numbers with a
    point always as 64 bits. No other values have the same bytes."""
    return _encode(tuple(values))


def link(previous: bytes, values: Sequence[object]) -> bytes:
    """The hash of the entry with these values behind the one whose hash is ``previous``: SHA-256."""
    return hashlib.sha256(previous + _encode(tuple(values))).digest()
