"""Entries of the ledger for the tests that read it, brought in as the ledger brings them: with their sums by day."""

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import insert, select, update

from penstock.domain.ledger import LedgerEntry
from penstock.domain.usage import Usage
from penstock.store.database import Database
from penstock.store.governance import ledger_days, ledger_entries, ledger_head

DAY_US = 86_400_000_000
# 2026-11-01 in UTC, in microseconds.
NOVEMBER_US = 20_758 * DAY_US
_KEYS = ("day", "key_id", "model", "target", "currency")
_NAMES = ("key_prefix", "app_id", "app_name", "addon_id", "attachment_id")
_TOKENS = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
_SUMS = ("requests", "failed", "estimated", *_TOKENS, "amount_nanos", "cost_nanos")


def metered(request_id: str, **fields: Any) -> LedgerEntry:
    """An entry of the app shop on the first of November; ``fields`` are what else it is, token counts among them."""
    counts = {name: fields.pop(name) for name in Usage.__struct_fields__ if name in fields}
    given: dict[str, Any] = {
        "admitted_us": NOVEMBER_US,
        "key_id": "00000000-0000-4000-8000-00000000000a",
        "key_prefix": "inf-abcdefgh",
        "app_id": "00000000-0000-4000-8000-00000000000b",
        "app_name": "shop",
        "addon_id": "00000000-0000-4000-8000-00000000000c",
        "attachment_id": "00000000-0000-4000-8000-00000000000d",
        "asked": "chat-large-latest",
        "model": "chat-large",
        "target": "someone/it",
        "stand_in": None,
        "stream": False,
        "outcome": "completed",
        "amount_nanos": 1_000,
        "total_ms": 12.5,
        **fields,
    }
    given.setdefault("settled_us", given["admitted_us"] + 12_500)
    usage = Usage(**{"input_tokens": 10, "output_tokens": 5, **counts})
    return LedgerEntry(request_id=request_id, usage=usage, **given)


def fill(db: Database, entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """Brings entries into the ledger; as they are there, with their numbers."""
    with db.write() as connection:
        last = connection.execute(select(ledger_head.c.seq)).scalar_one()
        numbered = [
            msgspec.structs.replace(entry, seq=seq, hash=bytes(32)) for seq, entry in enumerate(entries, last + 1)
        ]
        if not numbered:
            return []
        connection.execute(insert(ledger_entries), [_row(entry) for entry in numbered])
        connection.execute(update(ledger_head).values(seq=numbered[-1].seq))
        for entry in numbered:
            _add_to_day(connection, entry)
    return numbered


def prune(db: Database, before_us: int) -> None:
    """Removes the first entries as far as they were all admitted before that, as retention does."""
    with db.write() as connection:
        stays = (
            select(ledger_entries.c.seq).where(ledger_entries.c.admitted_us >= before_us).order_by(ledger_entries.c.seq)
        )
        first = connection.execute(stays.limit(1)).scalar_one_or_none()
        last = connection.execute(select(ledger_head.c.seq)).scalar_one() if first is None else first - 1
        connection.execute(update(ledger_head).values(pruned_seq=last))
        connection.execute(ledger_entries.delete().where(ledger_entries.c.seq <= last))


def _row(entry: LedgerEntry) -> dict[str, Any]:
    row = msgspec.structs.asdict(entry)
    return row | msgspec.structs.asdict(row.pop("usage"))


def _add_to_day(connection: Any, entry: LedgerEntry) -> None:
    row = _row(entry) | {"day": entry.admitted_us // DAY_US, "target": entry.target or "", "requests": 1}
    row["failed"] = int(entry.outcome not in ("completed", "disconnected", "cancelled"))
    row["estimated"] = int(entry.usage.estimated)
    row["cost_nanos"] = entry.cost_nanos or 0 if entry.cost_currency == entry.currency else 0
    here = [ledger_days.c[name] == row[name] for name in _KEYS]
    more = {name: ledger_days.c[name] + row[name] for name in _SUMS}
    if connection.execute(update(ledger_days).where(*here).values(**more)).rowcount == 0:
        connection.execute(insert(ledger_days).values({name: row[name] for name in (*_KEYS, *_NAMES, *_SUMS)}))
