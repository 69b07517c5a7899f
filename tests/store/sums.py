"""What the ledger's tests share: its sums of days together, and what a row of a budget has."""

from datetime import UTC, datetime

from sqlalchemy import select

from penstock.store.database import Database
from penstock.store.governance import ledger_days
from penstock.store.metering.seals import DAY_SUMS

SINCE = datetime(2026, 11, 23, tzinfo=UTC)
BUDGET = {
    "scope": "app", "subject_id": "app", "model": "", "currency": "USD", "amount_nanos": 100, "alerts": [],
    "origin": "operator", "updated_by": "o", "created_at": SINCE, "updated_at": SINCE,
}  # fmt: skip


def sums(db: Database) -> dict[str, int]:
    """All sums of days together."""
    with db.read() as connection:
        rows = connection.execute(select(*(ledger_days.c[name] for name in DAY_SUMS))).all()
    return {name: sum(values) for name, values in zip(DAY_SUMS, zip(*rows, strict=True), strict=True)}
