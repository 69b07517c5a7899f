"""The ledger in both databases: one entry per request, one charge per idempotency id, a chain, and sums that fit."""

import threading
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, update

from penstock.domain.catalogue import Rate
from penstock.domain.chain import FIELDS, GENESIS, canonical, link, said_by
from penstock.domain.limits import Budget, Scope
from penstock.domain.money import price_version
from penstock.domain.usage import Usage
from penstock.store.database import Database
from penstock.store.governance import (
    answers,
    budget_periods,
    budgets,
    leases,
    ledger_entries,
    price_versions,
)
from penstock.store.keeping.expiry import drop_expired
from penstock.store.metering.alerts import Crossed
from penstock.store.metering.ledger import LedgerStore, Sums
from penstock.store.metering.spending import add_spent
from penstock.store.metering.verify import verify
from penstock.store.nouns.audit import AuditStore
from penstock.store.nouns.stores import Stores
from tests.ledger.entries import NOW_US, entry
from tests.store.nouns import add_app
from tests.store.sums import BUDGET, sums

NOW = "2026-11-23"


_values = st.tuples(
    *(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=8)
        for _ in range(4)
    )
)


@given(one=_values, other=_values)
def test_different_entries_have_different_bytes_and_hashes(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    same = [(type(value), repr(value)) for value in one] == [(type(value), repr(value)) for value in other]
    assert (canonical(one) == canonical(other)) == same
    assert (link(GENESIS, one) == link(GENESIS, other)) == same
    assert link(GENESIS, one) != link(link(GENESIS, other), one)


def test_the_chain_covers_every_column_of_an_entry() -> None:
    assert {*FIELDS, "hash"} == {column.name for column in ledger_entries.c}
    assert len(said_by(entry(1))) == len(FIELDS) - 1


def test_the_bytes_of_an_entry_are_what_they_always_were() -> None:
    hashed = link(GENESIS, (1, *said_by(entry(1)))).hex()
    assert hashed == "a98a67688de2d96b1dbff26ad4909f865af8bcd6d10933fb63a7a24c4e261f36"


def test_an_entry_is_read_back_as_it_was_written(db: Database, ledger: LedgerStore) -> None:
    odd = entry(
        2,
        target=None,
        stand_in="smol",
        stream=True,
        outcome="upstream_closed",
        usage=Usage(input_tokens=2**40, estimated=True),
        cached_answer=True,
        raw_usage='{"prompt_tokens": "\u20ac"}',
        price_version=None,
        amount_nanos=0,
        cost_nanos=None,
        cost_currency=None,
        queued_ms=0.1,
        first_event_ms=1e-9,
        total_ms=3.0,
        attempts='[["p/m","completed",null,1.0]]',
        idempotency_id=b"\0" * 32,
    )
    assert ledger.append([entry(1), odd]).inserted == 2
    read = ledger.entries()
    assert [msgspec.structs.replace(one, seq=0, hash=b"") for one in read] == [entry(1), odd]
    assert [one.seq for one in read] == [1, 2]
    assert ledger.head() == (2, read[1].hash)
    assert ledger.entries(after=1) == read[1:]
    assert verify(db).faults == ()


def test_a_request_has_one_entry_however_often_it_is_appended(db: Database, ledger: LedgerStore) -> None:
    assert ledger.append([entry(1), entry(2), entry(1, amount_nanos=99)]).inserted == 2
    assert ledger.append([entry(2), entry(3)]).inserted == 1
    assert ledger.append([entry(2), entry(3)]).inserted == 0
    assert [one.request_id for one in ledger.entries()] == ["req_1", "req_2", "req_3"]
    assert sums(db) | {"cost_nanos": 0} == {
        "requests": 3, "failed": 0, "estimated": 0, "input_tokens": 30, "cached_input_tokens": 12,
        "cache_write_tokens": 0, "output_tokens": 60, "reasoning_tokens": 0, "amount_nanos": 90, "cost_nanos": 0,
    }  # fmt: skip


def test_two_ledgers_on_one_database_make_one_chain(db: Database) -> None:
    def ship(start: int) -> None:
        for first in range(start, start + 100, 10):
            LedgerStore(db).append([entry(number) for number in range(first, first + 10)])

    threads = [threading.Thread(target=ship, args=(start,)) for start in (0, 50, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    verified = verify(db)
    assert (verified.entries, verified.last, verified.faults) == (200, 200, ())


def test_an_idempotency_id_is_charged_once_in_its_window(db: Database) -> None:
    ledger = LedgerStore(db, idempotency_window_s=3600)
    key = b"k" * 32
    ledger.append([entry(1, idempotency_id=key), entry(2, idempotency_id=key)])
    ledger.append([entry(3, idempotency_id=key), entry(4, idempotency_id=b"o" * 32), entry(5)])
    ledger.append([entry(6, idempotency_id=key, admitted_us=NOW_US + 3600 * 10**6 + 10)])
    assert [one.amount_nanos for one in ledger.entries()] == [30, 0, 0, 30, 30, 30]
    assert sums(db)["amount_nanos"] == 120
    assert verify(db).faults == ()


@given(amounts=st.lists(st.integers(0, 5), max_size=8), cut=st.integers(0, 8))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_runs_of_one_idempotency_id_cost_what_the_dearest_costs(db: Database, amounts: list[int], cut: int) -> None:
    key, ledger = uuid4().bytes * 2, LedgerStore(db)
    before, _ = ledger.head()
    runs = [entry(before + at, idempotency_id=key, amount_nanos=amount) for at, amount in enumerate(amounts)]
    ledger.append(runs[:cut])
    ledger.append(runs[cut:])
    charged = [one.amount_nanos for one in ledger.entries(after=before)]
    assert charged == [max(0, amount - max(amounts[:at], default=0)) for at, amount in enumerate(amounts)]
    assert verify(db).faults == ()


def test_a_charge_in_another_currency_is_not_made_twice(db: Database, ledger: LedgerStore) -> None:
    key = b"k" * 32
    ledger.append([entry(1, idempotency_id=key), entry(2, idempotency_id=key, currency="EUR", amount_nanos=500)])
    assert [one.amount_nanos for one in ledger.entries()] == [30, 0]


def test_a_run_that_cost_nothing_more_charges_no_less_for_the_next(ledger: LedgerStore) -> None:
    one = [entry(1), entry(2, currency="EUR"), entry(3, amount_nanos=50)]
    ledger.append([msgspec.structs.replace(run, idempotency_id=b"k" * 32) for run in one])
    assert [run.amount_nanos for run in ledger.entries()] == [30, 0, 20]


def test_a_batch_with_one_that_is_there_enters_the_others_once(db: Database, ledger: LedgerStore) -> None:
    """Behind a batch that was new, the next is tried as if it were as well, until the database refuses it."""
    for batch in ([1, 2], [3, 2, 4], [5], [6, 6, 7], [8], [9], [10, 1], [10]):
        ledger.append([entry(number) for number in batch])
    assert [one.request_id for one in ledger.entries()] == [f"req_{number}" for number in range(1, 11)]
    assert verify(db).faults == ()


def test_what_a_repeat_is_not_charged_is_neither_spent_nor_held(db: Database) -> None:
    ledger = LedgerStore(db, spend=add_spent)
    lease = {"counter": "b:x:", "holder": "w", "granted": 100, "seq": 1, "last_grant": 0, "expires_s": 9e9}
    with db.write() as connection:
        connection.execute(insert(leases), [lease])
        connection.execute(insert(budgets).values(id="x", period="total", **BUDGET))
    ledger.append([entry(1, idempotency_id=b"k" * 32)], holder="w", money={"req_1": ("b:x:",)})
    ledger.append([entry(2, idempotency_id=b"k" * 32, amount_nanos=50)], holder="w", money={"req_2": ("b:x:",)})
    with db.read() as connection:
        assert connection.execute(select(leases.c.granted)).scalar_one() == 20
        assert connection.execute(select(budget_periods.c.spent_nanos)).scalar_one() == 50
    assert verify(db).faults == ()


def test_money_that_is_spent_is_no_longer_held(db: Database, ledger: LedgerStore) -> None:
    rows = [
        {"counter": counter, "holder": holder, "granted": 100, "seq": 1, "last_grant": 0, "expires_s": 9e9}
        for counter, holder in (("b:x:", "w"), ("b:y:", "w"), ("b:x:", "other"), ("r:app:a:", "w"))
    ]
    with db.write() as connection:
        connection.execute(insert(leases), rows)
    held = {"req_1": ("b:x:",), "req_2": ("b:x:", "b:y:")}
    ledger.append([entry(1), entry(2)], holder="w", money=held)
    ledger.append([entry(1), entry(2)], holder="w", money=held)
    query = select(leases.c.counter, leases.c.holder, leases.c.granted)
    with db.read() as connection:
        found = {(row.counter, row.holder): row.granted for row in connection.execute(query)}
    assert found == {("b:x:", "w"): 40, ("b:y:", "w"): 70, ("b:x:", "other"): 100, ("r:app:a:", "w"): 100}
    ledger.release("w")
    with db.read() as connection:
        assert {tuple(row[:2]) for row in connection.execute(query)} == {("b:x:", "other"), ("r:app:a:", "w")}


def test_a_crossed_threshold_is_an_audit_event_of_the_same_transaction(db: Database) -> None:
    budget = Budget(id="b", scope=Scope.APP, subject_id="app", period="day", amount_nanos=40)
    crossed = Crossed(budget=budget, percent=50, starts_on=NOW, spent_nanos=20)

    def spend(_connection: Any, added: Sums) -> list[Crossed]:
        return [crossed] if any(of.key_id == "one" for of in added) else []

    ledger = LedgerStore(db, spend=spend, audit=AuditStore(db).add)
    assert [crossing.percent for crossing in ledger.append([entry(1, key_id="one")]).crossed] == [50]
    assert ledger.append([entry(1, key_id="one"), entry(2)]).crossed == ()
    (event,) = AuditStore(db).list()
    assert (event.action, event.object_id, event.after) == (
        "budget.alert", "b", {
            "percent": 50, "refuses": False, "amount": "0.00000004", "spent": "0.00000002", "currency": "USD",
            "period": "day", "starts_on": NOW, "model": None,
        },
    )  # fmt: skip


def test_what_a_price_version_says_is_kept_once(db: Database, ledger: LedgerStore) -> None:
    one, two = Rate(input=Decimal("0.5"), output=Decimal(1)), Rate(input=Decimal(3), output=Decimal("0.10"))
    ledger.note_rates([one])
    ledger.note_rates([one, two, two])
    with db.read() as connection:
        rows = connection.execute(select(price_versions.c.version, price_versions.c.rate)).all()
    assert {version: msgspec.convert(rate, Rate, strict=False) for version, rate in rows} == {
        price_version(one): one,
        price_version(two): two,
    }


def test_an_entry_that_is_changed_or_removed_is_refused_by_the_database(db: Database, ledger: LedgerStore) -> None:
    ledger.append([entry(1)])
    for statement in (update(ledger_entries).values(amount_nanos=1), delete(ledger_entries)):
        with pytest.raises(Exception, match="append-only"), db.write() as connection:
            connection.execute(statement)


def test_answers_go_when_their_time_is_over_or_their_app_is_gone(db: Database) -> None:
    app = add_app(Stores(db))
    row = {
        "kind": "cache", "app_id": app.id, "fingerprint": b"f", "state": "done", "owner": "w", "attempt": 1,
        "request_id": "r", "alive_s": 1.0, "followed_s": 1.0, "created_s": 1.0,
    }  # fmt: skip
    with db.write() as connection:
        connection.execute(insert(answers), [row | {"id": bytes([n]) * 32, "expires_s": float(n)} for n in range(9)])
    assert [drop_expired(db, 6.5, most=4), drop_expired(db, 6.5, most=4), drop_expired(db, 6.5)] == [4, 3, 0]
    with db.read() as connection:
        assert sorted(connection.execute(select(answers.c.expires_s)).scalars()) == [7.0, 8.0]
    with db.write() as connection:
        connection.execute(update(answers).where(answers.c.expires_s == 7.0).values(app_id="gone"))
    assert drop_expired(db, 6.5) == 1


def test_a_database_that_is_away_takes_nothing_half(tmp_path: Path) -> None:
    db = Database.open(tmp_path / "penstock.db")

    def fails(_connection: Any, _entries: Any) -> list[Any]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        LedgerStore(db, spend=fails).append([entry(1)])
    assert LedgerStore(db).head() == (0, GENESIS)
    assert verify(db).days == 0
    db.close()
