"""At most so many calls of one provider at once, exact over all workers of one machine, and a queue for the others.

A slot is one byte of a file that a worker holds locked; the kernel unlocks it when the worker dies, however it dies.
Such locks belong to the process and not to a descriptor: a worker remembers which bytes it holds itself, and opens the
file once, because closing any descriptor of it would drop them all.
"""

import asyncio
import fcntl
import os
from collections import deque
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import msgspec

from penstock.domain.errors import PenstockError

_POLL_S = 0.02
# Other workers look every _POLL_S for a slot. One whose queue never empties would hand its slots on for ever: once in a
# while it leaves what is free to them, for longer than they take to look.
_OWN_S = 1.0
_LEFT_S = 1.5 * _POLL_S
_RETRY_AFTER_S = 1

Free = Callable[[], None]


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
    """The slots of one provider as one worker takes them. Belongs to one event loop."""

    def __init__(self, folder: Path, provider: str, limit: Limit) -> None:
        self.limit: Limit | None = limit  # None from when a reload has taken it away
        self.held: set[int] = set()
        self._provider = provider
        self._queue: deque[asyncio.Future[Free]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._left_at = self._left_until = 0.0
        # Where the search begins: apart from other workers', so that they seldom meet.
        self._next = os.getpid() * 7919 % limit.max_concurrent
        path = folder / f"slots-{sha256(provider.encode()).hexdigest()[:16]}"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @property
    def waiting(self) -> int:
        """Requests in this worker's queue."""
        return len(self._queue)

    async def take(self) -> Free:
        """A slot, given back by calling what is returned. Raises PenstockError upstream_busy: at once when the queue is
        full, else when none became free in time."""
        free = None if self._queue else self._try()
        if free is not None:
            return free
        limit = self.limit or _NO_LIMIT
        if len(self._queue) >= limit.max_queue:
            raise self._busy("its queue is full")
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[Free] = loop.create_future()
        if not self._queue:
            self._left_at = loop.time() + _OWN_S
        self._queue.append(turn)
        self._watch()
        try:
            async with asyncio.timeout(limit.queue_timeout_s):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                turn.result()()  # it came while we were being cancelled
            if isinstance(error, TimeoutError):
                raise self._busy(f"no slot became free in {limit.queue_timeout_s:g} s") from None
            raise
        finally:
            if turn in self._queue:
                self._queue.remove(turn)

    def close(self) -> None:
        """Give everything back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _try(self) -> Free | None:
        if self.limit is None:
            return _nothing
        count = self.limit.max_concurrent
        if len(self.held) >= count or self._fd < 0:
            return None
        for at in range(self._next, self._next + count):
            slot = at % count
            if slot in self.held:
                continue
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
            except OSError:
                continue
            self.held.add(slot)
            self._next = slot
            return partial(self._release, slot)
        return None

    def _release(self, slot: int) -> None:
        if slot not in self.held:
            return
        self.held.remove(slot)
        if self._fd >= 0:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, slot)
        if self._queue and (now := asyncio.get_running_loop().time()) >= self._left_at:
            self._left_at, self._left_until = now + _OWN_S, now + _LEFT_S
        self._serve()

    def _serve(self) -> None:
        """Slots to those who wait, the first first."""
        if self._queue and asyncio.get_running_loop().time() < self._left_until:
            return
        while self._queue:
            if self._queue[0].done():
                self._queue.popleft()
            elif (free := self._try()) is not None:
                self._queue.popleft().set_result(free)
            else:
                return

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
