"""Runs an ASGI application on an already bound socket until told to stop, then drains: the server of both planes."""

import asyncio
import math
import os
import socket
import time
from collections.abc import Callable

import msgspec

from penstock.domain.errors import PenstockError
from penstock.web.exchange import App
from penstock.web.http1 import HttpConnection
from penstock.web.hub import HttpLimits, Hub, Refusal, close_all


def refusal(error: PenstockError) -> tuple[str, bytes]:
    """A refusal in the data plane's shape."""
    return f"x-request-id: req_{os.urandom(12).hex()}", msgspec.json.encode(error.body())


class Server:
    """One listener on our own connections.

    ``reason`` is the message of the cancellation that an application gets when its client hangs up; None: it is left
    to end by itself. ``refusal`` is the shape of what is refused before the application sees it.
    """

    def __init__(
        self,
        app: App,
        listener: socket.socket,
        *,
        limits: HttpLimits,
        drain_s: float,
        reason: str | None = None,
        refusal: Refusal = refusal,
    ) -> None:
        self._app = app
        self._listener = listener
        self._limits = limits
        self._drain_s = drain_s
        self._reason = reason
        self._refusal = refusal
        self._stop = asyncio.Event()
        self.stopped_at = math.inf  # by the monotonic clock

    async def run(self, started: Callable[[], None]) -> None:
        """Serve until ``stop``; calls ``started`` once connections are accepted."""
        hub = Hub(self._app, limits=self._limits, hang_up_reason=self._reason, refusal=self._refusal)
        server = await hub.loop.create_server(lambda: HttpConnection(hub), sock=self._listener, backlog=2048)
        started()
        await self._stop.wait()
        server.close()
        await close_all(hub, self._drain_s)

    def stop(self) -> None:
        """Stop accepting, let open answers finish within the bound, cut the rest."""
        self.stopped_at = min(self.stopped_at, time.monotonic())
        self._stop.set()
