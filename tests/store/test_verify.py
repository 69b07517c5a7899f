"""What the ledger proves in both databases: changes of entries, of sums, and of sums whose entries are gone."""

import time

import pytest
from sqlalchemy import delete, insert, text, update

from penstock.store.database import Database
from penstock.store.governance import budget_periods, budgets, ledger_days, ledger_entries
from penstock.store.metering.ledger import LedgerStore
from penstock.store.metering.verify import read_head, verify
from tests.ledger.entries import DAY_US, NOW_US, entry
from tests.store.sums import BUDGET, sums


def tamper(db: Database, *statements: str) -> None:
    """Changes what nobody may change, past the triggers."""
    with db.write() as connection:
        if connection.dialect.name == "sqlite":
            connection.execute(text("DROP TRIGGER ledger_entries_no_update"))
            connection.execute(text("DROP TRIGGER ledger_entries_no_delete"))
        else:
            connection.execute(text("ALTER TABLE ledger_entries DISABLE TRIGGER ALL"))
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.parametrize(
    ("sql", "broken", "word"),
    [
        ("UPDATE ledger_entries SET amount_nanos = 1 WHERE seq = 3", 3, "changed"),
        ("UPDATE ledger_entries SET outcome = 'other' WHERE seq = 5", 5, "changed"),
        ("DELETE FROM ledger_entries WHERE seq = 4", 4, "missing"),
        ("DELETE FROM ledger_entries WHERE seq = 6", 6, "missing"),
        ("UPDATE ledger_head SET seq = 5", 6, "not the one"),
    ],
)
def test_what_was_changed_in_the_ledger_is_found_and_named(
    db: Database, ledger: LedgerStore, sql: str, broken: int, word: str
) -> None:
    ledger.append([entry(number) for number in range(1, 7)])
    tamper(db, sql)
    verified = verify(db)
    assert verified.broken == broken
    assert word in verified.faults[0]


def test_a_changed_sum_is_found_and_named(db: Database, ledger: LedgerStore) -> None:
    ledger.append([entry(1), entry(2, admitted_us=NOW_US + DAY_US)])
    with db.write() as connection:
        connection.execute(update(ledger_days).where(ledger_days.c.day == 20_001).values(output_tokens=21))
    (fault,) = verify(db).faults
    assert fault.startswith("2024-10-05, key inf-abc of app shop, model model, target p/m: ")
    assert "output_tokens is 21 in the sums and 20 in the entries" in fault


def test_sums_without_entries_and_entries_without_sums_are_found(db: Database, ledger: LedgerStore) -> None:
    ledger.append([entry(1), entry(2, admitted_us=NOW_US + DAY_US)])
    with db.write() as connection:
        connection.execute(update(ledger_days).where(ledger_days.c.day == 20_001).values(day=20_003))
    faults = verify(db).faults
    assert any("2024-10-05" in fault and "requests is 0 in the sums" in fault for fault in faults)
    assert any("2024-10-07" in fault and "requests is 1 in the sums and 0" in fault for fault in faults)


def test_a_budget_that_is_not_the_sum_of_its_days_is_found(db: Database, ledger: LedgerStore) -> None:
    ledger.append([entry(1), entry(2, admitted_us=NOW_US + 5 * DAY_US), entry(3, app_id="other", key_id="k2")])
    with db.write() as connection:
        for name, period, starts_on, spent in (
            ("b1", "day", "2024-10-04", 30), ("b2", "total", "", 60), ("b3", "week", "2024-09-30", 30),
            ("b4", "month", "2024-10-01", 61),
        ):  # fmt: skip
            connection.execute(insert(budgets).values(id=name, period=period, **BUDGET))
            connection.execute(
                insert(budget_periods).values(budget_id=name, starts_on=starts_on, spent_nanos=spent, alerted=0)
            )
    (fault,) = verify(db).faults
    assert fault.startswith(
        "budget of app app for 2024-10-01: spent is 0.000000061 USD in the budget and 0.00000006 USD in"
    )


def test_old_entries_are_removed_their_sums_stay_and_the_rest_still_verifies(db: Database, ledger: LedgerStore) -> None:
    ledger.append([entry(number, admitted_us=NOW_US + number // 4 * DAY_US) for number in range(12)])
    before = sums(db)
    kept = NOW_US + DAY_US + 5
    assert [ledger.prune(kept, most=3), ledger.prune(kept, most=3), ledger.prune(kept, most=3)] == [3, 1, 0]
    assert [one.seq for one in ledger.entries()] == list(range(5, 13))
    assert sums(db) == before
    assert ledger.append([entry(99)]).inserted == 1
    verified = verify(db)
    assert (verified.entries, verified.last, verified.faults) == (9, 13, ())
    assert ledger.prune(NOW_US + 90 * DAY_US) == 9
    assert (verify(db).entries, verify(db).faults) == (0, ())
    ledger.append([entry(100)])
    with pytest.raises(Exception, match="append-only"), db.write() as connection:
        connection.execute(delete(ledger_entries))


def test_a_changed_sum_of_a_day_without_its_entries_is_found(db: Database, ledger: LedgerStore) -> None:
    # The second is admitted on the first day too, and comes behind one of the next day: it stays.
    ledger.append([entry(1), entry(2, admitted_us=NOW_US + DAY_US), entry(3, amount_nanos=7)])
    assert ledger.prune(NOW_US + DAY_US) == 1
    assert verify(db).faults == ()
    with db.write() as connection:
        connection.execute(update(ledger_days).where(ledger_days.c.day == 20_000).values(amount_nanos=6))
    (fault,) = verify(db).faults
    assert "amount is 0.000000006 USD in the sums and 0.000000037 USD in" in fault


@pytest.mark.parametrize("name", ["key_prefix", "app_id", "app_name", "addon_id", "attachment_id"])
def test_a_sum_that_names_another_object_than_its_entries_is_found(
    db: Database, ledger: LedgerStore, name: str
) -> None:
    ledger.append([entry(1, app_name="old"), entry(2)])
    ledger.append([entry(3, app_name="new")])
    assert verify(db).faults == ()
    for gone in (0, 3):
        with db.write() as connection:
            connection.execute(update(ledger_days).values(**{name: "else"}))
        assert any(f"{name} is else in the sums" in fault for fault in verify(db).faults)
        with db.write() as connection:
            connection.execute(update(ledger_days).values(**{name: getattr(entry(3, app_name="new"), name)}))
        assert verify(db).faults == ()
        assert ledger.prune(NOW_US + DAY_US) == 3 - gone


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (
            "UPDATE ledger_days SET amount_nanos = 1 WHERE day = 20000",
            "amount is 0.000000001 USD in the sums and 0.00000012",
        ),
        ("DELETE FROM ledger_days WHERE day = 20000", "requests is 0 in the sums and 4"),
        ("UPDATE ledger_days SET day = 19000 WHERE day = 20000", "requests is 4 in the sums and 0"),
        ("DELETE FROM ledger_seals WHERE number = 1", "seal 1 is missing"),
        ("DELETE FROM ledger_seals WHERE number = 4", "seal 3 of day 20001 was changed"),
        ("UPDATE ledger_seals SET sums = NULL WHERE number = 4", "seal 4 of day 20001 was changed"),
        ("UPDATE ledger_seals SET day = 20007 WHERE number = 3", "seal 3 of day 20007 was changed"),
    ],
)
def test_what_was_changed_about_entries_that_are_gone_is_found(
    db: Database, ledger: LedgerStore, sql: str, said: str
) -> None:
    ledger.append([entry(number, admitted_us=NOW_US + number // 4 * DAY_US) for number in range(1, 9)])
    assert [ledger.prune(NOW_US + 2 * DAY_US, most=2) for _ in range(3)] == [2, 2, 2]
    # A late one, of a day that was sealed.
    ledger.append([entry(20)])
    assert verify(db).faults == ()
    with db.write() as connection:
        connection.execute(text(sql))
    assert any(said in fault for fault in verify(db).faults), verify(db).faults


def test_a_head_that_was_kept_elsewhere_shows_what_the_database_alone_cannot(db: Database, ledger: LedgerStore) -> None:
    ledger.append([entry(number, admitted_us=NOW_US + number * DAY_US) for number in range(4)])
    ledger.prune(NOW_US + DAY_US)
    old = read_head(verify(db).head)
    ledger.append([entry(9, admitted_us=NOW_US + 9 * DAY_US)])
    known = read_head(verify(db).head)
    assert (str(known), known.entry, known.seal) == (verify(db).head, 5, 1)
    assert [verify(db, one).faults for one in (old, known)] == [(), ()]
    last = ledger.entries(after=3)[0]
    tamper(db, "DELETE FROM ledger_entries WHERE seq = 5", "DELETE FROM ledger_days WHERE day = 20009")
    with db.write() as connection:
        connection.execute(text("UPDATE ledger_head SET seq = 4, hash = :hash"), {"hash": last.hash})
    assert verify(db, old).faults == ()
    assert verify(db, known).faults == ("entry 5 is not the one of the known head",)
    ledger.prune(NOW_US + 3 * DAY_US)
    ledger.append([entry(10)])
    assert verify(db, read_head(verify(db).head)).faults == ()
    assert verify(db, read_head(f"2:{old.entry_hash.hex()}:1:ff")).faults == (
        "entry 2 of the known head is past its retention: take a head that is not so old",
        "seal 1 is not the one of the known head",
    )


def test_entries_of_a_clock_that_was_ahead_hold_no_others_up(db: Database, ledger: LedgerStore) -> None:
    ahead_us = int(time.time() * 1_000_000) + 400 * DAY_US
    ahead = [entry(number, admitted_us=ahead_us) for number in range(1, 6)]
    ledger.append([entry(0), *ahead, *(entry(number, admitted_us=NOW_US + DAY_US) for number in range(6, 10))])
    # Alone they are no older than what comes next.
    assert [ledger.prune(NOW_US + DAY_US, most=2) for _ in range(2)] == [1, 0]
    assert [ledger.prune(NOW_US + 2 * DAY_US, most=2) for _ in range(3)] == [7, 2, 0]
    ledger.append([entry(30, admitted_us=NOW_US + 3 * DAY_US)])
    assert (verify(db).entries, verify(db).faults) == (1, ())
