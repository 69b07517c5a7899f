"""Entries of the ledger for the tests that read it, brought in as the ledger brings them: with their sums by day."""

from collections.abc import Iterable
from typing import Any

from penstock.domain.ledger import DAY_US, LedgerEntry
from penstock.domain.usage import Usage
from penstock.store.database import Database
from penstock.store.metering.ledger import LedgerStore

# 2026-11-01 in UTC, in microseconds.
NOVEMBER_US = 20_758 * DAY_US


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
    ledger = LedgerStore(db)
    before, _ = ledger.head()
    new = list(entries)
    assert ledger.append(new).inserted == len(new)
    return ledger.entries(after=before, limit=len(new))


def prune(db: Database, before_us: int) -> None:
    """Removes old entries, as retention does."""
    while LedgerStore(db).prune(before_us):
        pass
