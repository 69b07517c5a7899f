"""What a server's connections share: limits, one timer for all their deadlines, and the drain at the end."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from penstock.domain.errors import PenstockError
from penstock.domain.value import Value
from penstock.web.exchange import App, Exchange

_SWEEP_S = 0.5
_CUT_S = 1.0
_NAME = "request"  # a task without a name is given one, which costs more

# The request id's header line and the body of what is refused before an application sees it.
Refusal = Callable[[PenstockError], tuple[str, bytes]]


class Watched(Protocol):
    """What the hub needs of a connection."""

    def check(self, now: float) -> None:
        """Look at the deadlines."""

    def drain(self) -> None:
        """Close when nothing is under way; else after the answer."""

    def abort(self) -> None:
        """Close at once."""


class HttpLimits(Value, frozen=True, kw_only=True):
    """Seconds for a head, a body, an idle connection and a client that does not read; and the most header bytes."""

    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    write_timeout_s: float = 60.0
    keep_alive_s: float = 75.0
    max_header_bytes: int = 64 * 1024


class Hub:
    """What the connections of one process share: the application, the limits, one timer for all deadlines."""

    def __init__(self, app: App, *, limits: HttpLimits, hang_up_reason: str | None, refusal: Refusal) -> None:
        self.app = app
        self.limits = limits
        self.hang_up_reason = hang_up_reason
        self.refusal = refusal
        self.loop = asyncio.get_running_loop()
        self.connections: set[Watched] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.draining = False
        self._empty = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Watched) -> None:
        """Watch this connection until it is lost."""
        self.connections.add(connection)
        if self._timer is None:
            self._timer = self.loop.call_later(_SWEEP_S, self._sweep)

    def remove(self, connection: Watched) -> None:
        """The connection is lost."""
        self.connections.discard(connection)
        self._look()

    def start(self, exchange: Exchange) -> None:
        """Run the application for a request, and know of it until it is done."""
        task = exchange.task = asyncio.Task(exchange.run(self.app), loop=self.loop, name=_NAME)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    async def emptied(self, within_s: float) -> bool:
        """Wait until no connection and no request is left; False when the time is over before."""
        if not (self.connections or self.tasks):
            return True
        self._empty.clear()
        try:
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self._look()

    def _look(self) -> None:
        if not (self.connections or self.tasks):
            self._empty.set()

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in tuple(self.connections):
            connection.check(now)
        self._timer = self.loop.call_later(_SWEEP_S, self._sweep) if self.connections else None


async def close_all(hub: Hub, bound_s: float) -> None:
    """Let open answers finish and reach their clients within the bound, then cancel; each may still say why."""
    hub.draining = True
    for connection in tuple(hub.connections):
        connection.drain()
    if await hub.emptied(bound_s):
        return
    for task in tuple(hub.tasks):
        task.cancel()
    if not await hub.emptied(_CUT_S):
        for connection in tuple(hub.connections):
            connection.abort()
        await hub.emptied(_CUT_S)
