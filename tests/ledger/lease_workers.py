"""Workers that take from leases over a real store, with a clock that tests move and a line to the store that may lose
what is sent over it. What they use, hold and spend is counted on the side."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Literal, TypeVar

from penstock.domain.errors import PenstockError
from penstock.domain.limits import Budget, Counter, LeaseAsk, LeaseGrant, Scope
from penstock.ledger.bundle import Bundle, Counters
from penstock.ledger.leases import Leases, LeaseSource
from penstock.store.database import Database
from penstock.store.metering.leases import LeaseStore
from penstock.store.metering.ledger import LedgerStore
from penstock.store.metering.spending import add_spent
from tests.ledger.entries import entry

T = TypeVar("T")

LEASE_S = 2.0
MONEY_S = 60.0
WINDOW_S = 60.0
PERMIT_S = 5.0

Fate = Literal["answered", "answer lost", "ask lost"]


class Line:
    """The line from one worker to the store: what happens to the next exchanges, and how many got there. ``away`` loses
    all of them."""

    def __init__(self, store: LeaseSource) -> None:
        self.store = store
        self.fates: deque[Fate] = deque()
        self.away = False
        self.exchanges = 0
        self.asks: list[LeaseAsk] = []

    def exchange(
        self, holder: str, asks: Sequence[LeaseAsk], /, *, lease_s: float, money_lease_s: float
    ) -> list[LeaseGrant]:
        """One exchange, or its loss on the way there or back."""
        fate = "ask lost" if self.away else self.fates.popleft() if self.fates else "answered"
        if fate == "ask lost":
            raise _lost()
        self.exchanges += 1
        self.asks = list(asks)
        grants = self.store.exchange(holder, asks, lease_s=lease_s, money_lease_s=money_lease_s)
        if fate == "answer lost":
            raise _lost()
        return grants

    def leave(self, holder: str, /) -> None:
        """The holder ends."""
        if self.away:
            raise _lost()
        self.store.leave(holder)


def _lost() -> PenstockError:
    return PenstockError("store_unavailable", "away", retry_after_s=1)


class _Loop(asyncio.SelectorEventLoop):
    """An event loop by the clock of the world: what is due later waits until the world gets there."""

    world: "World"

    def time(self) -> float:
        return self.world.now


class Request:
    """What one request took of one counter, and when; ``over`` of it came on top, when it turned out larger."""

    def __init__(self, bundle: Bundle, worker: "Worker", counter: Counter, units: int, at: float) -> None:
        self.bundle = bundle
        self.worker = worker
        self.counter = counter
        self.units = self.took = units
        self.at = at
        self.over = 0
        self.ended = False


class Worker:
    """One worker's leases, its requests, and what it has spent that the ledger does not have."""

    def __init__(self, name: str, line: Line, leases: Leases) -> None:
        self.name = name
        self.line = line
        self.leases = leases
        self.unshipped: list[tuple[Counter, int]] = []
        self.heard_at = 0.0
        self.closed = False
        self._bundles: dict[Counter, Bundle] = {}

    def bundle(self, counter: Counter) -> Bundle:
        """What a request takes from that takes of this counter alone."""
        if counter not in self._bundles:
            kind = {"rate": "tokens", "permit": "permits", "money": "money"}[counter.kind]
            self._bundles[counter] = self.leases.bundle(Counters(**{kind: (counter,)}))
        return self._bundles[counter]


class World:
    """Workers over one store at the time ``now``."""

    def __init__(self, db: Database, *, at: float, mark: str) -> None:
        self.now = at
        self.mark = mark
        self.loop = _Loop()
        self.loop.world = self
        self.store = LeaseStore(db, clock=lambda: self.now)
        self.ledger = LedgerStore(db, spend=add_spent)
        self.named = self.shipped = 0
        self.workers: list[Worker] = []
        self.dead: list[Worker] = []
        self.requests: list[Request] = []
        self.counters: dict[str, Counter] = {}
        self.highest: dict[str, int] = {}
        self.spent = 0
        for name in ("rate", "permit", "money"):
            self.set_limit(name, 10)

    def run(self, act: Awaitable[T]) -> T:
        """What ``act`` returns, and all that is due by now."""
        return self.loop.run_until_complete(act)

    def set_limit(self, name: str, limit: int) -> None:
        """The limit of a counter; who asks from now on asks under this one."""
        made = Counter(id=f"{name}:{self.mark}", kind=name, limit=limit)  # type: ignore[arg-type]
        if name == "money":
            budget = Budget(
                id=f"budget-{self.mark}",
                scope=Scope.KEY,
                subject_id=f"key-{self.mark}",
                period="total",
                amount_nanos=limit,
                origin="default",
            )
            made = Counter(id=f"b:{budget.id}:", kind="money", limit=limit, budget=budget)
        self.counters[name] = made
        self.highest[name] = max(limit, self.highest.get(name, 0))

    def hire(self) -> Worker:
        """A new worker."""
        self.named += 1
        name = f"{self.mark}-{self.named}"
        line = Line(self.store)
        leases = Leases(line, name, lease_s=LEASE_S, money_lease_s=MONEY_S, clock=lambda: self.now)
        worker = Worker(name, line, leases)
        self.workers.append(worker)
        return worker

    def obtain(self, worker: Worker, name: str, units: int, least: int | None = None) -> Request | None:
        """A request takes so many, out of memory or from the store."""
        counter = self.counters[name]
        got = units
        bundle = worker.bundle(counter)
        one = counter.kind == "permit"
        if not (worker.leases.take(counter, units) if one and units > 1 else bundle.take(units, units)):
            bundle.expect(units, units)
            try:
                got = self.run(worker.leases.obtain(counter, units, least=least))
            except PenstockError as error:
                if error.code != "limits_unavailable":
                    raise
                return None
        if not got:
            return None
        assert (least or units) <= got <= units
        request = Request(bundle, worker, counter, got, self.now)
        self.requests.append(request)
        assert self.out(name) <= counter.limit + self.over(name), name
        return request

    def end(self, request: Request, *, used: int) -> None:
        """A request ends: of what it took it used so much."""
        self.run(self._end(request, used))

    async def _end(self, request: Request, used: int) -> None:
        leases, age_s = request.worker.leases, self.now - request.at
        assert not request.ended
        request.ended = True
        if request.counter.kind == "permit":
            if request.units == 1:
                request.bundle.settle(0, 0, 0, age_s=age_s)
            else:
                leases.put_back(request.counter, request.units)
            self.requests.remove(request)
        elif request.counter.kind == "money":
            spent = min(used, request.units)
            request.bundle.settle(0, request.units, spent, age_s=age_s)
            self.requests.remove(request)
            if spent:
                request.worker.unshipped.append((request.counter, spent))
        else:
            request.bundle.settle(used - request.units, 0, 0, age_s=age_s)
            request.units, request.over = used, max(0, used - request.took)

    def ship(self, worker: Worker) -> None:
        """The ledger gets one of the worker's entries."""
        if not worker.unshipped or self.lapsed(worker, MONEY_S):
            return
        counter, amount = worker.unshipped.pop()
        self.shipped += 1
        request = f"{self.mark}-{self.shipped}"
        made = entry(0, request_id=request, key_id=f"key-{self.mark}", amount_nanos=amount)
        self.ledger.append([made], holder=worker.name, money={request: (counter.id,)})
        self.spent += amount

    def lapsed(self, worker: Worker, lease_s: float) -> bool:
        """Whether it is dead, and its lease has ended."""
        return worker in self.dead and self.now - worker.heard_at >= lease_s

    def out(self, name: str) -> int:
        """What is used in the window, in use, held or spent."""
        total = self.spent if name == "money" else 0
        for request in self.requests:
            if request.counter.id != self.counters[name].id:
                continue
            if name == "rate":
                total += request.units if request.at > self.now - WINDOW_S else 0
            elif not self.lapsed(request.worker, PERMIT_S if name == "permit" else MONEY_S):
                total += request.units
        if name == "money":
            for worker in (*self.workers, *self.dead):
                if not self.lapsed(worker, MONEY_S):
                    total += sum(amount for _, amount in worker.unshipped)
        return total

    def over(self, name: str) -> int:
        """By how much requests in the window turned out larger than what they took."""
        recent = (request for request in self.requests if request.at > self.now - WINDOW_S)
        return sum(request.over for request in recent) if name == "rate" else 0

    def die(self, worker: Worker) -> None:
        """It is killed; its requests with it."""
        worker.line.away = True
        worker.heard_at = self.now
        self.workers.remove(worker)
        self.dead.append(worker)

    def leave(self, worker: Worker) -> None:
        """It ends in order, after its requests."""
        for request in [one for one in self.requests if one.worker is worker and one.counter.kind != "rate"]:
            self.end(request, used=0)
        self.run(worker.leases.aclose())
        worker.closed = True
        while worker.unshipped:
            self.ship(worker)
        self.ledger.release(worker.name)
        self.die(worker)

    def pass_time(self, seconds: float, *, step_s: float = 1.0) -> None:
        """Time moves on, and all workers renew by the way."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step_s)
            for worker in self.workers:
                self.run(worker.leases.renew())

    def check(self) -> None:
        """What holds at all times."""
        for name, highest in self.highest.items():
            assert self.out(name) <= highest + self.over(name), name

    def close(self) -> None:
        """Ends all threads."""
        for worker in (*self.workers, *self.dead):
            worker.line.away = True
            if not worker.closed:
                self.run(worker.leases.aclose())
        self.loop.close()
