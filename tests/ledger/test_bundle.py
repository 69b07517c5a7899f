"""All counters of a request at once: taken together or not at all, asked for together, and a stock that one exchange
brings where there is plenty."""

import asyncio

from penstock.domain.limits import Budget, Counter, Scope
from penstock.ledger.bundle import Bundle, Counters
from tests.ledger.lease_workers import Worker, World

PLENTY = 10_000_000


def counters(*, requests: int = PLENTY, tokens: int = PLENTY, permits: int = PLENTY, money: int = PLENTY) -> Counters:
    """Of each kind that of a key and that of an app, the app's with half as much."""
    budgets = tuple(
        Budget(id=f"of-{scope}", scope=scope, subject_id="x", period="total", amount_nanos=amount, origin="default")
        for scope, amount in ((Scope.KEY, money), (Scope.APP, money // 2))
    )
    return Counters(
        permits=tuple(Counter(id=f"c:{n}", kind="permit", limit=permits // n) for n in (1, 2)),
        requests=tuple(Counter(id=f"r:{n}", kind="rate", limit=requests // n) for n in (1, 2)),
        tokens=tuple(Counter(id=f"t:{n}", kind="rate", limit=tokens // n) for n in (1, 2)),
        money=tuple(Counter(id=f"b:{one.id}:", kind="money", limit=one.amount_nanos, budget=one) for one in budgets),
    )


def obtain(world: World, worker: Worker, bundle: Bundle, its: Counters, *, tokens: int, money: int) -> None:
    """What a request does whose bundle has too little: each counter in turn."""

    async def all_of_them() -> None:
        bundle.expect(tokens, money)
        for kind, units in zip(its, (1, 1, tokens, money), strict=True):
            for counter in kind:
                assert worker.leases.take(counter, units) or await worker.leases.obtain(counter, units) == units

    world.run(all_of_them())


def stock(world: World, worker: Worker, bundle: Bundle, its: Counters) -> None:
    """Requests come until each counter has been asked for twice, and there is a stock of it."""
    for _ in range(40):
        if not bundle.take(50, 500):
            obtain(world, worker, bundle, its, tokens=50, money=500)


def free(worker: Worker, its: Counters) -> list[int]:
    """What the worker has in memory of each counter."""
    return [held.free for kind in its for one in kind if (held := worker.leases.slice_of(one)) is not None]


def test_what_is_not_there_as_a_whole_is_not_taken_at_all(world: World) -> None:
    its = counters(tokens=200)
    worker = world.hire()
    bundle = worker.leases.bundle(its)
    assert not bundle.take(60, 10)
    obtain(world, worker, bundle, its, tokens=60, money=10)
    before = free(worker, its)
    assert len(before) == 8
    # 100 are the app's limit of tokens.
    assert not bundle.take(60, 10)
    assert free(worker, its) == before


def test_what_is_settled_is_free_again_but_for_what_was_used(world: World) -> None:
    its = counters()
    worker = world.hire()
    bundle = worker.leases.bundle(its)
    stock(world, worker, bundle, its)
    before = free(worker, its)
    assert bundle.take(50, 500)
    bundle.settle(-30, 500, 200, age_s=0.0)
    after = [one - less for one, less in zip(before, (0, 0, 1, 1, 20, 20, 200, 200), strict=True)]
    assert free(worker, its) == after


def test_a_request_without_a_price_leaves_budgets_alone(world: World) -> None:
    its = counters()
    worker = world.hire()
    bundle = worker.leases.bundle(its)
    stock(world, worker, bundle, its)
    before = free(worker, its)
    assert bundle.take(5, 0)
    bundle.settle(0, 0, 0, age_s=0.0)
    assert free(worker, its)[-2:] == before[-2:]


def test_all_that_a_first_request_needs_comes_in_one_exchange(world: World) -> None:
    its = counters()
    worker = world.hire()
    obtain(world, worker, worker.leases.bundle(its), its, tokens=50, money=500)
    assert worker.line.exchanges == 1


def test_where_there_is_plenty_a_second_exchange_brings_a_stock_for_thousands(world: World) -> None:
    its = counters()
    worker = world.hire()
    bundle = worker.leases.bundle(its)
    stock(world, worker, bundle, its)
    assert worker.line.exchanges <= 6
    assert min(free(worker, its)) > PLENTY // 2 // 400


def test_of_what_is_scarce_no_stock_is_taken_beyond_what_was_used_so_far(world: World) -> None:
    its = counters(requests=100)
    worker = world.hire()
    bundle = worker.leases.bundle(its)
    for _ in range(2):
        obtain(world, worker, bundle, its, tokens=1, money=1)
    assert max(free(worker, its)[2:4]) <= 4


def test_the_poorest_in_proportion_is_told_of(world: World) -> None:
    its = counters(requests=100, tokens=1000)
    worker = world.hire()
    bundle = worker.leases.bundle(its)
    assert bundle.poorest(of_tokens=False) == (0, 100, 0.0)
    obtain(world, worker, bundle, its, tokens=50, money=1)
    assert bundle.poorest(of_tokens=False)[:2] == (1, 49)
    assert bundle.poorest(of_tokens=True)[:2] == (1, 450)


def test_a_lease_that_has_ended_gives_nothing(world: World) -> None:
    its = counters()
    worker = world.hire()
    bundle = worker.leases.bundle(its)
    stock(world, worker, bundle, its)
    assert bundle.take(1, 1)
    worker.line.away = True
    world.now += 2.5
    assert not bundle.take(1, 1)


def test_a_limit_that_has_changed_is_not_taken_from_by_its_old_bundle(world: World) -> None:
    its, less = counters(), counters(requests=2)
    worker = world.hire()
    old, new = worker.leases.bundle(its), worker.leases.bundle(less)
    stock(world, worker, old, its)
    assert old.take(1, 1)
    new.expect(1, 1)
    assert not old.take(1, 1)


def test_while_there_is_plenty_the_store_is_told_once_a_second(world: World) -> None:
    its = counters()
    worker = world.hire()
    bundle = worker.leases.bundle(its)
    stock(world, worker, bundle, its)
    before = worker.line.exchanges

    async def busy() -> None:
        for _ in range(20):
            world.now += 0.5
            assert bundle.take(1, 1)
            bundle.settle(0, 1, 1, age_s=0.1)
            await worker.leases.renew()
            await asyncio.sleep(0)

    world.run(busy())
    assert 9 <= worker.line.exchanges - before <= 11
