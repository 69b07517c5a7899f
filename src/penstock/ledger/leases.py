"""What one worker may take of limits and budgets without asking the store for each request.

The store hands out slices of a counter (``LeaseSource.exchange``); a worker takes from its slice in memory. The sum of
the slices and of what was used never exceeds the counter's limit, so neither do the workers together.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, Protocol

from penstock.domain.errors import PenstockError
from penstock.domain.limits import Counter, LeaseAsk, LeaseGrant
from penstock.ledger.bundle import Bundle, Counters
from penstock.ledger.slices import Slice, Waiter

logger = logging.getLogger(__name__)

TICK_S = 0.5
# That many counters in one transaction of the store, each of them locked.
ASKS_AT_ONCE = 128
# An idle permit, or money, of which there is no more goes back so soon, unless the next request takes it.
_LINGER_S = 0.05
# While the store does not answer it is tried so often.
_PROBE_S = 0.25
_LOOKED_AT_ONCE = 2000


class LeaseSource(Protocol):
    """Where slices come from: the store's lease tables."""

    def exchange(
        self, holder: str, asks: Sequence[LeaseAsk], /, *, lease_s: float, money_lease_s: float
    ) -> list[LeaseGrant]:
        """Tells what was used and given back, renews what is kept, and takes more, all in one transaction; the answers
        in the order of the asks. Raises PenstockError store_unavailable."""

    def leave(self, holder: str, /) -> None:
        """The holder ends: what it holds of rates and permits goes back, money once its journal is in the ledger."""


class Leases:
    """The slices of one worker. Belongs to one event loop; the store is asked in a thread of its own, about many
    counters at once, one time after the other: who asks meanwhile is in the next one."""

    def __init__(
        self,
        source: LeaseSource,
        holder: str,
        *,
        lease_s: float = 2.0,
        money_lease_s: float = 600.0,
        on_outage: Literal["refuse", "admit"] = "refuse",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._holder = holder
        self._lease_s = lease_s
        self._money_lease_s = money_lease_s
        self._admits = on_outage == "admit"
        self._clock = clock
        self._slices: dict[str, Slice] = {}
        # Another one whenever a counter's slice is another one, for another limit, or until another time.
        self.epoch = 0
        # One for all counters: a counter that was forgotten and comes back must not repeat a number.
        self._seq = 0
        self._urgent: dict[str, Slice] = {}
        self._due: dict[str, Slice] = {}
        self._pump: asyncio.Task[None] | None = None
        self._asker = ThreadPoolExecutor(1, thread_name_prefix="leases")
        # When the store last failed to answer, while it does not.
        self._failed_at: float | None = None
        self._closed = False

    def take(self, counter: Counter, units: int) -> bool:
        """Take units from the slice in memory; False when it does not hold them, or is for another limit: then
        ``obtain`` asks the store. Never waits."""
        held = self._slices.get(counter.id)
        if held is None or held.free < units or held.limit != counter.limit or self._clock() >= held.until:
            return False
        held.free -= units
        held.used += units
        return True

    def bundle(self, counters: Counters) -> Bundle:
        """All of these counters in one pass."""
        return Bundle(self, counters, self._clock)

    def slice_of(self, counter: Counter) -> Slice | None:
        """The slice in memory, while ``epoch`` stays as it is; None when there is none, or it is for another limit."""
        held = self._slices.get(counter.id)
        return held if held is not None and held.limit == counter.limit else None

    async def obtain(self, counter: Counter, units: int, *, least: int | None = None) -> int:
        """Take units, from a larger slice if need be; how many were taken: ``units``, or fewer but at least ``least``
        when there are no more, or 0 when there are none to be had. Many callers for one counter share one exchange,
        and one that was refused lately is refused from memory for a moment. Raises PenstockError limits_unavailable
        when the store does not answer and outages refuse; where they admit, everything is granted."""
        least = units if least is None else max(1, min(least, units))
        held = self._slice(counter)
        if self.take(counter, units):
            return units
        now = self._clock()
        if now < held.refused_until and least >= held.refused_least:
            return self._take_rest(held, now, least)
        if self._closed or self._failed_at is not None:
            return self._without_store(held, units, now)
        held.wanted(units)
        waiter = Waiter(units, least, asyncio.get_running_loop().create_future())
        held.waiting.append(waiter)
        self._urgent[counter.id] = held
        self._wake()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and not waiter.future.exception():
                self.put_back(counter, waiter.future.result())
            raise

    def expect(self, counter: Counter, units: int) -> None:
        """So many units will be obtained in a moment, together with others: the next exchange brings them too. Not for
        money that is scarce, nor for what was refused lately."""
        held, now = self._slice(counter), self._clock()
        if held.lacks(units, now):
            held.expected = units
            self._urgent[counter.id] = held

    def put_back(self, counter: Counter, units: int, *, age_s: float = 0.0) -> None:
        """Units that were taken ``age_s`` ago and not used after all, a permit whose request has ended, or money that
        was held and not spent. Of a rate, what was taken about a minute ago counts no more and does not come back."""
        if units <= 0:
            return
        held = self._slices.get(counter.id) or self._slice(counter)
        if counter.kind == "rate":
            held.put_back(units, now=self._clock(), age_s=age_s)
            return
        held.free += units
        if held.left < held.short:
            self.linger(held)

    def correct(self, counter: Counter, units: int, *, age_s: float = 0.0) -> None:
        """A rate's use turned out so many units larger (smaller when negative) than what was taken ``age_s`` ago. It
        may exceed the slice: what was used was used, and later requests wait for it."""
        if units:
            held = self._slices.get(counter.id) or self._slice(counter)
            held.correct(units, now=self._clock(), age_s=age_s)

    def spend(self, counter: Counter, held: int, spent: int) -> None:
        """Of money that was held, so much is spent and the rest is free again. The ledger takes the spent part off this
        worker's slice when it has the entry."""
        its = self._slices.get(counter.id) or self._slice(counter)
        its.spend(held, spent)
        if its.left < its.short:
            self.linger(its)

    def left(self, counter: Counter) -> tuple[int, float]:
        """About how many units are left for this worker and in the store together, and after how many seconds the
        counter is full again if nothing more is taken."""
        held = self._slices.get(counter.id)
        if held is None:
            return counter.limit, 0.0
        units = held.free + held.left + counter.limit - held.limit
        return max(0, min(units, counter.limit)), held.full_in_s(self._clock())

    def frees_in_s(self, counter: Counter) -> float | None:
        """After how many seconds it may be worth asking again, for a counter that refused; None when not known, or
        when only the budget's next period frees it."""
        held = self._slices.get(counter.id)
        return held.frees_in_s(self._clock()) if held else None

    def on_hold(self, counter: Counter) -> tuple[int, int]:
        """Of a budget that refused, how much requests may give back that are open, or have just ended: in all, and at
        other workers, whose idle money is in it for a moment."""
        held = self._slices.get(counter.id)
        return (held.on_hold, held.held_elsewhere) if held else (0, 0)

    async def follow(self) -> None:
        """Renew, report and give back every half second until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            await self.renew()

    async def renew(self) -> None:
        """Renew, report and give back what is due, once, and forget the counters that are idle."""
        slices = list(self._slices.items())
        for start in range(0, len(slices), _LOOKED_AT_ONCE):
            now = self._clock()
            for id_, held in slices[start : start + _LOOKED_AT_ONCE]:
                held.tick()
                if held.is_due(now):
                    self._due[id_] = held
                elif held.is_idle(now):
                    self._slices.pop(id_, None)
                    self.epoch += 1
            # A worker with very many counters must not keep its requests waiting for this.
            await asyncio.sleep(0)
        if self._due:
            await asyncio.shield(self._wake())

    async def aclose(self) -> None:
        """Report what was used and give everything back. Nothing can be obtained any more."""
        self._closed = True
        with contextlib.suppress(asyncio.CancelledError):
            if self._pump is not None:
                await self._pump
        for held in self._slices.values():
            held.close()
        if self._failed_at is None:
            await self._close_store()
        self._asker.shutdown(wait=False)

    async def _close_store(self) -> None:
        # Twice: what was granted in answer to an ask that had been lost goes back by another one.
        for _ in range(2):
            self._due = {id_: held for id_, held in self._slices.items() if held.is_due(float("inf"))}
            await self._run()
            for held in self._slices.values():
                held.close()
        if self._failed_at is None:
            with contextlib.suppress(PenstockError):
                await asyncio.get_running_loop().run_in_executor(self._asker, self._source.leave, self._holder)

    def _slice(self, counter: Counter) -> Slice:
        held = self._slices.get(counter.id)
        if held is None:
            held = self._slices[counter.id] = Slice(counter)
        elif held.limit != counter.limit:
            held.change_limit(counter)
            self.epoch += 1
        return held

    def _take_rest(self, held: Slice, now: float, least: int) -> int:
        if now >= held.until or held.free < least:
            return 0
        units = held.free
        held.free = 0
        held.used += units
        return units

    def _without_store(self, held: Slice, units: int, now: float) -> int:
        """What a caller gets while the store does not answer. It does not wait for the store's next try."""
        if not self._closed and self._failed_at is not None and now - self._failed_at >= _PROBE_S:
            held.dirty = True
            self._due[held.counter.id] = held
            self._wake()
        if not self._admits:
            raise _unavailable()
        held.admit(units)
        return units

    def linger(self, held: Slice) -> None:
        """What is free of it, of which there is no more, goes back unless a request takes it in a moment."""
        if not held.lingers:
            held.lingers = True
            asyncio.get_running_loop().call_later(_LINGER_S, self._hand_over, held)

    def _hand_over(self, held: Slice) -> None:
        held.lingers = False
        if held.free > 0 and not self._closed:
            held.dirty = True
            self._due[held.counter.id] = held
            self._wake()

    def _wake(self) -> asyncio.Task[None]:
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._run())
        return self._pump

    async def _run(self) -> None:
        """Asks the store until nobody waits and nothing is due, or it does not answer."""
        while self._urgent or self._due:
            batch = self._batch()
            if batch and not await self._exchange(batch):
                self._due.clear()
                return

    def _batch(self) -> list[Slice]:
        """The next counters to ask for, those with waiting callers first."""
        now = self._clock()
        batch: dict[str, Slice] = {}
        while self._urgent and len(batch) < ASKS_AT_ONCE:
            id_ = next(iter(self._urgent))
            held = self._urgent.pop(id_)
            # Who came while the store was asked may have been served by its answer.
            if held.waiting or held.expected > held.free or held.is_due(now):
                batch[id_] = held
                self._due.pop(id_, None)
        while self._due and len(batch) < ASKS_AT_ONCE:
            id_ = next(iter(self._due))
            held = self._due.pop(id_)
            if held.is_due(now) or self._closed:
                batch[id_] = held
        return list(batch.values())

    async def _exchange(self, batch: list[Slice]) -> bool:
        """One exchange; whether the store answered."""
        sent_at = self._clock()
        asks = []
        for held in batch:
            self._seq += 1
            asks.append(held.ask(self._seq, sent_at))
        try:
            grants = await asyncio.get_running_loop().run_in_executor(self._asker, self._ask_source, asks)
        except PenstockError:
            self._fail(batch)
            return False
        except Exception:
            logger.exception("limits cannot be exchanged with the store")
            self._fail(batch)
            return False
        self._failed_at = None
        self.epoch += 1
        now = self._clock()
        for held, grant in zip(batch, grants, strict=True):
            lasts_s = self._money_lease_s if held.counter.kind == "money" else self._lease_s
            held.answer(grant, now=now, until=sent_at + lasts_s)
            if now >= held.until:
                # The store is slower than leases last.
                self._refuse_waiting(held)
                continue
            held.serve(now)
            if held.waiting:
                self._urgent[held.counter.id] = held
        return True

    def _ask_source(self, asks: list[LeaseAsk]) -> list[LeaseGrant]:
        return self._source.exchange(self._holder, asks, lease_s=self._lease_s, money_lease_s=self._money_lease_s)

    def _fail(self, batch: list[Slice]) -> None:
        self._failed_at = self._clock()
        for held in [*batch, *self._urgent.values()]:
            held.expected = 0
            self._refuse_waiting(held)
        self._urgent.clear()

    def _refuse_waiting(self, held: Slice) -> None:
        while held.waiting:
            waiter = held.waiting.popleft()
            if waiter.future.done():
                continue
            if self._admits:
                held.admit(waiter.units)
                waiter.future.set_result(waiter.units)
            else:
                waiter.future.set_exception(_unavailable())


def _unavailable() -> PenstockError:
    return PenstockError("limits_unavailable", "A limit cannot be checked at the moment. Try again.", retry_after_s=1)
