"""The counters that one kind of request takes from, taken and given back in one pass over their slices.

This is what every governed request does twice: the slices are looked up once, and again only when the worker's leases
have heard of the store, forgotten a counter or changed its limit. Whatever is not plain goes through the leases,
counter by counter.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

from penstock.domain.limits import MINUTE_S, Counter
from penstock.ledger.slices import Slice


class Counters(NamedTuple):
    """What a request takes from, by kind: one permit and one request of each, its tokens, and its money."""

    permits: tuple[Counter, ...] = ()
    requests: tuple[Counter, ...] = ()
    tokens: tuple[Counter, ...] = ()
    money: tuple[Counter, ...] = ()


class Slices(Protocol):
    """A worker's leases, as a bundle sees them (ledger/leases.py)."""

    epoch: int

    def slice_of(self, counter: Counter) -> Slice | None:
        """The slice in memory, while ``epoch`` stays as it is."""

    def linger(self, held: Slice) -> None:
        """What is free of a slice goes back soon."""

    def expect(self, counter: Counter, units: int) -> None:
        """Units will be obtained in a moment."""

    def put_back(self, counter: Counter, units: int) -> None:
        """A permit is free again."""

    def correct(self, counter: Counter, units: int, *, age_s: float) -> None:
        """A rate was used more, or less."""

    def spend(self, counter: Counter, held: int, spent: int) -> None:
        """Of money that was held, so much is spent."""

    def left(self, counter: Counter) -> tuple[int, float]:
        """Units that are left, and seconds until the counter is full."""


class Bundle:
    """Takes of all counters at once, or of none. Belongs to the leases' event loop; nothing here waits."""

    __slots__ = (
        "_clock", "_counters", "_epoch", "_leases", "_money", "_ones", "_permits", "_requests", "_scarce", "_tokens",
        "_until",
    )  # fmt: skip

    def __init__(self, leases: Slices, counters: Counters, clock: Callable[[], float]) -> None:
        self._leases = leases
        self._clock = clock
        self._counters = counters
        self._epoch = -1
        self._until = 0.0
        self._scarce = False
        # By kind, and those of which a request takes one.
        self._ones: tuple[Slice, ...] = ()
        self._permits: tuple[Slice, ...] = ()
        self._requests: tuple[Slice, ...] = ()
        self._tokens: tuple[Slice, ...] = ()
        self._money: tuple[Slice, ...] = ()

    def take(self, tokens: int, money: int) -> bool:
        """Take what one request needs; without ``money`` budgets are left alone. False when the leases in memory do not
        hold all of it: then nothing was taken."""
        if self._epoch != self._leases.epoch and not self._find():
            return False
        if self._clock() >= self._until:
            return False
        for held in self._ones:
            if held.free < 1:
                return self._undo(held, tokens, money)
            held.free -= 1
            held.used += 1
        for held in self._tokens:
            if held.free < tokens:
                return self._undo(held, tokens, money)
            held.free -= tokens
            held.used += tokens
        for held in self._money if money else ():
            if held.free < money:
                return self._undo(held, tokens, money)
            held.free -= money
            held.used += money
        return True

    def expect(self, tokens: int, money: int) -> None:
        """A request will obtain all of it: what is missing is asked for together, not one counter after the other."""
        counters = self._counters
        for kind, units in zip(counters, (1, 1, tokens, money), strict=True):
            for counter in kind if units else ():
                self._leases.expect(counter, units)

    def settle(self, tokens: int, money: int, spent: int, *, age_s: float) -> None:
        """The request has ended, ``age_s`` after it took: it used ``tokens`` more than it took (fewer when negative),
        and of the ``money`` that it held so much is spent."""
        leases = self._leases
        if self._epoch != leases.epoch and not self._find():
            self._settle_each(tokens, money, spent, age_s)
            return
        for held in self._permits:
            held.free += 1
        if tokens:
            self._correct(tokens, age_s)
        if money:
            for held in self._money:
                held.free += money - spent
                held.size -= spent
        if self._scarce:
            for held in (*self._permits, *self._money):
                if held.left < held.short:
                    leases.linger(held)

    def poorest(self, *, of_tokens: bool) -> tuple[int, int, float]:
        """Of the requests' or the tokens' counters the one that has least left in proportion: its place among them,
        about how many units are left, and after how many seconds it is full again. Only when there is one."""
        counters = self._counters.tokens if of_tokens else self._counters.requests
        if self._epoch != self._leases.epoch and not self._find():
            found = [self._leases.left(counter) for counter in counters]
            at = min(range(len(found)), key=lambda place: found[place][0] / max(counters[place].limit, 1))
            return at, *found[at]
        slices = self._tokens if of_tokens else self._requests
        at = 0
        if len(slices) > 1:
            least = math.inf
            for place, held in enumerate(slices):
                share = (held.free + held.left) / (held.limit or 1)
                if share < least:
                    at, least = place, share
        held = slices[at]
        units, limit = held.free + held.left, held.limit
        full_in_s = MINUTE_S if held.used else held.full_in_s(self._clock())
        return at, 0 if units < 0 else units if units < limit else limit, full_in_s

    def _find(self) -> bool:
        """Look the slices up; False while one of them is not there, or is for another limit."""
        counters, leases = self._counters, self._leases
        found = [leases.slice_of(counter) for kind in counters for counter in kind]
        slices = tuple(held for held in found if held is not None)
        if len(slices) < len(found):
            self._epoch = -1
            return False
        ends = itertools.accumulate(map(len, counters))
        self._permits, self._requests, self._tokens, self._money = (
            slices[end - len(kind) : end] for kind, end in zip(counters, ends, strict=True)
        )
        self._ones = self._permits + self._requests
        # What is left changes when the store is heard of, and then this is found anew.
        self._scarce = any(held.left < held.short for held in self._permits + self._money)
        self._epoch = leases.epoch
        self._until = min((held.until for held in slices), default=math.inf)
        return True

    def _undo(self, missing: Slice, tokens: int, money: int) -> bool:
        """As if nothing had been taken of the slices before the one that lacks; False."""
        for kind, taken in ((self._ones, 1), (self._tokens, tokens), (self._money, money)):
            for held in kind:
                if held is missing:
                    return False
                held.free += taken
                held.used -= taken
        return False

    def _correct(self, units: int, age_s: float) -> None:
        now = self._clock()
        for held in self._tokens:
            if -held.used <= units < 0 and now - age_s >= held.asked_at:  # mostly: nobody was told of it
                held.used += units
                held.free -= units
            else:
                held.correct(units, now=now, age_s=age_s)

    def _settle_each(self, tokens: int, money: int, spent: int, age_s: float) -> None:
        leases, counters = self._leases, self._counters
        for counter in counters.permits:
            leases.put_back(counter, 1)
        for counter in counters.tokens:
            leases.correct(counter, tokens, age_s=age_s)
        if money:
            for counter in counters.money:
                leases.spend(counter, money, spent)
