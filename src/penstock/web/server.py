"""Runs an ASGI application on an already bound socket until told to stop, then drains."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import uvicorn

from penstock.web.protocol import GuardedProtocol


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How long idle connections live and how long open answers may take after ``stop``, in seconds."""

    keep_alive_s: float = 75.0
    drain_s: float = 30.0


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
    """One listener."""

    def __init__(
        self,
        app: Callable[..., Any],
        listener: socket.socket,
        *,
        options: ServerOptions,
        protocol: type[GuardedProtocol] | None = None,
    ) -> None:
        self._listener = listener
        self._server = _QuietServer(
            uvicorn.Config(
                app,
                loop="none",
                http=protocol or "httptools",
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=2048,
                timeout_keep_alive=max(1, int(options.keep_alive_s)),
                timeout_graceful_shutdown=max(1, int(options.drain_s)),
            )
        )

    async def run(self, started: Callable[[], None]) -> None:
        """Serve until ``stop``; calls ``started`` once connections are accepted."""
        self._server.on_started = started
        await self._server.serve(sockets=[self._listener])

    def stop(self) -> None:
        """Stop accepting, let open answers finish within the bound, cut the rest."""
        self._server.should_exit = True
