"""The hot path's upstream client: pooled keep-alive connections on httptools, with timeouts and limits.

Why our own: on this path a stock client costs more than the rest of the gateway (bench/clients.py). Everything that
is not the hot path uses a stock client.
"""

import asyncio
import contextlib
import functools
import ssl
import time
from collections import deque
from typing import Any
from urllib.parse import urlsplit

from penstock.domain.catalogue import Timeouts
from penstock.domain.value import Value
from penstock.providers.connection import Connection, Response
from penstock.providers.outbound.failures import (
    AnswerTooLarge,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    FirstByteTimeout,
    FirstTokenTimeout,
    IdleTimeout,
    ProtocolViolation,
    ProxyRefused,
    TotalTimeout,
    TransportError,
)
from penstock.providers.outbound.limits import TransportLimits
from penstock.providers.outbound.proxy import Proxy, connect_through, parse_proxy, refused

__all__ = [
    "AnswerTooLarge",
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionLost",
    "Endpoint",
    "FirstByteTimeout",
    "FirstTokenTimeout",
    "IdleTimeout",
    "ProtocolViolation",
    "ProxyRefused",
    "Response",
    "TotalTimeout",
    "Transport",
    "TransportError",
    "TransportLimits",
]

Headers = tuple[tuple[str, str], ...]
_NO_TIMEOUTS = Timeouts()
_SWEEP_S = 0.25
_IDLE_MARGIN_S = 1.0
_STALE_S = 0.25


class Endpoint(Value, frozen=True):
    """Where an upstream listens: ``http://host:port/base``, ``https://...`` or ``unix:///path.sock``."""

    base: str

    @property
    def is_unix(self) -> bool:
        """Whether ``base`` is a Unix socket."""
        return self.base.startswith("unix://")


class Transport:
    """A pool of connections to one endpoint. Belongs to one event loop.

    ``proxy`` is ``http://[user:password@]host:port``; none is taken from the environment. ``ca_file`` holds the
    authorities (PEM) that may vouch for the endpoint, in place of the system's. Raises ValueError for what makes no
    sense or cannot be read.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        limits: TransportLimits | None = None,
        proxy: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.limits = limits or TransportLimits()
        url = urlsplit(endpoint.base)
        if url.scheme not in ("http", "https", "unix") or not (url.hostname or url.path):
            raise ValueError(f"base_url must be http://, https:// or unix://, got {endpoint.base!r}")
        self.tls = trusted(ca_file) if url.scheme == "https" else None
        self._proxy: Proxy | None = parse_proxy(proxy) if proxy is not None and not endpoint.is_unix else None
        self._host = url.hostname or "localhost"
        self._port = url.port or (443 if self.tls else 80)
        self._path = "" if endpoint.is_unix else url.path.rstrip("/")
        self._authority = "localhost" if endpoint.is_unix else url.netloc.rpartition("@")[2]
        self._socket_path = url.path if endpoint.is_unix else None
        # A proxy of plain calls wants the whole address in the request line (RFC 9112 3.2.2) and its own credential.
        self._forwards = self._proxy is not None and self.tls is None
        self._origin = f"http://{self._authority}" if self._forwards else ""
        self._heads: dict[tuple[str, str, Headers], bytes] = {}
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._pending = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self._retired = False

    async def post(
        self,
        path: str,
        headers: Headers,
        body: bytes,
        *,
        timeouts: Timeouts = _NO_TIMEOUTS,
        streamed: bool = False,
        method: str = "POST",
    ) -> Response:
        """Send one POST, or what ``get`` asks for, and wait for the head of the answer. Raises TransportError.

        ``timeouts`` win over the transport's own; the one for the first token holds for a ``streamed`` answer until
        ``Response.begun``. A pooled connection that turns out to be closed as soon as it is used is replaced by a new
        one, and the request sent once more: the peer had closed it while idle. One that is lost later, or is new, is
        not: the request may have been served.
        """
        head = self._head(method, path, headers) + b"content-length: %d\r\n\r\n" % len(body)
        fresh = False
        while True:
            now = time.monotonic()
            connection = await self._connect(fresh=True) if fresh else self._take_idle(now) or await self._connect()
            connection.deadline = now + self.limits.first_byte_timeout_s
            connection.idle_s = timeouts.idle_s or self.limits.idle_timeout_s
            if (first_s := timeouts.first_token_s or self.limits.first_token_timeout_s) is not None and streamed:
                connection.first_token_by = now + first_s
            if (total_s := timeouts.total_s or self.limits.total_timeout_s) is not None:
                connection.complete_by = now + total_s
            answer = connection.send(head, body)
            try:
                response = await answer
                if response.status == 407 and self._forwards:
                    raise refused(407)
                return response
            except ConnectionLost:
                if connection.used > 1 and not connection.started and time.monotonic() - now < _STALE_S:
                    fresh = True
                    continue
                raise
            except BaseException:
                connection.abandon(answer)
                raise

    async def get(self, path: str, headers: Headers) -> Response:
        """Send one GET and wait for the head of the answer. Raises TransportError."""
        return await self.post(path, headers, b"", method="GET")

    def retire(self) -> None:
        """Keep no connection from now on: idle ones close at once, the others with the answers that they carry."""
        self._retired = True
        for connection in tuple(self._idle):
            connection.abort()

    async def aclose(self) -> None:
        """Drop every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in tuple(self._open):
            connection.abort()

    def _head(self, method: str, path: str, headers: Headers) -> bytes:
        key = (method, path, tuple(headers))
        head = self._heads.get(key)
        if head is None:
            lines = [f"{method} {self._origin}{self._path}{path} HTTP/1.1", f"host: {self._authority}"]
            lines += self._proxy.headers if self._proxy is not None and self._forwards else ()
            lines += [f"{name}: {value}" for name, value in headers]
            if any("\r" in line or "\n" in line for line in lines):
                raise ValueError("a header must not contain a line break")
            head = "\r\n".join([*lines, "accept-encoding: identity", ""]).encode("latin-1")
            if len(self._heads) > 256:
                self._heads.clear()
            self._heads[key] = head
        return head

    def _take_idle(self, now: float) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_until > now:
                return connection
            connection.abort()
        return None

    async def _connect(self, *, fresh: bool = False) -> Connection:
        while len(self._open) + self._pending >= self.limits.max_connections:
            if fresh and self._idle:
                self._idle.pop().abort()  # its place, once it is closed
            await self._turn()
            if not fresh and (idle := self._take_idle(time.monotonic())) is not None:
                return idle
        self._pending += 1
        usable = False
        try:
            async with asyncio.timeout(self.limits.connect_timeout_s):
                connection = await self._dial()
            usable = not connection.lost
        except TimeoutError:
            raise ConnectTimeout("the upstream did not accept the connection in time") from None
        except ssl.SSLCertVerificationError as error:
            raise ConnectFailed(f"the upstream's certificate is not trusted ({error.verify_message})") from error
        except OSError as error:
            raise ConnectFailed(f"the upstream does not accept connections ({error.strerror or 'failed'})") from error
        finally:
            self._pending -= 1
            if not usable:
                self._next_in_queue()
        if not usable:
            raise ConnectFailed("the upstream closed the connection at once")
        self._open.add(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        return connection

    async def _turn(self) -> None:
        """Wait until a connection or a place for one is free; a turn that is not used is passed on."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(self.limits.connect_timeout_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._next_in_queue()
            if isinstance(error, TimeoutError):
                raise ConnectTimeout("no connection to the upstream became free in time") from None
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._queue.remove(turn)

    async def _dial(self) -> Connection:
        loop = asyncio.get_running_loop()
        limits = (self.limits.max_header_bytes, self.limits.max_answer_bytes)

        def factory() -> Connection:
            return Connection(self._released, self._forget, limits)

        if self._proxy is not None and self.tls is not None:
            connection = factory()
            await connect_through(self._proxy, connection, self.tls, host=self._host, port=self._port)
            return connection
        made: tuple[Any, Connection]
        if self._socket_path is not None:
            made = await loop.create_unix_connection(factory, self._socket_path)
        else:
            host, port = (self._host, self._port) if self._proxy is None else self._proxy[:2]
            made = await loop.create_connection(factory, host, port, ssl=self.tls)
        return made[1]

    def _released(self, connection: Connection) -> None:
        if self._retired:
            connection.abort()
            return
        connection.idle_until = time.monotonic() + connection.keep_s - _IDLE_MARGIN_S
        self._idle.append(connection)
        self._next_in_queue()

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._next_in_queue()

    def _next_in_queue(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _sweep(self) -> None:
        """One timer for all connections: a timer per request costs more than the request's parsing."""
        now = time.monotonic()
        for connection in tuple(self._open):
            if (late := connection.overdue(now)) is not None:
                connection.fail(late)
            elif connection.response is None and connection.idle_until < now:
                connection.abort()
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep) if self._open else None


def trusted(ca_file: str | None) -> ssl.SSLContext:
    """What a server's certificate is checked against. Raises ValueError for a file that cannot be read."""
    if ca_file is None:
        return _system_trust()
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ValueError(f"ca_file {ca_file} holds no certificates that can be read") from error


@functools.cache
def _system_trust() -> ssl.SSLContext:
    """Reading the system's authorities takes milliseconds: once for all endpoints of the process."""
    return ssl.create_default_context()
