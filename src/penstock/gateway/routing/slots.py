"""At most so many calls of one provider at once, exact over all workers of a machine, and a fair queue for the others.

A slot is one byte of a file that a worker holds locked; the kernel unlocks it when the worker dies, however it dies.
Such locks belong to the process and not to a descriptor: a worker remembers which bytes it holds itself, and opens the
file once, because closing any descriptor of it would drop them all.

Some slots may be reserved for an app: no other takes them, and the app takes them before the common ones. What is left
is shared by weight (fairness.py); what an app is served in slots of its own does not count against it there.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path

import msgspec

from penstock.domain.errors import PenstockError
from penstock.gateway.routing.fairness import FairQueue
from penstock.gateway.routing.reserves import Layout, lay_out

_POLL_S = 0.02
# Other workers look every _POLL_S for a slot. One whose queue never empties would hand its slots on for ever: once in a
# while it leaves what is free to them, for longer than they take to look.
_OWN_S = 1.0
_LEFT_S = 1.5 * _POLL_S
_RETRY_AFTER_S = 1

Free = Callable[[], None]
Turn = asyncio.Future[Free]


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """``max_concurrent`` calls at once on this machine; at each worker ``max_queue`` requests wait for a slot, each
    for ``queue_timeout_s`` at most."""

    max_concurrent: int
    max_queue: int = 100
    queue_timeout_s: float = 10.0


_NO_LIMIT = Limit(max_concurrent=1)


def _nothing() -> None:
    """There is nothing to give back."""


class Slots:
    """The slots of one provider as one worker takes them. Belongs to one event loop; ``clock`` is monotonic seconds."""

    def __init__(
        self, folder: Path, provider: str, limit: Limit, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit: Limit | None = limit  # None from when a reload has taken it away
        self.reserves: Mapping[str, int] = {}  # percent by app id; replaced, never changed
        self.held: set[int] = set()
        self._provider = provider
        self._clock = clock
        self._queue: FairQueue[Turn] = FairQueue()
        self._timer: asyncio.TimerHandle | None = None
        self._left_at = self._left_until = 0.0
        # Where the search begins: apart from other workers', so that they seldom meet.
        self._next = os.getpid() * 7919 % limit.max_concurrent
        self._laid_out: tuple[int, Mapping[str, int], Layout] | None = None
        path = folder / f"slots-{sha256(provider.encode()).hexdigest()[:16]}"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @property
    def waiting(self) -> int:
        """Requests in this worker's queue."""
        return len(self._queue)

    async def take(self, app: str = "", weight: int = 1) -> Free:
        """A slot for a request of an app, given back by calling what is returned. Raises PenstockError upstream_busy:
        at once when the queue is full and the app holds most of it, else when none became free in time, or when the
        queue is full and others have more right to it."""
        free = self._at_once(app)
        if free is not None:
            return free
        limit = self.limit or _NO_LIMIT
        if len(self._queue) >= limit.max_queue:
            self._make_room(app, weight)
        turn: Turn = asyncio.get_running_loop().create_future()
        if not self._queue:
            self._left_at = self._clock() + _OWN_S
        self._queue.add(app, weight, turn)
        self._watch()
        try:
            async with asyncio.timeout(limit.queue_timeout_s):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result()()  # it came while we were being cancelled
            if isinstance(error, TimeoutError):
                raise self._busy(f"no slot became free in {limit.queue_timeout_s:g} s") from None
            raise
        finally:
            self._queue.drop(app, turn)

    def close(self) -> None:
        """Give everything back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _at_once(self, app: str) -> Free | None:
        """A slot that nobody waits for."""
        if self.limit is None and not self._queue:
            return _nothing
        free = None if app in self._queue else self._try(self._layout().own.get(app))
        return free if free is not None or self._queue else self._try(self._layout().common)

    def _make_room(self, app: str, weight: int) -> None:
        """One out of the full queue for one of the app. Raises PenstockError when it has no more right to it."""
        turn = self._queue.yields_to(app, weight) if self._queue else None
        if turn is None:
            raise self._busy("its queue is full")
        if not turn.done():
            turn.set_exception(self._busy("its queue is full, most of it of this app"))

    def _layout(self) -> Layout:
        """Which slots are whose, from the limit and the reserves as they are now."""
        count = (self.limit or _NO_LIMIT).max_concurrent
        if self._laid_out is None or self._laid_out[0] != count or self._laid_out[1] is not self.reserves:
            self._laid_out = (count, self.reserves, lay_out(count, self.reserves))
        return self._laid_out[2]

    def _try(self, among: range | None) -> Free | None:
        """One of these slots, if one is free."""
        if self.limit is None:
            return _nothing
        if not among or len(self.held) >= self.limit.max_concurrent or self._fd < 0:
            return None
        for at in range(self._next, self._next + len(among)):
            slot = among[at % len(among)]
            if slot in self.held:
                continue
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
            except OSError:
                continue
            self.held.add(slot)
            self._next = at % len(among)
            return partial(self._release, slot)
        return None

    def _release(self, slot: int) -> None:
        if slot not in self.held:
            return
        self.held.remove(slot)
        if self._fd >= 0:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, slot)
        if self._queue and (now := self._clock()) >= self._left_at:
            self._left_at, self._left_until = now + _OWN_S, now + _LEFT_S
        self._serve()

    def _serve(self) -> None:
        """Slots to those who wait: to each app its own, then the common ones in turn."""
        if self._queue and self._clock() < self._left_until:
            return
        layout = self._layout()
        for app, own in layout.own.items():
            while app in self._queue and self._hand(app, own, counted=False):
                pass
        while self._queue and self._hand(self._queue.next_app(), layout.common, counted=True):
            pass

    def _hand(self, app: str, among: range, *, counted: bool) -> bool:
        """One of these slots to the app's first; whether there is reason to go on."""
        turn = self._queue.first(app)
        if turn.done():
            self._queue.drop(app, turn)
        elif (free := self._try(among)) is not None:
            self._queue.serve(app, counted=counted)
            turn.set_result(free)
        else:
            return False
        return True

    def _watch(self) -> None:
        """Nobody tells us of a slot that another worker gave back: while someone waits, look now and then."""
        if self._timer is None and self._queue:
            self._timer = asyncio.get_running_loop().call_later(_POLL_S, self._look)

    def _look(self) -> None:
        self._timer = None
        self._serve()
        self._watch()

    def _busy(self, why: str) -> PenstockError:
        message = f"'{self._provider}' has as many calls under way as it may have, and {why}. Wait and try again."
        return PenstockError("upstream_busy", message, retry_after_s=_RETRY_AFTER_S)
