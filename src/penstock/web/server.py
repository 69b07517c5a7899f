"""Runs ASGI applications on already bound sockets until told to stop, then drains: one server for each plane."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from penstock.web.exchange import App
from penstock.web.http1 import HttpConnection
from penstock.web.hub import HttpLimits, Hub, close_all

_KEEP_ALIVE_S = 75


class DataServer:
    """The data plane's listener, on our own connections."""

    def __init__(self, app: App, listener: socket.socket, *, limits: HttpLimits, drain_s: float, reason: str) -> None:
        self._app = app
        self._listener = listener
        self._limits = limits
        self._drain_s = drain_s
        self._reason = reason
        self._stop = asyncio.Event()

    async def run(self, started: Callable[[], None]) -> None:
        """Serve until ``stop``; calls ``started`` once connections are accepted.

        ``reason`` is the message of the cancellation that an application gets when its client hangs up.
        """
        hub = Hub(self._app, limits=self._limits, hang_up_reason=self._reason)
        server = await hub.loop.create_server(lambda: HttpConnection(hub), sock=self._listener, backlog=2048)
        started()
        await self._stop.wait()
        server.close()
        await close_all(hub, self._drain_s)

    def stop(self) -> None:
        """Stop accepting, let open answers finish within the bound, cut the rest."""
        self._stop.set()


class _QuietServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.on_started: Callable[[], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, and say so."""
        await super().startup(sockets=sockets)
        if self.started and self.on_started is not None:
            self.on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the process that owns them."""
        yield


class Server:
    """The control plane's listener, on the server library."""

    def __init__(self, app: Callable[..., Any], listener: socket.socket, *, drain_s: float) -> None:
        self._listener = listener
        self._server = _QuietServer(
            uvicorn.Config(
                app,
                loop="none",
                http="httptools",
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=2048,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, int(drain_s)),
            )
        )

    async def run(self, started: Callable[[], None]) -> None:
        """Serve until ``stop``; calls ``started`` once connections are accepted."""
        self._server.on_started = started
        await self._server.serve(sockets=[self._listener])

    def stop(self) -> None:
        """Stop accepting, let open answers finish within the bound, cut the rest."""
        self._server.should_exit = True
