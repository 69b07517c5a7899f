"""The HTTP/1.1 connection of both planes: httptools parses, an ASGI application answers, every wait has a bound.

Why our own: the general server library costs more per request than the whole of the gateway's line, and it has no
deadline for heads and bodies, no bound on headers and no call at the moment a client hangs up (docs/decisions/0005).
"""

import asyncio
from collections import deque
from typing import Any
from urllib.parse import unquote

import httptools

from penstock.domain.errors import PenstockError
from penstock.web.exchange import Exchange
from penstock.web.heads import KnownHead, known_head
from penstock.web.hub import Hub

_NEVER = float("inf")
_MAX_PIPELINED = 64
_LINGER_S = 5.0
# So many heads of a connection are looked at for the next to be known; a client that never repeats one pays no more.
_TO_LEARN = 8


class HttpConnection(asyncio.Protocol):
    """One client connection: requests one after the other, pipelined ones in a bounded queue.

    A client that closes its sending side counts as gone, as with other servers: a full close looks the same.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._limits = hub.limits
        self._transport: Any = None
        self._client: Any = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._read_by = _NEVER  # when the next head, body or anything is due
        self._flush_by = _NEVER  # when a client that reads nothing is cut
        self._written = 0
        self._taken = 0
        self._active: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._filling: Exchange | None = None  # whose body is arriving
        self._in_head = False
        self._raw_left = 0
        self._known: KnownHead | None = None
        self._to_learn = _TO_LEARN
        self._received = 0  # bytes of the head, or since the head
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._expects = False
        self._writable: asyncio.Future[None] | None = None
        self._reading = True
        self._broken = False  # the parser gave up: nothing after the answer under way can be read
        self._lingering = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The clock for the first head starts."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._client = peer[:2] if isinstance(peer, tuple) else None  # IPv6 has four parts
        self._due(self._limits.header_timeout_s)
        self._hub.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request under way that nobody listens."""
        self._hub.remove(self)
        self.resume_writing()
        for exchange in (self._active, *self._queue):
            if exchange is not None:
                exchange.hang_up(self._hub.hang_up_reason)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived."""
        if self._lingering or self._broken or self._transport.is_closing():
            return
        alone = self._active is None and self._filling is None and not (self._in_head or self._raw_left)
        if alone and self._known is not None and (body := self._known.body_at(data)):
            self._serve(self._known.scope(data, body), data[body:])
            return
        self._received += len(data)
        if self._raw_left:
            data = self._take_raw(data)
        if data:
            self._parse(data)
        self._check_size()
        if alone and self._to_learn:
            self._learn(data)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._writable = self._hub.loop.create_future()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # httptools callbacks

    def on_message_begin(self) -> None:
        """A head begins; its clock starts unless an answer is under way."""
        self._url = b""
        self._headers = []
        self._expects = False
        self._in_head = True
        if self._active is None:
            self._due(self._limits.header_timeout_s)

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header. What comes behind a chunked body is dropped: trailers must not become headers."""
        if not self._in_head:
            return
        name = name.lower()
        if name == b"expect":
            self._expects = value.lower() == b"100-continue"
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is here: the application starts, or waits for its turn."""
        parser = self._parser
        version = parser.get_http_version()
        keep_alive = version == "1.1" and parser.should_keep_alive() and not self._hub.draining
        exchange = Exchange(self, self._scope(parser, version), keep_alive=keep_alive, expects=self._expects)
        self._filling = exchange
        self._in_head = False
        self._received = 0
        if self._active is None:
            self._start(exchange)
            return
        self._queue.append(exchange)
        if len(self._queue) > _MAX_PIPELINED:
            self._transport.abort()

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._filling is not None:
            self._filling.feed(data)

    def on_message_complete(self) -> None:
        """The request is whole, unless it only seems so (see _decline_upgrade)."""
        if not self._parser.should_upgrade():
            self._end_request()

    # For the exchange and the hub

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._written += len(data)
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
        if self._broken or not exchange.keep_alive or self._hub.draining:
            self._close_gently(unread=not exchange.ended)
        elif self._queue:
            self._start(self._queue.popleft())
        else:
            self.hold(reading=True)
            if self._in_head:
                self._due(self._limits.header_timeout_s)
            elif exchange.ended:
                self._due(self._limits.keep_alive_s)

    def check(self, now: float) -> None:
        """Called by the hub's timer: cut a client that takes nothing, expire one that sends nothing."""
        unsent = self._transport.get_write_buffer_size()
        taken = self._written - unsent
        if not unsent or taken != self._taken:
            self._taken = taken
            self._flush_by = now + self._limits.write_timeout_s
        elif now > self._flush_by:
            self._transport.abort()
            return
        if unsent and self._active is None and not self._lingering:
            self._due(self._limits.keep_alive_s)  # still taking its last answer: not idle yet
        elif now > self._read_by:
            self._expire()

    def refuse(self, error: PenstockError) -> None:
        """Answer in the plane's error shape, unless an answer has begun, and close after the answer under way."""
        self._read_by = _NEVER
        self._broken = True
        asked = self._filling
        if self._active is not None and self._active is not asked:
            return  # a later request is bad: the earlier one still gets its answer, then finished() closes
        if asked is None or not (asked.begun or asked.ended):
            identity, body = self._hub.refusal(error)
            head = f"HTTP/1.1 {error.status} Refused\r\ncontent-type: application/json\r\nconnection: close\r\n"
            self.write(f"{head}{identity}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        self._active = None
        if asked is not None:
            asked.hang_up(self._hub.hang_up_reason)
        self._close_gently(unread=True)

    def drain(self) -> None:
        """Close when nothing is under way; else after the answer."""
        if self._active is None:
            self._transport.close()
        else:
            self._active.keep_alive = False

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # Inside

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.refuse(PenstockError("invalid_request", "This is not a valid HTTP/1.1 request."))

    def _serve(self, scope: dict[str, Any], body: bytes) -> None:
        """A request whose head is known, and that came whole: the parser need not see it."""
        exchange = Exchange(self, scope, keep_alive=not self._hub.draining, expects=False)
        if body:
            exchange.feed(body)
        exchange.end()
        self._start(exchange)

    def _learn(self, data: bytes) -> None:
        """Know this head again, if it was that of a plain request."""
        exchange = self._active
        if exchange is None or not exchange.ended or self._queue or self._in_head or self._filling is not None:
            return
        self._to_learn -= 1
        self._known = known_head(data, exchange.scope) if exchange.keep_alive and not self._expects else None

    def _check_size(self) -> None:
        """Bound the head, and what a body carries beside itself: chunk sizes, extensions, trailers."""
        limit = self._limits.max_header_bytes
        filling = self._filling
        if filling is not None:
            limit += 16 * filling.fed
        elif not self._in_head:
            return
        if self._received > limit and not self._broken:
            self.refuse(PenstockError("header_too_large", f"Headers exceed {self._limits.max_header_bytes} bytes."))

    def _expire(self) -> None:
        if self._lingering or self._transport.is_closing():
            self._transport.abort()
        elif self._filling is not None and not self._filling.answered:
            self.refuse(PenstockError("request_timeout", "The request's body did not arrive in time."))
        elif self._in_head:
            self.refuse(PenstockError("request_timeout", "The request's headers did not arrive in time."))
        else:
            self._transport.close()

    def _close_gently(self, *, unread: bool) -> None:
        """Close; with input unread, end only our side first: a reset would take the answer from the client."""
        if not unread or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._lingering = True
        self.hold(reading=True)
        self._transport.write_eof()
        self._due(_LINGER_S)

    def _start(self, exchange: Exchange) -> None:
        self._active = exchange
        if exchange.ended:
            self._read_by = _NEVER
        else:
            self._due(self._limits.body_timeout_s)
        self._hub.start(exchange)

    def _end_request(self) -> None:
        exchange, self._filling = self._filling, None
        self._received = 0
        if exchange is None:
            return
        exchange.end()
        if exchange is self._active:
            self._read_by = _NEVER
        elif self._active is None:
            self._due(self._limits.keep_alive_s)

    def _due(self, seconds: float) -> None:
        self._read_by = self._hub.loop.time() + seconds

    def _scope(self, parser: Any, version: str) -> dict[str, Any]:
        path, _, query = self._url.partition(b"?")
        if not path.startswith(b"/"):
            path = _origin_form(path)
        text = path.decode("latin-1")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
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
            self._parse(rest)

    def _take_raw(self, data: bytes) -> bytes:
        body, rest = data[: self._raw_left], data[self._raw_left :]
        self._raw_left -= len(body)
        if body:
            self.on_body(body)
        if not self._raw_left:
            self._end_request()
        return rest


def _origin_form(target: bytes) -> bytes:
    """The path of an absolute-form target, which a proxy's client may send (RFC 9112, 3.2.2)."""
    _, scheme, rest = target.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if scheme else target
