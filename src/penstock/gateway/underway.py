"""What a worker remembers of its keys' requests: those that are open, so that they can be cut, and each key's last."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from penstock.domain.errors import PenstockError
from penstock.domain.platform import Principal

_log = logging.getLogger("penstock.gateway")

# The message with which the HTTP edge cancels a request whose client has hung up.
DISCONNECTED = "disconnected"
# The messages with which a request is cancelled whose key is gone; each is the public code that its client reads.
KEY_REVOKED = "key_revoked"
KEY_EXPIRED = "expired_api_key"
# Nobody is left to answer: what a request is cut with when it is not our doing.
LEFT = frozenset({DISCONNECTED, KEY_REVOKED, KEY_EXPIRED})
_SAID = {
    KEY_REVOKED: "This API key was revoked while its request was open; what arrived is incomplete.",
    KEY_EXPIRED: "This API key has expired. Make or rotate one: penstock keys:rotate ALIAS -a APP",
}

EXPIRY_S = 0.25
FLUSH_S = 10.0
_MAX_NOTES = 100_000
_BATCH = 1_000
_NEVER = float("inf")


def gone(code: str) -> PenstockError:
    """The refusal for a key that was revoked or has expired."""
    return PenstockError(code, _SAID[code])


class Underway:
    """The open requests of one worker, each a task with whom it is for."""

    def __init__(self) -> None:
        self._open: dict[asyncio.Task[Any], Principal] = {}
        self._next_expiry = _NEVER

    def enter(self, principal: Principal, task: asyncio.Task[Any] | None = None) -> asyncio.Task[Any]:
        """From here on the task's request, the current one's by default, is cut when its key goes; give the task to
        ``leave``."""
        task = task or asyncio.current_task()
        if task is None:
            raise RuntimeError("a request is served by a task of its own")
        self._open[task] = principal
        if principal.expires_at is not None:
            self._hold(task, principal)
        return task

    def leave(self, task: asyncio.Task[Any]) -> None:
        """The request has ended."""
        self._open.pop(task, None)

    def hashes(self) -> set[bytes]:
        """The keys that have open requests."""
        return {principal.key_hash for principal in self._open.values()}

    def review(self, asked: Collection[bytes], found: Mapping[bytes, Principal]) -> None:
        """Cut the requests of keys in ``asked`` that are not in ``found``; the others go on as what they are now."""
        for task, principal in tuple(self._open.items()):
            if principal.key_hash in asked:
                now = found.get(principal.key_hash)
                if now is None:
                    self._cut(task, KEY_REVOKED)
                else:
                    self._hold(task, now)

    async def expire(self) -> None:
        """Cut requests as their keys expire, until cancelled; it needs no database."""
        while True:
            await asyncio.sleep(EXPIRY_S)
            now = time.time()
            if now < self._next_expiry:
                continue
            self._next_expiry = _NEVER
            for task, principal in tuple(self._open.items()):
                if principal.expires_at is not None and principal.expires_at <= now:
                    self._cut(task, KEY_EXPIRED)
                else:
                    self._hold(task, principal)

    def _hold(self, task: asyncio.Task[Any], principal: Principal) -> None:
        self._open[task] = principal
        if principal.expires_at is not None and principal.expires_at < self._next_expiry:
            self._next_expiry = principal.expires_at

    def _cut(self, task: asyncio.Task[Any], code: str) -> None:
        # Taken out at once: a second cancellation would cut the error that the first one sends.
        del self._open[task]
        task.cancel(code)


class Uses:
    """When each key was last used at this worker, written to the store now and then instead of by each request."""

    def __init__(self, write: Callable[[Mapping[str, float]], None], *, every_s: float = FLUSH_S) -> None:
        self._write = write
        self._every_s = every_s
        self.seen: dict[str, float] = {}  # key id to Unix time, one store per request

    async def follow(self) -> None:
        """Write every ``every_s`` until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.flush()

    async def flush(self) -> None:
        """Write what has been seen, in batches; what the store does not take stays for the next time, in bounded
        number, the latest first."""
        taken, self.seen = self.seen, {}
        left = sorted(taken)  # one order in all workers, so that no two can wait for each other's rows
        try:
            while left:
                await asyncio.to_thread(self._write, {key_id: taken[key_id] for key_id in left[:_BATCH]})
                del left[:_BATCH]
        except Exception as error:  # noqa: BLE001 - whatever the store raises, serving goes on
            _log.warning("the last use of keys cannot be written, tried again later: %s", type(error).__name__)
            kept = {key_id: taken[key_id] for key_id in left} | self.seen
            latest = sorted(kept, key=kept.__getitem__, reverse=True)[:_MAX_NOTES]
            self.seen = {key_id: kept[key_id] for key_id in latest}
