"""Seals: what the sums of days say of entries that retention has removed, in a chain of hashes.

A day's newest seal has the sums of all its entries that are gone; those before it are left as links of the chain.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from penstock.domain.chain import GENESIS
from penstock.store.governance import ledger_seals

DAY_KEY = ("day", "key_id", "model", "target", "currency")
DAY_NAMES = ("key_prefix", "app_id", "app_name", "addon_id", "attachment_id")
DAY_SUMS = (
    "requests",
    "failed",
    "estimated",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "amount_nanos",
    "cost_nanos",
)
# A row of the sums of a day: key, names and sums in these orders. Seals that were made would not fit to another.
Row = tuple[Any, ...]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Row]).decode
_KEYS, _SUMS = len(DAY_KEY), len(DAY_KEY) + len(DAY_NAMES)


def seal(connection: Connection, rows: Sequence[Row], entry_hash: bytes) -> None:
    """Seal the sums, in the order of their keys, of entries that are about to go, the last of which has that hash; in
    the open transaction, which has the ledger's head locked."""
    number, last = head_of_seals(connection)
    row = ledger_seals.c
    for day, more in groupby(rows, key=lambda one: one[0]):
        before = (row.day == day, row.sums.is_not(None))
        sums = _encode(_added(sealed_sums(connection, day), more))
        connection.execute(update(ledger_seals).where(*before).values(sums=None))
        number, digest = number + 1, hashlib.sha256(sums).digest()
        last = _link(last, number, day, entry_hash, digest)
        values = {"number": number, "day": day, "entry_hash": entry_hash, "digest": digest, "sums": sums, "hash": last}
        connection.execute(insert(ledger_seals).values(values))


def head_of_seals(connection: Connection) -> tuple[int, bytes]:
    """Number and hash of the newest seal; 0 before the first."""
    row = ledger_seals.c
    found = connection.execute(select(row.number, row.hash).order_by(row.number.desc()).limit(1)).one_or_none()
    return (0, GENESIS) if found is None else (found.number, found.hash)


def sealed_sums(connection: Connection, day: int) -> list[Row]:
    """The sums of the entries of a day that are gone."""
    row = ledger_seals.c
    found = connection.execute(select(row.sums).where(row.day == day, row.sums.is_not(None))).scalars()
    return [one for sums in found for one in _decode(sums)]


def seal_faults(connection: Connection, pruned_hash: bytes) -> Iterator[str]:
    """What is wrong with the seals, in their own order; ``pruned_hash`` is that of the last entry that is gone."""
    last, number, entry_hash = GENESIS, 0, GENESIS
    row = ledger_seals.c
    newest = set(connection.execute(select(func.max(row.number)).group_by(row.day)).scalars())
    for one in connection.execute(select(ledger_seals).order_by(row.number)):
        number += 1
        if one.number != number:
            yield f"seal {number} is missing"
            return
        last, entry_hash = _link(last, number, one.day, one.entry_hash, one.digest), one.entry_hash
        fits = one.sums is None or hashlib.sha256(one.sums).digest() == one.digest
        if last != one.hash or not fits or (one.sums is not None) != (number in newest):
            yield f"seal {number} of day {one.day} was changed: its hash does not fit"
            return
    if entry_hash != pruned_hash:
        yield f"seal {number} is not the one of the last entry that was removed"


def _added(kept: Sequence[Row], more: Iterator[Row]) -> list[Row]:
    rows = {one[:_KEYS]: one for one in map(tuple, kept)}
    for one in more:
        old = rows.get(one[:_KEYS])
        sums = one[_SUMS:] if old is None else [had + new for had, new in zip(old[_SUMS:], one[_SUMS:], strict=True)]
        rows[one[:_KEYS]] = (*one[:_SUMS], *sums)
    return [rows[key] for key in sorted(rows)]


def _link(previous: bytes, number: int, day: int, entry_hash: bytes, digest: bytes) -> bytes:
    return hashlib.sha256(previous + _encode((number, day, entry_hash, digest))).digest()
