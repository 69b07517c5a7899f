"""A worker's slice of one counter: what it may take, what it has to tell the store, and how much it asks for.

A slice is never taken from when its lease has ended or when it was granted under another limit. Times are seconds of
the worker's monotonic clock.
"""

import asyncio
from collections import deque

import msgspec

from penstock.domain.limits import MINUTE_S, Counter, LeaseAsk, LeaseGrant

# A flood of requests that are refused asks the store so often.
REFUSED_S = 0.25
# What is in use or held is told again, lest its lease ends.
_RENEW_S = 1.0
_RENEW_MONEY_S = 5.0
_TOLD_S = 0.4
# A lease that lasts longer than this may be renewed later.
_UNTOLD_S = 1.1
# A budget with less left than for so many requests is sliced by what is needed: no worker has any of it in stock.
_PLENTY = 8
# This part of what is left is for one worker to have in stock as soon as it has used up what it had.
_SHARE = 128
# A use this old has as good as left the window: taking it off later would take off another one.
_FORGIVEN_S = MINUTE_S - 5.0


class Waiter:
    """One caller that waits for ``units``, or for fewer but at least ``least``."""

    __slots__ = ("future", "least", "units")

    def __init__(self, units: int, least: int, future: asyncio.Future[int]) -> None:
        self.units = units
        self.least = least
        self.future = future


class Slice:
    """``free`` units may be taken until ``until``; below zero they are owed. ``used`` counts what was taken since the
    last ask: of a rate it is told, else it only shows activity. ``size`` is what is held of permits and money: free or
    in use. ``asked`` is the ask that has no answer yet, ``expected`` what a caller will wait for in a moment. With
    less than ``short`` left in the store, what is free goes back as soon as no request takes it: others may be
    waiting for it."""

    __slots__ = (
        "_asked_forgiven_until",
        "_first_asked_at",
        "_forgiven_until",
        "_holds",
        "_quiet",
        "_returned",
        "_seen",
        "_stock",
        "asked",
        "asked_at",
        "counter",
        "dirty",
        "expected",
        "free",
        "frees_at",
        "full_at",
        "held_elsewhere",
        "left",
        "limit",
        "lingers",
        "refused_least",
        "refused_until",
        "short",
        "size",
        "until",
        "used",
        "waiting",
    )

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.limit = counter.limit
        self.free = self.used = self.size = self.expected = 0
        self.until = self.asked_at = float("-inf")
        self.asked: LeaseAsk | None = None
        self.dirty = self.lingers = self._quiet = False
        self._seen = -1
        self.short = 1 if counter.kind == "permit" else 0
        self.waiting: deque[Waiter] = deque()
        self.refused_until = float("-inf")
        self.refused_least = 0
        # As the store last said.
        self.left = counter.limit
        self.frees_at: float | None = None
        self.full_at = float("-inf")
        self._holds = self.held_elsewhere = 0
        self._returned = self._stock = 0
        self._first_asked_at = 0.0
        # Until when what is given back may be told, and what was in the ask that has no answer.
        self._forgiven_until = self._asked_forgiven_until = float("inf")

    def change_limit(self, counter: Counter) -> None:
        """From now on the counter has another limit: what was granted under the old one goes back."""
        self.forfeit()
        self.left = max(0, self.left + counter.limit - self.limit)
        self.counter, self.limit = counter, counter.limit
        self.refused_until = float("-inf")
        self.dirty = True

    def forfeit(self) -> None:
        """Gives up all that is free."""
        if self.counter.kind == "money":
            if self.free > 0:
                self._returned += self.free
                self.size -= self.free
                self.free = 0
            return
        self.dirty = self.dirty or self.free > 0
        if self.counter.kind == "permit":
            self.size -= self.free
        self.free = 0

    def close(self) -> None:
        """Gives up all that is free and asks for nothing more."""
        self.forfeit()
        self._stock = 0

    def put_back(self, units: int, *, now: float, age_s: float) -> None:
        """Units of a rate that were taken ``age_s`` ago and are free again."""
        untold = min(units, self.used) if now - age_s >= self.asked_at else 0
        self.used -= untold
        self.free += untold
        if units > untold and age_s < _FORGIVEN_S:
            self._returned += units - untold
            self._forgiven_until = min(self._forgiven_until, now + _FORGIVEN_S - age_s)

    def correct(self, units: int, *, now: float, age_s: float) -> None:
        """A rate's use turned out so many units larger, or smaller when negative, than what was taken ``age_s`` ago."""
        if units < 0:
            self.put_back(-units, now=now, age_s=age_s)
        else:
            self.free -= units
            self.used += units

    def spend(self, held: int, spent: int) -> None:
        """Money that was held is spent, or free again. What is spent beyond it is owed."""
        self.free += held - spent
        self.size -= spent

    def admit(self, units: int) -> None:
        """Units that the store was not asked for: they are told, or owed, when it answers again."""
        self.free -= units
        self.used += units
        self.dirty = True

    def wanted(self, units: int) -> None:
        """A caller needs so many, more than are free."""
        if self.counter.kind == "money":
            self.short = 2 * units

    def lacks(self, units: int, now: float) -> bool:
        """Whether so many should be had from the store before a caller waits for them."""
        if now < self.refused_until or (self.counter.kind == "money" and self.left < _PLENTY * units):
            return False
        return self.free < units or now >= self.until

    def tick(self) -> None:
        """Half a second has passed: money that nobody took from in it is idle."""
        self._quiet, self._seen = self.used == self._seen, self.used

    def is_due(self, now: float) -> bool:
        """Whether there is something to tell the store, though nobody waits."""
        if self.asked is not None or self.dirty:
            return True
        if self._abounds and self.until - now > _UNTOLD_S:
            return False
        if self._returned:
            return True
        since = now - self.asked_at
        if since < _TOLD_S:
            return False
        if self.counter.kind == "rate":
            return bool(self.used or self.free)
        if self.counter.kind == "permit":
            return self.free > 0 or (since >= _RENEW_S and bool(self.size or self._holds))
        return (self.free > 0 and self._idles) or (since >= _RENEW_MONEY_S and bool(self.size or self._holds))

    def is_idle(self, now: float) -> bool:
        """Whether it can be forgotten: nothing is held, owed, waited for or about to be asked for, nor was lately."""
        if self.waiting or self.expected or (self._holds and self.counter.kind == "money"):
            return False
        busy = self.asked or self.dirty or self.used or self.free or self.size or self._returned
        return not busy and now - self.asked_at > _RENEW_S

    def ask(self, seq: int, now: float) -> LeaseAsk:
        """What to ask the store now: once more what it did not answer, or how things are."""
        if now >= self.until:
            self.forfeit()
        rate = self.counter.kind == "rate"
        if self._returned and rate and now >= self._forgiven_until:
            self._returned = 0
        if self.asked is not None:
            if rate and now - self._first_asked_at >= MINUTE_S:
                self.asked = msgspec.structs.replace(self.asked, used=0, returned=0)
            elif rate and now >= self._asked_forgiven_until:
                self.asked = msgspec.structs.replace(self.asked, returned=0)
            return self.asked
        self.waiting = deque(waiter for waiter in self.waiting if not waiter.future.done())
        if self.free < 0:
            # What was owed is told now; of money the ledger tells.
            self.forfeit()
        needs, least = self._need()
        wants = needs + self._restock(needs, now)
        self.asked = LeaseAsk(
            counter=self.counter,
            seq=seq,
            used=self.used if rate else 0,
            returned=self._returned,
            # Money that is owed is wanted, not kept.
            keep=self.free if rate else self.size - (max(self.free, 0) if self.counter.kind == "money" else 0),
            wants=wants,
            needs=needs,
            least=least,
        )
        self.asked_at = self._first_asked_at = now
        self.used = self._returned = 0
        self._seen = -1
        self.expected = 0
        self._asked_forgiven_until, self._forgiven_until = self._forgiven_until, float("inf")
        self.dirty = False
        return self.asked

    def answer(self, grant: LeaseGrant, *, now: float, until: float) -> None:
        """Takes the store's answer to what was asked."""
        asked, self.asked = self.asked, None
        assert asked is not None
        if asked.counter.limit == self.limit:
            self.free += grant.granted
            if asked.counter.kind != "rate":
                self.size += grant.granted
        else:
            # Granted under a limit that is no more. The next ask does not keep it.
            self.dirty = True
            if asked.counter.kind == "money":
                self._returned += grant.granted
        self.until = until
        self.left, self._holds, self.held_elsewhere = grant.left, grant.holds, grant.held
        self.full_at = now + grant.full_in_s
        if asked.wants:
            self.frees_at = None if grant.frees_in_s is None else now + grant.frees_in_s

    def serve(self, now: float) -> None:
        """Gives to those who wait what they can have, and refuses those for whom there is not enough anywhere."""
        waiting, self.waiting = self.waiting, deque()
        for waiter in waiting:
            if waiter.future.done():
                continue
            most = self.free + self.left
            if self.free >= waiter.units:
                self._give(waiter, waiter.units)
            elif most < waiter.units and self.free >= waiter.least:
                self._give(waiter, self.free)
            elif most < waiter.least:
                self.refused_least = min(waiter.least, self.refused_least if now < self.refused_until else waiter.least)
                self.refused_until = now + REFUSED_S
                waiter.future.set_result(0)
            else:
                self.waiting.append(waiter)

    def full_in_s(self, now: float) -> float:
        """After how many seconds all that was used has come back."""
        if self.counter.kind != "rate":
            return 0.0
        return MINUTE_S if self.used else max(0.0, self.full_at - now)

    def frees_in_s(self, now: float) -> float | None:
        """After how many seconds it may be worth asking again; None when that is not known, or only the budget's next
        period frees it."""
        if self.counter.kind != "money":
            return None if self.frees_at is None else max(0.0, self.frees_at - now)
        # Held by requests under way, which rarely spend all that they hold.
        return _RENEW_S if self.free + self.left + self.on_hold >= max(self.refused_least, 1) else None

    @property
    def on_hold(self) -> int:
        """Money that requests have here and that other workers have: it may come back."""
        return max(0, self.size - self.free) + self.held_elsewhere

    def _give(self, waiter: Waiter, units: int) -> None:
        self.free -= units
        self.used += units
        waiter.future.set_result(units)

    def _need(self) -> tuple[int, int]:
        """How much is missing for all who wait, and for the most modest of them."""
        if not self.waiting:
            return max(0, self.expected - self.free), self.expected and 1
        needs = sum(waiter.units for waiter in self.waiting) - self.free
        return max(1, needs), max(1, min(waiter.least for waiter in self.waiting) - self.free)

    def _restock(self, needs: int, now: float) -> int:
        """How much more than is needed to ask for. The stock doubles each time that it did not suffice, and is a small
        share of what is left at once: as long as that is a lot, nobody misses it. What is idle goes back, and so does
        all that others may be waiting for."""
        if self.waiting and self.counter.kind == "money" and self.left < _PLENTY * self.short // 2:
            self._stock = 0
            return 0
        if self.waiting or self.expected:
            plenty = self.left // _SHARE if self.asked_at >= 0 else 0  # at first nothing is known of what is left
            self._stock = min(max(2 * self._stock, needs, plenty), max(self.limit, 0))
            return self._stock
        if now - self.asked_at < _TOLD_S and self.left >= self.short:
            return 0  # too soon to tell how much is used
        if self._idles or self.left < self.short:
            self._stock //= 2
            if self.free > 0:
                self.forfeit()
            return 0
        if self._stock > 4 * self.used:
            self._stock = 2 * self.used
        if self.free > self._stock:
            self._shed(self.free - self._stock)
        return self._stock - self.free if self.counter.kind == "rate" and 2 * self.free < self._stock else 0

    @property
    def _abounds(self) -> bool:
        """Whether so much is left that nobody misses what is told, or goes back, half a second later."""
        if self.counter.kind == "money":
            return False  # its leases are long, and what is idle goes back at once
        return self.left > _SHARE * (self.used + self._stock // 2) and self.left >= self.short

    @property
    def _idles(self) -> bool:
        return not self.used or (self.counter.kind == "money" and self._quiet and self.used == self._seen)

    def _shed(self, units: int) -> None:
        self.free -= units
        if self.counter.kind == "money":
            self._returned += units
        if self.counter.kind != "rate":
            self.size -= units
