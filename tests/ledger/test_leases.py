"""A worker's leases: one exchange for many requests, and nothing lost or doubled by an outage, a cancelled request, a
limit that changes or the worker's end."""

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import select

from penstock.domain.errors import PenstockError
from penstock.domain.limits import Budget, Counter, LeaseAsk, LeaseGrant, Scope
from penstock.ledger.leases import ASKS_AT_ONCE, Leases
from penstock.store.database import Database
from penstock.store.governance import leases as lease_rows
from tests.ledger.lease_workers import LEASE_S, MONEY_S, WINDOW_S, Fate, Line, Worker, World
from tests.postgres import Postgres

# A hundred thousand with PENSTOCK_SOAK=1.
IDLE = 100_000 if os.environ.get("PENSTOCK_SOAK") else 10_000


@pytest.fixture(params=["sqlite", "postgresql"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """The same, once on each database."""
    server: Postgres | None = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    address = server.new_database() if server is not None else tmp_path / "penstock.db"
    db = Database.open(address, home=tmp_path)
    made = World(db, at=1_800_000_000.0, mark="w")
    yield made
    made.close()
    db.close()
    if server is not None:
        server.drop(str(address))


def left(world: World, name: str) -> int:
    """What a stranger is told of how much is left in the store."""
    ask = LeaseAsk(counter=world.counters[name], seq=0)
    return world.store.exchange("stranger", [ask], lease_s=LEASE_S, money_lease_s=MONEY_S)[0].left


def refuses(world: World, worker: Worker, name: str, units: int = 1) -> bool:
    """Whether a request is refused because limits cannot be checked."""
    with pytest.raises(PenstockError) as error:
        world.run(worker.leases.obtain(world.counters[name], units))
    return (error.value.code, error.value.retry_after_s) == ("limits_unavailable", 1)


class Slow:
    """A store that has all that is asked for, and answers when it is told to."""

    def __init__(self) -> None:
        self.asks: list[LeaseAsk] = []
        self.asked, self.answer = threading.Event(), threading.Event()

    def exchange(
        self, holder: str, asks: Sequence[LeaseAsk], /, *, lease_s: float, money_lease_s: float
    ) -> list[LeaseGrant]:
        self.asks += asks
        self.asked.set()
        assert self.answer.wait(30)
        return [LeaseGrant(granted=ask.wants, left=10**9, holds=ask.keep + ask.wants) for ask in asks]

    def leave(self, holder: str, /) -> None:
        return None


def test_who_comes_while_the_store_is_asked_is_served_by_its_answer_and_asks_no_more() -> None:
    store, limit = Slow(), Counter(id="r:key:k:", kind="rate", limit=10**9)

    async def test() -> None:
        leases = Leases(store, "w")
        first = [asyncio.ensure_future(leases.obtain(limit, 1)) for _ in range(4)]
        await asyncio.to_thread(store.asked.wait, 30)
        others = [asyncio.ensure_future(leases.obtain(limit, 1)) for _ in range(4)]
        await asyncio.sleep(0)
        store.answer.set()
        assert await asyncio.gather(*first, *others) == [1] * 8
        await leases.aclose()

    asyncio.run(test())
    # One for them all, and the last word.
    assert [(ask.used, ask.needs) for ask in store.asks] == [(0, 4), (8, 0)]


def test_a_hot_key_of_eight_workers_is_exact_and_costs_no_exchange_for_each_request(both: World) -> None:
    both.set_limit("rate", 5000)
    counter, workers = both.counters["rate"], [both.hire() for _ in range(8)]
    admitted = 0

    async def client(number: int) -> None:
        nonlocal admitted
        for turn in range(250):
            both.now += 4.0 / 20_000
            leases = workers[(number + turn) % 8].leases
            got = leases.take(counter, 1) or await leases.obtain(counter, 1)
            admitted += got
            if number == turn % 80 and not turn % 8:
                await asyncio.gather(*(worker.leases.renew() for worker in workers))
            await asyncio.sleep(0)

    async def clients() -> None:
        await asyncio.gather(*(client(number) for number in range(80)))

    both.run(clients())
    assert 4950 <= admitted <= 5000
    assert sum(worker.line.exchanges for worker in workers) < 400
    # What some of them hold still is another's within a moment.
    both.pass_time(2.0, step_s=0.5)
    for worker in workers:
        while both.obtain(worker, "rate", 1):
            admitted += 1
    assert admitted == 5000


def test_callers_that_ask_at_once_share_an_exchange_and_a_refusal_is_remembered(world: World) -> None:
    worker, counter = world.hire(), world.counters["rate"]

    async def ask(count: int) -> list[int]:
        return await asyncio.gather(*(worker.leases.obtain(counter, 1) for _ in range(count)))

    assert sum(world.run(ask(300))) == counter.limit
    assert worker.line.exchanges <= 2
    before = worker.line.exchanges
    assert sum(world.run(ask(300))) == 0
    assert worker.line.exchanges == before
    world.pass_time(1.0)
    world.now += WINDOW_S + 1
    assert sum(world.run(ask(300))) == counter.limit


def test_who_asks_while_an_exchange_is_under_way_is_in_the_next_one(world: World) -> None:
    line = _Gate(world.store)
    leases = Leases(line, "gated", clock=lambda: world.now)
    counter = world.counters["rate"]

    async def test() -> None:
        first = asyncio.create_task(leases.obtain(counter, 1))
        await line.reached()
        others = [asyncio.create_task(leases.obtain(counter, 1)) for _ in range(8)]
        await asyncio.sleep(0)
        line.open()
        assert await asyncio.gather(first, *others) == [1] * 9
        assert line.exchanges == 2
        await leases.aclose()

    world.run(test())


@pytest.mark.parametrize("name", ["permit", "money"])
def test_what_is_expected_while_the_store_is_slow_is_not_forgotten_before_it_is_asked_for(
    world: World, name: str
) -> None:
    line = _Gate(world.store)
    leases = Leases(line, "gated", clock=lambda: world.now)
    counter = world.counters[name]

    async def test() -> None:
        first = asyncio.create_task(leases.obtain(world.counters["rate"], 1))
        await line.reached()
        leases.expect(counter, 1)
        renewal = asyncio.create_task(leases.renew())
        await asyncio.sleep(0)
        line.open()
        assert await first == 1
        await renewal
        assert leases.take(counter, 1)
        assert await leases.obtain(counter, counter.limit - 1) == counter.limit - 1
        await leases.aclose()

    world.run(test())


def test_what_was_expected_when_the_store_failed_is_forgotten_all_the_same(world: World) -> None:
    line = _Gate(world.store)
    line.away = True
    leases = Leases(line, "gated", clock=lambda: world.now)

    async def test() -> None:
        first = asyncio.create_task(leases.obtain(world.counters["rate"], 1))
        await line.reached()
        leases.expect(world.counters["money"], 1)
        line.open()
        with pytest.raises(PenstockError):
            await first
        await leases.renew()
        assert leases.slice_of(world.counters["money"]) is None
        await leases.aclose()

    world.run(test())


class _Gate(Line):
    """A line on which an exchange waits until it is let through."""

    def __init__(self, store: object) -> None:
        super().__init__(store)  # type: ignore[arg-type]
        self._arrived, self._open = threading.Event(), threading.Event()

    async def reached(self) -> None:
        """Once an exchange has come."""
        assert await asyncio.get_running_loop().run_in_executor(None, self._arrived.wait, 30)

    def open(self) -> None:
        """Lets all through."""
        self._open.set()

    def exchange(
        self, holder: str, asks: Sequence[LeaseAsk], /, *, lease_s: float, money_lease_s: float
    ) -> list[LeaseGrant]:
        """Waits, and goes on."""
        self._arrived.set()
        assert self._open.wait(30)
        return super().exchange(holder, asks, lease_s=lease_s, money_lease_s=money_lease_s)


@pytest.mark.parametrize("name", ["rate", "permit", "money"])
@pytest.mark.parametrize("late", [False, True])
def test_a_caller_that_is_cancelled_gives_back_what_it_got(world: World, name: str, late: bool) -> None:
    line = _Gate(world.store)
    asking: list[asyncio.Task[int]] = []

    def clock() -> float:
        # Read between the answer and its way to the caller, who is cancelled in the very same turn of the loop.
        if late and line.exchanges == 1 and asking:
            asyncio.get_running_loop().call_soon(asking.pop().cancel)
        return world.now

    leases = Leases(line, "gated", clock=clock)
    counter = world.counters[name]

    async def test() -> None:
        task = asyncio.create_task(leases.obtain(counter, counter.limit))
        asking.append(task)
        await line.reached()
        if not late:
            task.cancel()
        line.open()
        with pytest.raises(asyncio.CancelledError):
            await task
        # All of it can be had again.
        assert await leases.obtain(counter, counter.limit) == counter.limit
        assert await leases.obtain(counter, 1) == 0
        await leases.aclose()

    world.run(test())


def test_a_slice_serves_during_an_outage_until_its_lease_ends_then_requests_are_refused(world: World) -> None:
    worker = world.hire()
    assert world.obtain(worker, "rate", 2)
    worker.line.away = True
    world.now += LEASE_S - 0.1
    assert worker.leases.take(world.counters["rate"], 1)
    world.now += 0.1
    assert not worker.leases.take(world.counters["rate"], 1)
    assert refuses(world, worker, "rate")
    # It asks no more than now and then.
    assert all(refuses(world, worker, "money") for _ in range(50))
    worker.line.away = False
    world.now += 0.3
    world.run(worker.leases.renew())
    assert world.run(worker.leases.obtain(world.counters["rate"], 7)) == 7
    assert left(world, "rate") == 0


def test_where_outages_admit_all_is_told_when_the_store_is_back(world: World) -> None:
    line = Line(world.store)
    leases = Leases(line, "generous", on_outage="admit", clock=lambda: world.now)
    line.away = True
    for name in ("rate", "permit", "money"):
        assert world.run(leases.obtain(world.counters[name], 8)) == 8
        assert world.run(leases.obtain(world.counters[name], 8)) == 8
    line.away = False
    for _ in range(3):
        world.now += 0.5
        world.run(leases.renew())
    assert [left(world, name) for name in ("rate", "permit", "money")] == [0, 0, 0]
    assert world.run(leases.obtain(world.counters["permit"], 1)) == 0

    async def end() -> None:
        leases.put_back(world.counters["permit"], 16)
        leases.put_back(world.counters["money"], 16)
        await leases.aclose()

    world.run(end())
    assert [left(world, name) for name in ("rate", "permit", "money")] == [0, 10, 10]


@pytest.mark.parametrize("fate", ["answer lost", "ask lost"])
@pytest.mark.parametrize("name", ["rate", "permit", "money"])
def test_what_is_lost_on_the_line_is_neither_lost_nor_doubled(both: World, name: str, fate: Fate) -> None:
    worker = both.hire()
    first = both.obtain(worker, name, 3)
    assert first is not None
    worker.line.fates.append(fate)
    assert refuses(both, worker, name, 6)
    both.pass_time(1.0, step_s=0.5)
    assert both.obtain(worker, name, 6) is not None
    assert left(both, name) == (1 if name == "rate" else left(both, name)) <= 1
    both.end(first, used=3)
    both.leave(worker)
    heir = both.hire()
    rest = {"rate": 1, "permit": 10, "money": 7}[name]
    assert both.obtain(heir, name, rest + 1) is None
    both.now += 0.3
    assert both.obtain(heir, name, rest) is not None


def test_what_was_given_back_long_ago_is_not_taken_off_what_others_used_since(world: World) -> None:
    one, other = world.hire(), world.hire()
    request = world.obtain(one, "rate", 6)
    assert request is not None
    world.pass_time(0.6, step_s=0.6)
    world.now += 50.0
    world.end(request, used=0)
    one.line.away = True
    world.pass_time(1.0)
    world.now += 12.0
    # The six have left the window.
    assert world.obtain(other, "rate", 10) is not None
    world.pass_time(1.0)
    one.line.away = False
    world.pass_time(1.0)
    assert world.obtain(one, "rate", 1) is None


def test_units_given_back_before_they_were_told_serve_the_next_request_from_memory(world: World) -> None:
    worker = world.hire()
    request = world.obtain(worker, "rate", 4)
    assert request is not None
    before = worker.line.exchanges
    world.end(request, used=1)
    assert worker.leases.take(world.counters["rate"], 3)
    assert worker.line.exchanges == before
    world.leave(worker)
    assert left(world, "rate") == 6


def test_a_request_that_turned_out_larger_is_waited_for_by_later_ones(world: World) -> None:
    one, other = world.hire(), world.hire()
    request = world.obtain(one, "rate", 2)
    assert request is not None
    world.end(request, used=25)
    world.pass_time(1.0, step_s=0.5)
    assert world.obtain(one, "rate", 1) is None
    assert world.obtain(other, "rate", 1) is None
    assert one.leases.left(world.counters["rate"])[0] == 0
    world.now += WINDOW_S + 1
    assert world.obtain(other, "rate", 10) is not None


def test_what_is_not_spent_of_held_money_serves_the_next_request_from_memory(world: World) -> None:
    worker = world.hire()
    request = world.obtain(worker, "money", 10)
    assert request is not None
    before = worker.line.exchanges
    world.end(request, used=4)
    again = world.obtain(worker, "money", 6)
    assert again is not None
    assert worker.line.exchanges == before
    world.ship(worker)
    world.end(again, used=0)
    world.pass_time(6.0, step_s=0.5)
    assert left(world, "money") == 6
    world.pass_time(8.0)
    # It holds nothing that it would have to remember the counter for.
    assert worker.leases.left(world.counters["money"]) == (10, 0.0)


def test_a_poor_budget_gives_as_much_as_there_is_but_no_less_than_is_needed(world: World) -> None:
    worker, other = world.hire(), world.hire()
    assert world.obtain(other, "money", 6)
    few = world.obtain(worker, "money", 9, least=3)
    assert few is not None
    # The other one has nothing of so little in stock.
    assert few.units == 4
    assert world.obtain(worker, "money", 9, least=1) is None


@pytest.mark.parametrize("name", ["rate", "permit", "money"])
def test_a_lower_limit_takes_back_what_was_in_stock(world: World, name: str) -> None:
    one, other = world.hire(), world.hire()
    assert world.obtain(one, name, 2)
    assert world.obtain(one, name, 3)
    old = world.counters[name]
    world.set_limit(name, 6)
    assert not one.leases.take(world.counters[name], 1)
    assert world.obtain(other, name, 2) is None
    # Its stock goes back with the next word of it, and nothing under the new limit is lost.
    assert world.obtain(one, name, 1) is not None
    world.now += 0.3
    assert world.obtain(other, name, 1) is None
    assert not one.leases.take(old, 1)
    world.set_limit(name, 8)
    assert world.obtain(other, name, 2) is not None


def test_an_idle_permit_is_another_workers_within_a_moment(world: World) -> None:
    one, other = world.hire(), world.hire()
    world.set_limit("permit", 1)
    request = world.obtain(one, "permit", 1)
    assert request is not None
    assert world.obtain(other, "permit", 1) is None
    world.end(request, used=0)
    world.now += 0.3
    # The loop has its timers' turn, and the exchange its own.
    world.run(_turns())
    assert world.obtain(other, "permit", 1) is not None


async def _turns() -> None:
    for _ in range(20):
        await asyncio.get_running_loop().run_in_executor(None, int)


def test_a_worker_that_ends_has_told_all_it_used_and_holds_nothing(both: World) -> None:
    worker = both.hire()
    for name in both.counters:
        request = both.obtain(worker, name, 3)
        assert request is not None
        both.end(request, used=3)
    both.leave(worker)
    assert [left(both, name) for name in both.counters] == [7, 10, 7]
    with both.store._db.read() as connection:
        assert [row.holder for row in connection.execute(select(lease_rows)) if row.holder == worker.name] == []
    assert refuses(both, worker, "rate")


class _Generous:
    """A source that gives all that is wanted, and says that half of the limit is left."""

    def __init__(self) -> None:
        self.exchanges = 0
        self.fails = 0

    def exchange(
        self, _holder: str, asks: Sequence[LeaseAsk], /, *, lease_s: float, money_lease_s: float
    ) -> list[LeaseGrant]:
        """Everything."""
        self.exchanges += 1
        assert len(asks) <= ASKS_AT_ONCE
        if self.fails:
            self.fails -= 1
            raise ValueError("a defect")
        return [LeaseGrant(granted=ask.needs, left=50, holds=ask.keep + ask.needs) for ask in asks]

    def leave(self, _holder: str, /) -> None:
        """Nothing is kept."""


def test_very_many_idle_counters_are_forgotten() -> None:
    async def test() -> None:
        now, source = 0.0, _Generous()
        leases = Leases(source, "w", clock=lambda: now)
        counters = [Counter(id=f"r:key:{number}:", kind="rate", limit=100) for number in range(IDLE)]
        for start in range(0, len(counters), 2_000):
            await asyncio.gather(*(leases.obtain(one, 1) for one in counters[start : start + 2_000]))
        assert leases.left(counters[0]) != (100, 0.0)
        for _ in range(5):
            now += 2.0
            await leases.renew()
        told = source.exchanges
        assert told < 3 * IDLE / ASKS_AT_ONCE + 100
        assert all(leases.left(one) == (100, 0.0) for one in counters)
        await leases.renew()
        assert source.exchanges == told
        await leases.aclose()

    asyncio.run(test())


def test_a_defect_of_the_source_refuses_and_heals() -> None:
    async def test() -> None:
        now, source = 0.0, _Generous()
        leases = Leases(source, "w", clock=lambda: now)
        counter = Counter(id="r:key:k:", kind="rate", limit=100)
        source.fails = 1
        with pytest.raises(PenstockError, match="cannot be checked"):
            await leases.obtain(counter, 5)
        now += 0.5
        await leases.renew()
        assert await leases.obtain(counter, 5) == 5
        await leases.aclose()

    asyncio.run(test())


def test_an_answer_that_comes_after_its_lease_serves_nobody(world: World) -> None:
    line = _Slow(world)
    leases = Leases(line, "slow", clock=lambda: world.now)
    with pytest.raises(PenstockError, match="cannot be checked"):
        world.run(leases.obtain(world.counters["rate"], 1))
    line.takes_s = 0.1
    assert world.run(leases.obtain(world.counters["rate"], 1)) == 1
    world.run(leases.aclose())


class _Slow(Line):
    """A line on which time passes."""

    def __init__(self, world: World) -> None:
        super().__init__(world.store)
        self._world = world
        self.takes_s = LEASE_S

    def exchange(
        self, holder: str, asks: Sequence[LeaseAsk], /, *, lease_s: float, money_lease_s: float
    ) -> list[LeaseGrant]:
        """The answer, late."""
        grants = super().exchange(holder, asks, lease_s=lease_s, money_lease_s=money_lease_s)
        self._world.now += self.takes_s
        return grants


def test_a_counter_that_refused_says_when_it_frees(world: World) -> None:
    worker, other = world.hire(), world.hire()
    rate, money = world.counters["rate"], world.counters["money"]
    assert worker.leases.frees_in_s(rate) is None
    world.obtain(worker, "rate", 10)
    world.pass_time(0.5, step_s=0.5)
    world.now += 10
    assert world.obtain(worker, "rate", 1) is None
    assert worker.leases.frees_in_s(rate) == pytest.approx(51, abs=1.5)
    units, full_in_s = worker.leases.left(rate)
    assert units == 0
    assert full_in_s == pytest.approx(51, abs=1.5)
    held = world.obtain(other, "money", 10)
    assert held is not None
    assert world.obtain(worker, "money", 1) is None
    # Open requests hold it, and may not spend it.
    assert worker.leases.frees_in_s(money) == 1.0
    world.end(held, used=10)
    world.ship(other)
    world.now += 0.3
    assert world.obtain(worker, "money", 1) is None
    assert worker.leases.frees_in_s(money) is None


def test_a_budget_that_is_spent_frees_with_its_period_which_the_counter_does_not_foretell(world: World) -> None:
    worker = world.hire()
    budget = Budget(id="month", scope=Scope.KEY, subject_id="k", period="month", amount_nanos=0, origin="default")
    counter = Counter(id="b:month:2026-11-01", kind="money", limit=0, budget=budget, starts_on="2026-11-01")
    assert world.run(worker.leases.obtain(counter, 1)) == 0
    assert worker.leases.frees_in_s(counter) is None


@pytest.mark.parametrize("name", ["permit", "money"])
def test_what_is_granted_under_a_limit_that_changed_meanwhile_goes_back(world: World, name: str) -> None:
    worker, other = world.hire(), world.hire()
    worker.line.fates.append("answer lost")
    assert refuses(world, worker, name, 6)
    world.set_limit(name, 4)
    # It hears of the new limit before it hears what it got under the old one.
    assert refuses(world, worker, name)
    world.run(worker.leases.renew())
    assert world.obtain(worker, name, 5) is None
    world.pass_time(6.0, step_s=0.5)
    assert world.obtain(other, name, 4) is not None


def test_a_told_use_that_is_given_back_is_not_free_before_the_store_has_taken_it_off(world: World) -> None:
    worker, other = world.hire(), world.hire()
    request = world.obtain(worker, "rate", 8)
    assert request is not None
    world.pass_time(2.0, step_s=0.5)
    world.end(request, used=0)
    assert not worker.leases.take(world.counters["rate"], 1)
    world.pass_time(1.0, step_s=0.5)
    assert world.obtain(other, "rate", 10) is not None
