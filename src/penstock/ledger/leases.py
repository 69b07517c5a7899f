"""What one worker may take of limits and budgets without asking the store for each request.

The store hands out slices of a counter (``LeaseSource.exchange``); a worker takes from its slice in memory. The sum of
the slices and of what was used never exceeds the counter's limit, so neither do the workers together.
"""

import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from penstock.domain.limits import Counter, LeaseAsk, LeaseGrant


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
    """The slices of one worker. Belongs to one event loop; the store is asked in a thread of its own."""

    def __init__(
        self,
        source: LeaseSource,
        holder: str,
        *,
        lease_s: float = 2.0,
        money_lease_s: float = 60.0,
        on_outage: Literal["refuse", "admit"] = "refuse",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        raise NotImplementedError

    def take(self, counter: Counter, units: int) -> bool:
        """Take units from the slice in memory; False when it does not hold them, or is for another limit: then
        ``obtain`` asks the store. Never waits."""
        raise NotImplementedError

    async def obtain(self, counter: Counter, units: int, *, least: int | None = None) -> int:
        """Take units, from a larger slice if need be; how many were taken: ``units``, or fewer but at least ``least``
        when there are no more, or 0 when there are none to be had. Many callers for one counter share one exchange,
        and one that was refused lately is refused from memory for a moment. Raises PenstockError limits_unavailable
        when the store does not answer and outages refuse; where they admit, everything is granted."""
        raise NotImplementedError

    def put_back(self, counter: Counter, units: int) -> None:
        """Units that were taken and not used after all, a permit whose request has ended, or money that was held and
        not spent."""
        raise NotImplementedError

    def correct(self, counter: Counter, units: int) -> None:
        """A rate's use turned out so many units larger (smaller when negative) than what was taken. It may exceed the
        slice: what was used was used, and later requests wait for it."""
        raise NotImplementedError

    def spend(self, counter: Counter, held: int, spent: int) -> None:
        """Of money that was held, so much is spent and the rest is free again. The ledger takes the spent part off this
        worker's slice when it has the entry."""
        raise NotImplementedError

    def left(self, counter: Counter) -> tuple[int, float]:
        """About how many units are left for this worker and in the store together, and after how many seconds the
        counter is full again if nothing more is taken."""
        raise NotImplementedError

    def frees_in_s(self, counter: Counter) -> float | None:
        """After how many seconds it may be worth asking again, for a counter that refused; None when not known."""
        raise NotImplementedError

    async def follow(self) -> None:
        """Renew, report and give back every half second until cancelled."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Report what was used and give everything back."""
        raise NotImplementedError
