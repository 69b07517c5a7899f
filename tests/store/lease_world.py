"""A world around the store's leases for their model: workers that keep to the contract of an exchange and nothing more,
a ledger, a clock, and the bounds that must hold whatever they do."""

from typing import Literal

import msgspec

from penstock.domain.limits import Budget, Counter, LeaseAsk, LeaseGrant, Scope
from penstock.store.database import Database
from penstock.store.metering.leases import PERMIT_LEASE_S, LeaseStore
from penstock.store.metering.ledger import LedgerStore
from penstock.store.metering.spending import add_spent
from tests.ledger.entries import entry

LEASE_S = 2.0
MONEY_S = 60.0
WINDOW_S = 60.0
# A worker with something in use says so at least that often.
RENEWS_S = {"permit": 4.0, "money": 40.0}

Fate = Literal["answered", "answer lost", "ask lost"]


class Wish(msgspec.Struct, frozen=True):
    """What a worker asks for, and how much of what it has free it gives back by the way."""

    wants: int = 0
    needs: int = 0
    least: int = 0
    gives: int = 0


class Use(msgspec.Struct):
    """Units of a rate that one worker used at one time."""

    at: float
    units: int
    told: bool = False


class Share:
    """What one worker has of one counter: ``free`` to be used until ``until``; ``busy`` are permits in use or money
    that requests hold, ``unshipped`` money that is spent and not in the ledger yet."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.free = self.busy = self.used = self.returned = 0
        self.until = self.ends = self.applied_at = float("-inf")
        self.uses: list[Use] = []
        self.unshipped: list[int] = []
        self.asked: LeaseAsk | None = None
        # Whether the store has seen what was asked; the oldest use that is given back, by it and by the next one.
        self.delivered = False
        self.asked_oldest = self.oldest = float("inf")

    @property
    def kind(self) -> str:
        """Of its counter."""
        return self.counter.kind

    def forfeit(self, units: int) -> None:
        """Gives up some of what is free."""
        self.free -= units
        if self.kind == "money":
            self.returned += units

    def hear(self, counter: Counter) -> None:
        """The limit is another one now."""
        if counter != self.counter:
            self.forfeit(self.free)
            self.counter = counter

    def ask(self, wish: Wish, seq: int, now: float) -> LeaseAsk:
        """The ask that has no answer yet, or a new one."""
        if now >= self.until:
            self.forfeit(self.free)
        if self.asked is None:
            self.forfeit(min(wish.gives, self.free))
            if now - self.oldest >= WINDOW_S and self.kind == "rate":
                self.returned = 0
            self.asked = LeaseAsk(
                counter=self.counter,
                seq=seq,
                used=self.used,
                returned=self.returned,
                keep={"rate": self.free, "permit": self.free + self.busy, "money": self.busy}[self.kind],
                wants=wish.wants,
                needs=wish.needs,
                least=wish.least,
            )
            self.used = self.returned = 0
            self.asked_oldest, self.oldest, self.delivered = self.oldest, float("inf"), False
            for use in self.uses:
                use.told = True
        elif now - self.asked_oldest >= WINDOW_S and self.kind == "rate":
            # What was told has left the window meanwhile: taking it off would take off another use.
            self.asked = msgspec.structs.replace(self.asked, returned=0)
        return self.asked

    def answer(self, grant: LeaseGrant, until: float) -> None:
        """The answer has come."""
        assert self.asked is not None
        if self.asked.counter == self.counter:
            self.free += grant.granted
        elif self.kind == "money":
            self.returned += grant.granted
        self.asked, self.until = None, until

    def out(self, now: float) -> int:
        """What was used in the window or is still, and what may yet be used."""
        usable = self.free if now < self.until else 0
        return usable + self.busy + sum(self.unshipped) + sum(u.units for u in self.uses if u.at > now - WINDOW_S)


class Worker:
    """One holder."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seq = 0
        self.shares: dict[str, Share] = {}


class World:
    """Workers, dead and alive, over one store. ``at`` is the database's time, and ``mark`` keeps the counters of this
    world apart from those of others in the same database."""

    def __init__(self, db: Database, *, at: float, mark: str) -> None:
        self.now = at
        self.mark = mark
        self.store = LeaseStore(db, clock=lambda: self.now)
        self.ledger = LedgerStore(db, spend=add_spent)
        self.named = self.shipped = 0
        self.workers: list[Worker] = []
        self.dead: list[Worker] = []
        self.counters: dict[str, Counter] = {}
        self.highest: dict[str, int] = {}
        self.spent: dict[str, int] = {}
        for name in ("rate", "other rate", "permit", "money"):
            self.set_limit(name, 10)

    def set_limit(self, name: str, limit: int) -> None:
        """An operator sets it; workers hear of it when they hear of it."""
        if name == "money":
            subject = f"key-{self.mark}"
            budget = Budget(
                id=f"budget-{self.mark}",
                scope=Scope.KEY,
                subject_id=subject,
                period="total",
                amount_nanos=limit,
                origin="default",
            )
            made = Counter(id=f"b:{budget.id}:", kind="money", limit=limit, budget=budget)
        elif name == "permit":
            made = Counter(id=f"c:key:{self.mark}:", kind="permit", limit=limit)
        else:
            made = Counter(id=f"{name[0]}:key:{self.mark}:", kind="rate", limit=limit)
        self.counters[name] = made
        self.highest[made.id] = max(limit, self.highest.get(made.id, 0))

    def hire(self) -> Worker:
        """A new worker, that knows the limits as they are."""
        self.named += 1
        worker = Worker(f"{self.mark}-{self.named}")
        worker.shares = {name: Share(counter) for name, counter in self.counters.items()}
        self.workers.append(worker)
        return worker

    def exchange(self, worker: Worker, wishes: dict[str, Wish], fate: Fate = "answered") -> dict[str, LeaseGrant]:
        """One exchange, which may be lost on its way there or back; what the store said."""
        asks, fresh = {}, {}
        for name, wish in wishes.items():
            share = worker.shares[name]
            worker.seq += 1
            asks[name] = share.ask(wish, worker.seq, self.now)
            fresh[name] = not share.delivered
        if fate == "ask lost":
            return {}
        grants = self.store.exchange(worker.name, [*asks.values()], lease_s=LEASE_S, money_lease_s=MONEY_S)
        for (name, ask), grant in zip(asks.items(), grants, strict=True):
            share = worker.shares[name]
            lasts = {"rate": LEASE_S, "permit": PERMIT_LEASE_S, "money": MONEY_S}[share.kind]
            share.applied_at, share.ends, share.delivered = self.now, self.now + lasts, True
            assert 0 <= grant.granted <= ask.wants
            assert grant.left >= 0
            if fate == "answered":
                share.answer(grant, self.now + (MONEY_S if share.kind == "money" else LEASE_S))
            if grant.granted and fresh[name]:
                assert grant.granted >= ask.least
                late = grant.granted if fate != "answered" or ask.counter != share.counter else 0
                assert self.out(ask.counter.id) + late <= ask.counter.limit, name
        return dict(zip(asks, grants, strict=True))

    def out(self, counter_id: str) -> int:
        """What is used of a counter, spent, or may still be by anyone whose lease has not ended."""
        total = self.spent.get(counter_id, 0)
        for worker in (*self.workers, *self.dead):
            for share in worker.shares.values():
                if share.counter.id != counter_id:
                    continue
                if worker in self.dead and share.kind != "rate" and self.now >= share.ends:
                    continue
                total += share.out(self.now)
        return total

    def use(self, worker: Worker, name: str, units: int) -> None:
        """A request takes so many, if it has them."""
        share = worker.shares[name]
        if units > share.free or self.now >= share.until:
            return
        share.free -= units
        if share.kind == "rate":
            share.used += units
            share.uses.append(Use(self.now, units))
        else:
            share.busy += units

    def give_up(self, worker: Worker, name: str) -> None:
        """The last use of a rate was none after all; a permit or the money of a request is free again."""
        share = worker.shares[name]
        if share.kind != "rate":
            share.free, share.busy = share.free + share.busy, 0
            return
        uses = [use for use in share.uses if use.at > self.now - WINDOW_S + 5]
        if not uses:
            return
        use = uses[-1]
        share.uses.remove(use)
        if use.told:
            share.returned += use.units
            share.oldest = min(share.oldest, use.at)
        else:
            share.used -= use.units
            share.free += use.units

    def spend(self, worker: Worker, units: int) -> None:
        """A request ends: so much of what is held is spent."""
        share = worker.shares["money"]
        units = min(units, share.busy)
        share.free, share.busy = share.free + share.busy - units, 0
        if units:
            share.unshipped.append(units)

    def ship(self, worker: Worker) -> None:
        """The ledger gets one of the worker's entries."""
        share = worker.shares["money"]
        if not share.unshipped or (worker in self.dead and self.now >= share.ends):
            return
        self.shipped += 1
        request = f"{self.mark}-{self.shipped}"
        amount = share.unshipped.pop()
        made = entry(0, request_id=request, key_id=f"key-{self.mark}", amount_nanos=amount)
        self.ledger.append([made], holder=worker.name, money={request: (share.counter.id,)})
        self.spent[share.counter.id] = self.spent.get(share.counter.id, 0) + amount

    def die(self, worker: Worker) -> None:
        """It is killed; what it held is out until its leases end."""
        self.workers.remove(worker)
        self.dead.append(worker)

    def leave(self, worker: Worker) -> None:
        """It ends in order: all its requests have ended, everything is told and given back."""
        for name in worker.shares:
            if name == "money" or worker.shares[name].kind == "permit":
                self.give_up(worker, name)
        # What an unanswered ask brings is given back by the one behind it.
        for _ in range(2):
            self.exchange(worker, {name: Wish(gives=1_000_000) for name in worker.shares})
        self.store.leave(worker.name)
        while worker.shares["money"].unshipped:
            self.ship(worker)
        self.ledger.release(worker.name)
        self.die(worker)

    def pass_time(self, seconds: float) -> None:
        """Time moves on; who has something in use renews it meanwhile."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + RENEWS_S["permit"] - 0.5)
            for worker in self.workers:
                due = {
                    name: Wish()
                    for name, share in worker.shares.items()
                    if (share.asked or share.busy or share.unshipped)
                    and self.now - share.applied_at > RENEWS_S.get(share.kind, WINDOW_S) - 3.5
                }
                if due:
                    self.exchange(worker, due)

    def check(self) -> None:
        """What holds at all times."""
        for counter in self.counters.values():
            assert self.out(counter.id) <= self.highest[counter.id], counter.id
