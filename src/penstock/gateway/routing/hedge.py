"""Hedging: when the first target's first event is late, the next target is called too, and the first event wins."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class HedgeBudget:
    """Second legs among the requests of one model at one worker, never more than their share."""

    __slots__ = ("hedged", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.hedged = 0

    def allows(self, share: float) -> bool:
        """Whether one more second leg stays within the share."""
        return self.hedged + 1 <= share * self.requests

    def take(self, share: float) -> bool:
        """Count one second leg, unless it would be over the share."""
        if not self.allows(share):
            return False
        self.hedged += 1
        return True


class Race(Generic[T]):
    """Legs that run beside each other. A leg that results in None has failed. ``give_up`` closes the result of a leg
    that came in after the winner."""

    def __init__(self, give_up: Callable[[T], Awaitable[None]]) -> None:
        self._give_up = give_up
        self._legs: set[asyncio.Task[T | None]] = set()

    def start(self, leg: Coroutine[Any, Any, T | None]) -> None:
        """One more leg."""
        self._legs.add(asyncio.create_task(leg))

    async def late(self, after_s: float) -> bool:
        """Wait so long for the legs; true when none has ended by then."""
        done, _ = await asyncio.wait(self._legs, timeout=after_s, return_when=asyncio.FIRST_COMPLETED)
        return not done

    async def winner(self) -> T | None:
        """The first result; None when every leg has failed. Raises what a leg raises."""
        while self._legs:
            done, _ = await asyncio.wait(self._legs, return_when=asyncio.FIRST_COMPLETED)
            for leg in done:
                self._legs.remove(leg)
                if (won := leg.result()) is not None:
                    return won
        return None

    async def stop(self) -> None:
        """Cancel what still runs and wait until it has let go of its connections. To be called whatever happens, and
        again when it is itself cancelled."""
        for leg in self._legs:
            leg.cancel()
        while self._legs:
            done, _ = await asyncio.wait(self._legs)
            for leg in done:
                self._legs.remove(leg)
                if not leg.cancelled() and leg.exception() is None and (late := leg.result()) is not None:
                    await self._give_up(late)
