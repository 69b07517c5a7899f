"""The data plane's HTTP/1.1 connection: httptools parses, an ASGI application answers, every wait has a bound.

Why our own: the general server library costs more per request than the whole of the gateway's line, and it has no
deadline for heads and bodies, no bound on headers and no call at the moment a client hangs up (docs/decisions/0005).
"""

import asyncio
import contextlib
import os
from collections import deque
from typing import Any
from urllib.parse import unquote

import httptools
import msgspec

from penstock.domain.errors import PenstockError
from penstock.web.exchange import App, Exchange

_SWEEP_S = 0.5
_NEVER = float("inf")
_MAX_PIPELINED = 64


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds for a head, a body, an idle connection and a client that does not read; and the most header bytes."""

    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    write_timeout_s: float = 60.0
    keep_alive_s: float = 75.0
    max_header_bytes: int = 64 * 1024


class Hub:
    """What the connections of one worker share: the application, the limits, one timer for all deadlines."""

    def __init__(self, app: App, *, limits: HttpLimits, hang_up_reason: str) -> None:
        self.app = app
        self.limits = limits
        self.hang_up_reason = hang_up_reason
        self.loop = asyncio.get_running_loop()
        self.connections: set[HttpConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.draining = False
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: "HttpConnection") -> None:
        """Watch this connection until it is lost."""
        self.connections.add(connection)
        if self._timer is None:
            self._timer = self.loop.call_later(_SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in tuple(self.connections):
            if connection.deadline < now:
                connection.expire()
        self._timer = self.loop.call_later(_SWEEP_S, self._sweep) if self.connections else None


class HttpConnection(asyncio.Protocol):
    """One client connection: requests one after the other, pipelined ones in a bounded queue."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._limits = hub.limits
        self._transport: Any = None
        self._client: Any = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self.deadline = _NEVER
        self._active: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._filling: Exchange | None = None  # whose body is arriving
        self._raw_left = 0
        self._head_bytes = 0
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._expects = False
        self._writable: asyncio.Future[None] | None = None
        self._reading = True

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The clock for the first head starts."""
        self._transport = transport
        self._client = transport.get_extra_info("peername")
        self._wait(self._limits.header_timeout_s)
        self._hub.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request under way that nobody listens."""
        self._hub.connections.discard(self)
        self.resume_writing()
        for exchange in (self._active, *self._queue):
            if exchange is not None:
                exchange.hang_up(self._hub.hang_up_reason)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived."""
        if self._transport.is_closing():
            return
        if self._raw_left:
            data = self._take_raw(data)
            if not data:
                return
        if self._filling is None:
            if not self._head_bytes:
                self._wait(self._limits.header_timeout_s)
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.refuse(PenstockError("invalid_request", "This is not a valid HTTP/1.1 request."))
            return
        if self._filling is None and self._head_bytes > self._limits.max_header_bytes:
            self.refuse(PenstockError("header_too_large", f"Headers exceed {self._limits.max_header_bytes} bytes."))

    def pause_writing(self) -> None:
        """The client reads more slowly than we write: it has a bound to catch up."""
        self._writable = self._hub.loop.create_future()
        self._wait(self._limits.write_timeout_s)

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None
            self.deadline = _NEVER

    # httptools callbacks

    def on_message_begin(self) -> None:
        """A head begins."""
        self._url = b""
        self._headers = []
        self._expects = False

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        name = name.lower()
        if name == b"expect":
            self._expects = value.lower() == b"100-continue"
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is here: the clock for the body starts, and the application with it."""
        parser = self._parser
        keep_alive = parser.should_keep_alive() and not self._hub.draining
        exchange = Exchange(self, self._scope(parser), keep_alive=keep_alive, expects=self._expects)
        self._filling = exchange
        self._head_bytes = 0
        self._wait(self._limits.body_timeout_s)
        if self._active is None:
            self._start(exchange)
            return
        self._queue.append(exchange)
        self.hold(reading=False)
        if len(self._queue) > _MAX_PIPELINED:
            self._transport.abort()

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._filling is not None:
            self._filling.feed(data)

    def on_message_complete(self) -> None:
        """The request is whole: no deadline while it is answered, unless it only seems so (see _decline_upgrade)."""
        if self._parser.should_upgrade():
            return
        self._end_request()

    # For the exchange and the hub

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._transport.write(data)

    def hold(self, *, reading: bool) -> None:
        """Stop or go on reading from the socket."""
        if reading != self._reading and not self._transport.is_closing():
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    async def writable(self) -> None:
        """Wait until the client has taken what was written."""
        if self._writable is not None:
            await self._writable

    def finished(self, exchange: Exchange) -> None:
        """The answer is complete: close, or go on with the next request."""
        if exchange is not self._active:
            return
        self._active = None
        if not exchange.keep_alive or self._hub.draining:
            self._transport.close()
            return
        if self._queue:
            self._start(self._queue.popleft())
            return
        self.hold(reading=True)
        if exchange.ended:
            self._wait(self._limits.keep_alive_s)

    def expire(self) -> None:
        """The deadline has passed: say so where something was asked, and close."""
        if self._writable is not None:
            self._transport.abort()
        elif self._filling is not None:
            self.refuse(PenstockError("request_timeout", "The request's body did not arrive in time."))
        elif self._head_bytes:
            self.refuse(PenstockError("request_timeout", "The request's headers did not arrive in time."))
        else:
            self._transport.close()

    def refuse(self, error: PenstockError) -> None:
        """Answer in the API's error shape, unless an answer is under way, and close."""
        self.deadline = _NEVER
        busy = self._active
        if busy is None or not (busy.begun or busy.ended):
            body = msgspec.json.encode(error.body())
            head = f"HTTP/1.1 {error.status} Refused\r\ncontent-type: application/json\r\nconnection: close\r\n"
            identity = f"x-request-id: req_{os.urandom(12).hex()}\r\ncontent-length: {len(body)}\r\n\r\n"
            self._transport.write((head + identity).encode() + body)
        self._transport.close()

    def close(self) -> None:
        """Close after what was written."""
        self._transport.close()

    def drain(self) -> None:
        """Close when nothing is under way; else after the answer."""
        if self._active is None:
            self._transport.close()
        else:
            self._active.keep_alive = False

    # Inside

    def _start(self, exchange: Exchange) -> None:
        self._active = exchange
        task = exchange.task = self._hub.loop.create_task(exchange.run(self._hub.app))
        self._hub.tasks.add(task)
        task.add_done_callback(self._hub.tasks.discard)

    def _end_request(self) -> None:
        exchange, self._filling = self._filling, None
        self.deadline = _NEVER
        if exchange is None:
            return
        exchange.end()
        if exchange.answered and self._active is None:
            self._wait(self._limits.keep_alive_s)

    def _wait(self, seconds: float) -> None:
        self.deadline = self._hub.loop.time() + seconds

    def _scope(self, parser: Any) -> dict[str, Any]:
        path, _, query = self._url.partition(b"?")
        text = path.decode("latin-1")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": parser.get_http_version(),
            "method": parser.get_method().decode("ascii"),
            "scheme": "http",
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self._headers,
            "client": self._client,
            "server": None,
        }

    def _decline_upgrade(self, rest: bytes) -> None:
        """Serve a request that offers an upgrade as if it did not (RFC 9110, 7.8).

        The parser stops at such a head and drops the body, which clients that offer h2c with every POST do send: the
        body is read here by its content-length, and a new parser takes what follows.
        """
        self._parser = httptools.HttpRequestParser(self)
        lengths = [value for name, value in self._headers if name == b"content-length"]
        if any(name == b"transfer-encoding" for name, _ in self._headers):
            self.refuse(PenstockError("invalid_request", "An upgrade with a chunked body is not supported."))
            return
        self._raw_left = int(lengths[0]) if lengths else 0
        rest = self._take_raw(rest)
        if rest:
            self.data_received(rest)

    def _take_raw(self, data: bytes) -> bytes:
        body, rest = data[: self._raw_left], data[self._raw_left :]
        self._raw_left -= len(body)
        if body:
            self.on_body(body)
        if not self._raw_left:
            self._end_request()
        return rest


async def close_all(hub: Hub, bound_s: float) -> None:
    """Let open answers finish within the bound, then cancel them; each may still say why."""
    hub.draining = True
    for connection in tuple(hub.connections):
        connection.drain()
    if hub.tasks:
        await asyncio.wait(tuple(hub.tasks), timeout=bound_s)
    for task in tuple(hub.tasks):
        task.cancel()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await asyncio.gather(*hub.tasks, return_exceptions=True)
