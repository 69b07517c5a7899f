"""What the store hands out of limits and budgets, case by case and in races, on both databases."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from penstock.domain.limits import Budget, Counter, LeaseAsk, LeaseGrant, Scope, granted_of
from penstock.store.database import Database
from penstock.store.governance import lease_usage, leases
from penstock.store.metering.budgets import BudgetStore
from penstock.store.metering.leases import LeaseStore
from penstock.store.metering.ledger import LedgerStore
from penstock.store.metering.spending import add_spent
from penstock.store.nouns.stores import Stores
from tests.ledger.entries import entry
from tests.postgres import Postgres
from tests.store.nouns import add_all

RATE = Counter(id="r:key:k:", kind="rate", limit=100)
PERMIT = Counter(id="c:key:k:", kind="permit", limit=4)
_BUDGET = Budget(id="budget", scope=Scope.KEY, subject_id="key", period="total", amount_nanos=1000, origin="default")
MONEY = Counter(id="b:budget:", kind="money", limit=1000, budget=_BUDGET)


class Bank:
    """A store of leases at a time that the test sets, and every holder's numbers."""

    def __init__(self, db: Database) -> None:
        self.now = 1_800_000_000.0
        self.db = db
        self.store = LeaseStore(db, clock=lambda: self.now)
        self.ledger = LedgerStore(db, spend=add_spent)
        self.seq = 0

    def ask(self, holder: str, counter: Counter, wants: int = 0, **fields: Any) -> LeaseGrant:
        """One new ask, for all of what it wants unless ``least`` says less."""
        self.seq += 1
        said = {"needs": wants, "least": wants} | fields
        return self.again(holder, LeaseAsk(counter=counter, seq=self.seq, wants=wants, **said))

    def again(self, holder: str, *asks: LeaseAsk) -> LeaseGrant:
        """Those asks as they are; the first one's answer."""
        return self.store.exchange(holder, asks, lease_s=2.0, money_lease_s=60.0)[0]

    def charge(self, holder: str, number: int, amount: int) -> None:
        """The ledger gets an entry of the holder's."""
        made = entry(number, amount_nanos=amount)
        self.ledger.append([made], holder=holder, money={made.request_id: (MONEY.id,)})

    def rows(self) -> set[tuple[str, str]]:
        """Who has a row of what."""
        with self.db.read() as connection:
            return {(row.counter, row.holder) for row in connection.execute(select(leases))}


@pytest.fixture
def bank(db: Database) -> Bank:
    return Bank(db)


def test_what_holders_get_of_a_rate_is_its_limit_together(bank: Bank) -> None:
    assert bank.ask("a", RATE, 60).granted == 60
    refused = bank.ask("b", RATE, 60)
    assert (refused.granted, refused.left) == (0, 40)
    few = bank.ask("b", RATE, 60, least=10)
    assert (few.granted, few.left, few.holds) == (40, 0, 40)
    # What is given back is another's, and what was used is nobody's.
    assert bank.ask("a", RATE, used=50, keep=0).left == 10
    assert bank.ask("c", RATE, 10).granted == 10


def test_a_use_leaves_the_window_a_minute_after_it_was_told_and_no_sooner(bank: Bank) -> None:
    bank.now += 0.9
    bank.ask("a", RATE, 100)
    bank.ask("a", RATE, used=70)
    bank.now += 30
    bank.ask("a", RATE, used=0)
    for _ in range(3):
        refused = bank.ask("b", RATE, 31)
        assert (refused.granted, refused.left) == (0, 30)
        assert refused.frees_in_s is not None
        assert refused.full_in_s == refused.frees_in_s
        bank.now += refused.frees_in_s - 0.01
        if refused.frees_in_s < 0.02:
            break
    bank.now += 0.02
    assert bank.ask("b", RATE, 100).granted == 100
    assert 1_800_000_000.9 + 60 <= bank.now < 1_800_000_000.9 + 62


def test_a_dead_holder_of_a_rate_may_have_used_all_until_its_lease_ended(bank: Bank) -> None:
    bank.ask("dead", RATE, 100)
    bank.now += 61.9
    assert bank.ask("heir", RATE, 1).granted == 0
    bank.now += 0.2
    assert bank.ask("heir", RATE, 100).granted == 100


def test_a_dead_holders_permits_come_back_after_five_seconds(bank: Bank) -> None:
    bank.ask("dead", PERMIT, 4)
    bank.now += 4.9
    assert bank.ask("heir", PERMIT, 1).granted == 0
    bank.now += 0.2
    assert bank.ask("heir", PERMIT, 4).granted == 4


def test_permits_in_use_stay_in_use_though_their_lease_ended(bank: Bank) -> None:
    bank.ask("a", PERMIT, 3)
    bank.now += 6
    renewed = bank.ask("a", PERMIT, keep=3)
    assert (renewed.holds, renewed.left) == (3, 1)
    assert bank.ask("b", PERMIT, 2).granted == 0
    assert bank.ask("b", PERMIT, 1).granted == 1


def test_money_that_is_spent_or_held_is_the_amount_together(bank: Bank) -> None:
    bank.ask("a", MONEY, 600)
    assert bank.ask("b", MONEY, 500).granted == 0
    assert bank.ask("b", MONEY, 500, least=300).granted == 400
    bank.charge("a", 1, 250)
    after = bank.ask("a", MONEY, keep=0)
    assert (after.spent, after.holds, after.held, after.left) == (250, 350, 400, 0)
    assert bank.ask("a", MONEY, returned=350).left == 350
    assert bank.ask("c", MONEY, 350).granted == 350
    assert bank.ask("c", MONEY, 1).granted == 0


def test_a_dead_holders_money_comes_back_with_its_journal_or_when_its_lease_ends(bank: Bank) -> None:
    for holder in ("dead", "gone"):
        bank.ask(holder, MONEY, 500)
    bank.charge("dead", 1, 100)
    bank.ledger.release("dead")
    assert bank.ask("heir", MONEY, 401).granted == 0
    assert bank.ask("heir", MONEY, 400).granted == 400
    bank.now += 59.9
    bank.ask("heir", MONEY)
    assert bank.ask("heir", MONEY, 1).granted == 0
    bank.now += 0.2
    assert bank.ask("heir", MONEY, 500).granted == 500


def test_money_that_a_holder_could_not_renew_is_still_its_own_unless_others_took_it(bank: Bank) -> None:
    bank.ask("slow", MONEY, 600)
    bank.now += 61
    assert bank.ask("quick", MONEY, 500).granted == 500
    slow = bank.ask("slow", MONEY, 1, keep=600)
    assert (slow.granted, slow.holds, slow.left) == (0, 600, 0)
    assert bank.ask("quick", MONEY, 1).granted == 0
    # Where its row is gone as well, it says itself what its requests hold.
    bank.ledger.release("slow")
    assert bank.ask("slow", MONEY, keep=200).holds == 200
    assert bank.ask("quick", MONEY, 301).granted == 0
    assert bank.ask("quick", MONEY, 300).granted == 300


@pytest.mark.parametrize("counter", [RATE, PERMIT, MONEY], ids=lambda counter: counter.kind)
def test_an_ask_that_comes_twice_is_answered_alike_and_done_once(bank: Bank, counter: Counter) -> None:
    bank.ask("a", counter, 4)
    keep = {"rate": 1, "permit": 1, "money": 0}[counter.kind]
    ask = LeaseAsk(
        counter=counter,
        seq=50,
        used=2 * (counter is RATE),
        returned=3 * (counter is MONEY),
        keep=keep,
        wants=2,
        needs=2,
    )
    first = bank.again("a", ask)
    bank.now += 1
    assert bank.again("a", ask).granted == first.granted == 2
    assert bank.again("a", ask).holds == first.holds == 3
    assert bank.again("a", ask).left == first.left
    # Another holder's ask of the same number is another ask.
    assert bank.again("b", LeaseAsk(counter=counter, seq=50, wants=1, needs=1)).holds == 1


@pytest.mark.parametrize("counter", [RATE, MONEY], ids=lambda counter: counter.kind)
def test_an_ask_that_comes_twice_gets_what_it_got_though_less_is_left_by_now(bank: Bank, counter: Counter) -> None:
    ask = LeaseAsk(counter=counter, seq=50, wants=50, needs=2, least=2)
    first = bank.again("a", ask)
    assert first.granted > 20
    assert bank.ask("b", counter, first.left).granted == first.left
    assert bank.again("a", ask).granted == first.granted
    assert bank.ask("c", counter, 1).granted == 0


def test_an_answer_lost_for_longer_than_the_lease_is_given_anew_if_there_is_enough(bank: Bank) -> None:
    bank.ask("a", RATE, 10)
    ask = LeaseAsk(counter=RATE, seq=50, used=10, wants=80, needs=80, least=80)
    assert bank.again("a", ask).granted == 80
    bank.now += 63
    assert bank.ask("b", RATE, 50).granted == 50
    assert bank.again("a", ask).granted == 0


def test_what_is_returned_is_taken_off_the_oldest_use_in_the_window(bank: Bank) -> None:
    bank.ask("a", RATE, 100)
    bank.ask("a", RATE, used=40, keep=60)
    bank.now += 40
    bank.ask("a", RATE, used=40, keep=20)
    # Off the later one it would be missing when the earlier one has left the window, used as it was.
    assert bank.ask("a", RATE, returned=30, keep=0).left == 50
    bank.now += 21
    assert bank.ask("a", RATE).left == 60
    assert bank.ask("a", RATE, returned=1_000).left == 100


def test_under_a_lower_limit_nothing_is_granted_until_enough_has_come_back(bank: Bank) -> None:
    lower = Counter(id=RATE.id, kind="rate", limit=30)
    bank.ask("a", RATE, 80)
    refused = bank.ask("b", lower, 1)
    assert (refused.granted, refused.left) == (0, 0)
    assert bank.ask("a", lower, used=20, keep=0).left == 10
    assert bank.ask("b", lower, 10).granted == 10


def test_who_leaves_gives_back_rates_and_permits_and_money_only_with_the_journal(bank: Bank) -> None:
    for holder in ("a", "b"):
        bank.ask(holder, RATE, 10)
        bank.ask(holder, PERMIT, 1)
        bank.ask(holder, MONEY, 100)
    bank.store.leave("a")
    assert bank.rows() == {(MONEY.id, "a"), (RATE.id, "b"), (PERMIT.id, "b"), (MONEY.id, "b")}
    bank.ledger.release("a")
    assert {holder for _, holder in bank.rows()} == {"b"}


@pytest.mark.parametrize("step", [-30, -3600, -86_400 * 400])
def test_a_clock_that_is_set_back_blocks_no_limit_for_longer_than_a_window(bank: Bank, step: int) -> None:
    for _ in range(5):
        bank.now += 1
        bank.ask("one", RATE, 20)
        bank.ask("one", RATE, used=20)
    bank.ask("dead", PERMIT, 4)
    bank.now += step
    # Exact: all of it was used in the last seconds.
    assert bank.ask("one", RATE, 1).granted == 0
    assert bank.ask("one", RATE, 1).full_in_s == pytest.approx(60, abs=2)
    assert bank.ask("one", PERMIT, 1).granted == 0
    bank.now += 59
    assert bank.ask("one", RATE, 1).granted == 0
    bank.now += 4
    assert bank.ask("one", RATE, 100).granted == 100
    assert bank.ask("one", PERMIT, 4).granted == 4


def test_a_dead_holder_of_before_the_clock_was_set_back_keeps_nothing_for_long(bank: Bank) -> None:
    bank.ask("dead", RATE, 100)
    bank.ask("dead", MONEY, 1000)
    bank.now -= 30 * 86_400
    bank.ask("one", MONEY, 1)
    assert bank.ask("one", RATE, 1).granted == 0
    bank.now += 121
    assert bank.ask("one", RATE, 100).granted == 100
    assert bank.ask("one", MONEY, 1).granted == 0
    bank.now += 86_400
    assert bank.ask("one", MONEY, 1000).granted == 1000


def test_rows_that_count_no_more_are_removed_and_others_are_not(bank: Bank, db: Database) -> None:
    bank.ask("a", RATE, 10)
    bank.ask("a", RATE, used=10)
    bank.ask("a", MONEY, 100)
    bank.now += 121
    bank.ask("b", PERMIT, 1)
    bank.now += 11
    bank.ask("b", PERMIT, keep=1)
    with db.read() as connection:
        assert connection.execute(select(func.count()).select_from(lease_usage)).scalar() == 0
    assert (MONEY.id, "a") in bank.rows()
    bank.now += 350
    bank.ask("b", PERMIT, keep=1)
    assert bank.rows() == {(PERMIT.id, "b")}


def test_a_budget_set_in_the_middle_of_its_period_begins_with_what_the_ledger_has(bank: Bank) -> None:
    bank.ledger.append([entry(1, amount_nanos=300), entry(2, amount_nanos=999, key_id="other")])
    assert bank.ask("a", MONEY, 701).granted == 0
    granted = bank.ask("a", MONEY, 700)
    assert (granted.granted, granted.spent) == (700, 300)


def test_a_default_budget_counts_again_once_an_operators_own_is_removed(stores: Stores) -> None:
    add_all(stores)
    key = stores.keys.add(stores.attachments.list()[0].id).key.id
    budget = Budget(id="budget", scope=Scope.KEY, subject_id=key, period="total", amount_nanos=1000, origin="default")
    counter = Counter(id="b:budget:", kind="money", limit=1000, budget=budget)
    bank = Bank(stores.db)
    bank.ask("a", counter, 500)
    made = entry(1, key_id=key, amount_nanos=500)
    bank.ledger.append([made], holder="a", money={made.request_id: (counter.id,)})
    own = BudgetStore(stores.db).put(Budget(id="", scope=Scope.KEY, subject_id=key, period="total", amount_nanos=9000))
    assert own.id == budget.id
    BudgetStore(stores.db).remove(own.id)
    assert bank.ask("a", counter, 501).granted == 0
    assert bank.ask("a", counter, 500).granted == 500
    made = entry(2, key_id=key, amount_nanos=500)
    bank.ledger.append([made], holder="a", money={made.request_id: (counter.id,)})
    assert (bank.ask("a", counter, 1).granted, bank.ask("a", counter).spent) == (0, 1000)


_units = st.integers(0, 200)


@given(wants=_units, needs=_units, least=_units, free=st.integers(-50, 200))
def test_a_grant_is_within_what_is_free_and_what_is_wanted_and_leaves_some_to_others(
    wants: int, needs: int, least: int, free: int
) -> None:
    ask = LeaseAsk(counter=RATE, seq=1, wants=wants, needs=min(needs, wants), least=min(least, needs, wants))
    granted = granted_of(ask, free)
    assert 0 <= granted <= min(wants, max(free, 0))
    if granted:
        assert granted >= ask.least
        stock = granted - max(min(max(ask.needs, ask.least), free), 0)
        assert stock <= max(1, free // 4)
    elif wants and free > 0:
        assert free < ask.least


_RACERS = 6


@pytest.fixture
def opened(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Database]]:
    """Opens one database as often as it is called, as processes do."""
    databases = []
    server: Postgres | None = request.getfixturevalue("postgres") if kind == "postgresql" else None
    address = server.new_database() if server is not None else tmp_path / "penstock.db"

    def another() -> Database:
        databases.append(Database.open(address, home=tmp_path))
        return databases[-1]

    yield another
    for database in databases:
        database.close()
    if server is not None:
        server.drop(str(address))


class Ring:
    """What racing holders have of some counters together. ``most`` is the most that was ever out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.out: dict[str, int] = {}
        self.most: dict[str, int] = {}

    def add(self, counter: Counter, units: int) -> None:
        """So many more are out, or fewer."""
        with self._lock:
            now = self.out[counter.id] = self.out.get(counter.id, 0) + units
            self.most[counter.id] = max(now, self.most.get(counter.id, 0))


def test_holders_that_race_for_the_same_counters_neither_lock_up_nor_exceed_a_limit(
    opened: Callable[[], Database],
) -> None:
    counters = [
        *(Counter(id=f"r:key:{number}:", kind="rate", limit=150) for number in range(3)),
        *(Counter(id=f"c:key:{number}:", kind="permit", limit=5) for number in range(3)),
        MONEY,
    ]
    ring, start = Ring(), threading.Barrier(_RACERS)

    def race(number: int) -> None:
        dice, store = random.Random(number), LeaseStore(opened())
        held = {counter.id: 0 for counter in counters}
        start.wait(30)
        for seq in range(15):
            some = dice.sample(counters, dice.randint(1, len(counters)))
            asks = []
            for counter in some:
                # All of what it had of a rate was used; of the others it gives some back before it says so.
                back = dice.randint(0, held[counter.id]) if counter.kind != "rate" else 0
                ring.add(counter, -back)
                held[counter.id] -= back
                asks.append(
                    LeaseAsk(
                        counter=counter,
                        seq=seq,
                        used=held[counter.id] if counter.kind == "rate" else 0,
                        returned=back if counter.kind == "money" else 0,
                        keep=held[counter.id] if counter.kind == "permit" else 0,
                        wants=dice.randint(0, 15),
                        needs=1,
                    )
                )
            for counter, grant in zip(
                some, store.exchange(str(number), asks, lease_s=2, money_lease_s=60), strict=True
            ):
                held[counter.id] = grant.granted + (held[counter.id] if counter.kind != "rate" else 0)
                ring.add(counter, grant.granted)

    with ThreadPoolExecutor(_RACERS) as pool:
        for done in [pool.submit(race, number) for number in range(_RACERS)]:
            done.result(60)
    for counter in counters:
        assert 0 < ring.most[counter.id] <= counter.limit
    # They wanted more than there is.
    assert [ring.most[counter.id] for counter in counters[:3]] == [150] * 3


def test_the_ledger_and_the_holders_move_the_same_money_at_once(opened: Callable[[], Database]) -> None:
    first = opened()
    for holder in "012":
        LeaseStore(first).exchange(holder, [LeaseAsk(counter=MONEY, seq=0)], lease_s=2, money_lease_s=60)
    start = threading.Barrier(_RACERS)
    charged: list[int] = []

    def race(number: int) -> None:
        db = opened()
        store, ledger = LeaseStore(db), LedgerStore(db, spend=add_spent)
        holder = str(number // 2)
        start.wait(30)
        for turn in range(15):
            if number % 2:
                made = entry(number * 100 + turn, amount_nanos=1)
                ledger.append([made], holder=holder, money={made.request_id: (MONEY.id,)})
                charged.append(1)
            else:
                ask = LeaseAsk(counter=MONEY, seq=turn + 1, wants=10, needs=10)
                store.exchange(holder, [ask], lease_s=2, money_lease_s=60)

    with ThreadPoolExecutor(_RACERS) as pool:
        for done in [pool.submit(race, number) for number in range(_RACERS)]:
            done.result(60)
    with first.read() as connection:
        held = connection.execute(select(func.sum(leases.c.granted)).where(leases.c.counter == MONEY.id)).scalar_one()
    ask = LeaseAsk(counter=MONEY, seq=1)
    after = LeaseStore(first).exchange("last", [ask], lease_s=2, money_lease_s=60)[0]
    assert after.spent == len(charged) == 45
    # Granted 15 times 10 to each of three, less what the ledger has taken off.
    assert held == after.held == 450 - 45
