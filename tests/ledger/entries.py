"""Ledger entries, and journal records, to make and to change."""

from typing import Any

import msgspec

from penstock.domain.ledger import LedgerEntry
from penstock.domain.usage import Usage
from penstock.ledger.records import Admitted, Settled

DAY_US = 86_400_000_000
NOW_US = 20_000 * DAY_US + 1_234_567


def entry(number: int, **fields: Any) -> LedgerEntry:
    """A completed request of one key, that costs 30 nanos."""
    made = LedgerEntry(
        request_id=f"req_{number}",
        admitted_us=NOW_US + number,
        settled_us=NOW_US + number + 5,
        key_id="key",
        key_prefix="inf-abc",
        app_id="app",
        app_name="shop",
        addon_id="addon",
        attachment_id="attachment",
        asked="m",
        model="model",
        target="p/m",
        stand_in=None,
        stream=False,
        outcome="completed",
        usage=Usage(input_tokens=10, output_tokens=20, cached_input_tokens=4),
        price_version="0123456789abcdef",
        amount_nanos=30,
        cost_nanos=20,
        cost_currency="USD",
        total_ms=12.5,
    )
    return msgspec.structs.replace(made, **fields)


def admitted(number: int, **fields: Any) -> Admitted:
    """The record of an admission."""
    made = Admitted(
        request_id=f"req_{number}",
        admitted_at=1.5,
        key_id="key",
        key_prefix="inf-abc",
        app_id="app",
        addon_id="addon",
        attachment_id="attachment",
        model="model",
        stream=False,
    )
    return msgspec.structs.replace(made, **fields)


def settled(number: int, outcome: str = "completed", *, kind: type[Settled] = Settled, **fields: Any) -> Settled:
    """The record of a settlement, or of another ``kind`` of it."""
    made = kind(
        request_id=f"req_{number}",
        settled_at=2.5,
        outcome=outcome,
        provider="p",
        target_model="m",
        stand_in=None,
        input_tokens=10,
        output_tokens=20,
        cached_input_tokens=4,
        estimated=False,
        first_event_ms=1.0,
        total_ms=2.0,
        amount_nanos=30,
        price_version="0123456789abcdef",
    )
    return msgspec.structs.replace(made, **fields)
