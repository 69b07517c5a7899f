"""What of a journal's records stands in the ledger, whatever they hold: counted once more here, in plain steps."""

import hashlib
import math
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Row, insert, select

from penstock.domain.ledger import DAY_US
from penstock.ledger.journal import Journal
from penstock.ledger.records import Admitted, Leg, Record, Settled
from penstock.ledger.shipper import Shipper
from penstock.store.database import Database
from penstock.store.governance import budget_periods, budgets, ledger_days, ledger_entries
from penstock.store.metering.ledger import LedgerStore
from penstock.store.metering.seals import DAY_KEY, DAY_NAMES, DAY_SUMS
from penstock.store.metering.spending import add_spent
from penstock.store.metering.verify import verify
from tests.sqlite import new_sqlite
from tests.store.sums import BUDGET

MOST_TOKENS, MOST_NANOS, MOST_MS = 100_000_000, 10**15, 1e12
# 9999-01-01: what is later is no date any more when a period begins with it.
MOST_US = 253_370_764_800_000_000

_text: st.SearchStrategy[str] = st.one_of(
    st.sampled_from(["", "a", "b", "USD", "x" * 3, "nul\0", "\0" * 5, "\u20ac" * 700]), st.text(max_size=40)
)
_maybe = st.none() | _text
_seconds: st.SearchStrategy[float] = st.one_of(
    st.sampled_from([0.0, -0.0, -5.0, 1.5, 86_400.5, 1e300, math.inf, -math.inf, math.nan]), st.floats()
)
_count: st.SearchStrategy[int] = st.one_of(
    st.integers(0, 5), st.sampled_from([2**26 - 1, 2**26, MOST_TOKENS, MOST_TOKENS + 1, -1, -(2**63), 2**63 - 1])
)
_nanos: st.SearchStrategy[int] = st.one_of(
    st.integers(0, 100), st.sampled_from([MOST_NANOS, MOST_NANOS + 1, 2**63 - 1, -(2**63), -1])
)
_legs = st.lists(st.builds(Leg, target=_text, outcome=_text, first_event_ms=st.none(), total_ms=st.floats(0, 9)))


# By the fields of both records that are not of the very request.
_ADMITTED: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("key_id", "key_prefix", "app_id", "app_name", "addon_id", "attachment_id"), _text),
    **dict.fromkeys(("model", "asked"), _text),
    "admitted_at": _seconds,
    "stream": st.booleans(),
    "idempotency_id": st.none() | st.sampled_from([b"", b"k", b"k" * 40]),
}
_SETTLED: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("outcome", "currency"), _text),
    **dict.fromkeys(("provider", "target_model", "stand_in", "price_version", "cost_currency", "raw_usage"), _maybe),
    **dict.fromkeys(("input_tokens", "output_tokens", "cached_input_tokens"), _count),
    **dict.fromkeys(("cache_write_tokens", "reasoning_tokens"), _count),
    **dict.fromkeys(("settled_at", "total_ms"), _seconds),
    **dict.fromkeys(("queued_ms", "first_event_ms"), st.none() | _seconds),
    **dict.fromkeys(("estimated", "cached_answer"), st.booleans()),
    "amount_nanos": _nanos,
    "cost_nanos": st.none() | _nanos,
    "attempts": _legs.map(tuple),
}
_pairs: st.SearchStrategy[tuple[dict[str, Any], dict[str, Any]]] = st.tuples(
    st.fixed_dictionaries(_ADMITTED), st.fixed_dictionaries(_SETTLED)
)


def cut(text: str | None, longest: int) -> str | None:
    return None if text is None else text[:longest].replace("\0", "\ufffd")


def microseconds(seconds: float) -> int:
    if not math.isfinite(seconds) or seconds < 0:
        return 0
    return int(seconds * 1_000_000 + 0.5) if seconds < MOST_US / 1e6 else MOST_US


def milliseconds(given: float | None) -> float | None:
    if given is None or not math.isfinite(given):
        return None
    return int(min(max(given, 0.0), MOST_MS) * 1000 + 0.5) / 1000


def within(count: int | None, least: int, most: int) -> int | None:
    return None if count is None else sorted((least, count, most))[1]


def wanted(admitted: Admitted, settled: Settled) -> dict[str, Any]:
    """What the entry has to say, by column."""
    target = None if settled.provider is None else f"{settled.provider}/{settled.target_model or ''}"
    counts = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    return {
        "request_id": cut(admitted.request_id, 64),
        "admitted_us": microseconds(admitted.admitted_at),
        "settled_us": microseconds(settled.settled_at),
        "key_id": cut(admitted.key_id, 36),
        "key_prefix": cut(admitted.key_prefix, 16),
        "app_id": cut(admitted.app_id, 36),
        "app_name": cut(admitted.app_name, 30),
        "addon_id": cut(admitted.addon_id, 36),
        "attachment_id": cut(admitted.attachment_id, 36),
        "asked": cut(admitted.asked or admitted.model, 256),
        "model": cut(admitted.model, 256),
        "target": cut(target, 512),
        "stand_in": cut(settled.stand_in, 256),
        "stream": admitted.stream,
        "outcome": cut(settled.outcome, 64),
        "cached_answer": settled.cached_answer,
        "estimated": settled.estimated,
        **{name: within(getattr(settled, name), 0, MOST_TOKENS) for name in counts},
        "raw_usage": settled.raw_usage and settled.raw_usage.replace("\0", "\ufffd"),
        "currency": cut(settled.currency, 3),
        "price_version": cut(settled.price_version, 16),
        "amount_nanos": within(settled.amount_nanos, -MOST_NANOS, MOST_NANOS),
        "cost_nanos": within(settled.cost_nanos, -MOST_NANOS, MOST_NANOS),
        "cost_currency": cut(settled.cost_currency, 3),
        "queued_ms": milliseconds(settled.queued_ms),
        "first_event_ms": milliseconds(settled.first_event_ms),
        "total_ms": milliseconds(settled.total_ms) or 0.0,
        "attempts": msgspec.json.encode(settled.attempts).decode(),
        "idempotency_id": None if admitted.idempotency_id is None else admitted.idempotency_id[:32],
    }


def charge_once(entries: list[dict[str, Any]]) -> None:
    """Those of one idempotency id within a day cost together what the dearest costs; in one currency."""
    for number, one in enumerate(entries):
        for before in entries[:number]:
            near = abs(before["admitted_us"] - one["admitted_us"]) < DAY_US
            same = one["idempotency_id"] is not None and before["idempotency_id"] == one["idempotency_id"]
            if same and near and before["amount_nanos"]:
                known = before["currency"] == one["currency"]
                one["rest"] = one.get("rest", one["amount_nanos"]) - before["amount_nanos"] if known else -math.inf
        if one["idempotency_id"] is not None and one["amount_nanos"]:
            one["amount_nanos"] = max(one.pop("rest", one["amount_nanos"]), 0)
        one.pop("rest", None)


def days(entries: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The sums of days that these have to have."""
    names: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    sums: dict[tuple[Any, ...], Counter[str]] = {}
    for one in entries:
        key = (one["admitted_us"] // DAY_US, one["key_id"], one["model"], one["target"] or "", one["currency"])
        names[key] = tuple(one[name] for name in DAY_NAMES)
        cost = one["cost_nanos"] or 0 if one["cost_currency"] == one["currency"] else 0
        more = {"requests": 1, "failed": one["outcome"] not in ("completed", "disconnected"), "cost_nanos": cost}
        more = {name: one.get(name, 0) for name in DAY_SUMS} | more
        for name, count in more.items():
            sums.setdefault(key, Counter())[name] += count
    return sorted((*key, *names[key], *(found[name] for name in DAY_SUMS)) for key, found in sums.items())


def stored(db: Database) -> tuple[list[Row[Any]], list[tuple[Any, ...]], int]:
    """The entries, the rows of days, and what the budget of the app has spent."""
    day = select(*(ledger_days.c[name] for name in (*DAY_KEY, *DAY_NAMES, *DAY_SUMS)))
    with db.read() as connection:
        rows = connection.execute(select(ledger_entries).order_by(ledger_entries.c.seq)).all()
        spent = connection.execute(select(budget_periods.c.spent_nanos)).scalar() or 0
        return list(rows), sorted(map(tuple, connection.execute(day))), spent


@settings(max_examples=80, deadline=None)
@given(pairs=st.lists(_pairs, min_size=1, max_size=6), repeats=st.integers(1, 3), again=st.integers(0, 2))
def test_the_ledger_holds_what_the_records_say_cut_to_what_it_can_keep(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: list[tuple[dict[str, Any], dict[str, Any]]],
    repeats: int,
    again: int,
) -> None:
    """The requests come in several batches, and some of what was shipped comes again among new ones."""
    home = tmp_path_factory.mktemp("home")
    db = new_sqlite(home / "penstock.db")
    with db.write() as connection:
        connection.execute(insert(budgets).values(id="x", period="total", **BUDGET | {"subject_id": "a"}))
    store = LedgerStore(db, spend=add_spent)
    batches: list[list[Record]] = []
    entries = []
    for batch in range(repeats):
        records: list[Record] = [*batches[-1][: 2 * again]] if batches else []
        for number, pair in enumerate(pairs):
            request_id = f"req_{batch}_{number}" + ("\0" if number == 1 else "")
            admitted, settled = Admitted(request_id=request_id, **pair[0]), Settled(request_id=request_id, **pair[1])
            records += [admitted, settled]
            entries.append(wanted(admitted, settled))
        batches.append(records)
    for records in batches:
        journal = Journal(home / "journal")
        for record in records:
            journal.append(record)
        journal.close()
        shipper = Shipper(home / "journal", store)
        while shipper.round(last=True):
            pass
    charge_once(entries)
    rows, found, spent = stored(db)
    for row, one in zip(rows, entries, strict=True):
        assert {name: value for name, value in row._mapping.items() if name not in ("seq", "hash")} == one
    assert found == days(entries)
    assert spent == sum(one["amount_nanos"] for one in entries if one["app_id"] == "a" and one["currency"] == "USD")
    last = bytes(32)
    for number, row in enumerate(rows, 1):
        assert row.seq == number
        last = hashlib.sha256(last + msgspec.msgpack.encode(tuple(row)[:-1])).digest()
        assert row.hash == last
    assert verify(db).faults == ()
    db.close()
