"""One HTTP/1.1 client connection: httptools parses, an asyncio Protocol feeds a Response that the caller awaits.

Framing follows RFC 9112: 1xx heads are skipped, a body ends by content-length, by the last chunk or by the close of
a connection that announced neither. A body that ends earlier than announced is ConnectionLost, never a short answer.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httptools

from penstock.providers.outbound.encoding import Inflater
from penstock.providers.outbound.endings import ended, kept_for
from penstock.providers.outbound.failures import (
    AnswerTooLarge,
    ConnectionLost,
    FirstByteTimeout,
    FirstTokenTimeout,
    IdleTimeout,
    ProtocolViolation,
    TotalTimeout,
    TransportError,
)

__all__ = ["Connection", "Response", "TransportError"]

_HIGH_WATER = 256 * 1024
_NEVER = float("inf")
_REST_S = 0.1


class Response:
    """An answer whose head has arrived. Read it with ``read`` or ``block``; ``close`` gives up the rest."""

    __slots__ = (
        "_chunks",
        "_connection",
        "_waiter",
        "complete",
        "error",
        "headers",
        "max_bytes",
        "size",
        "status",
        "waiting",
    )

    def __init__(self, connection: "Connection", max_bytes: int) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self.error: TransportError | None = None
        self.size = 0
        self.waiting = 0
        self.max_bytes = max_bytes
        self._chunks: list[bytes] = []
        self._connection: Connection | None = connection
        self._waiter: asyncio.Future[None] | None = None

    async def block(self) -> bytes:
        """The bytes that have arrived since the last call, waiting for some; b"" at the end. Raises TransportError."""
        while not self._chunks:
            if self.complete:
                return b""
            if self.error is not None:
                raise self.error
            await self._wait()
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self.waiting = 0
        if self._connection is not None:
            self._connection.resume()
        return data

    def arrived(self) -> bytes:
        """What ``block`` would give without waiting; b"" when it would wait."""
        data = b"".join(self._chunks)
        self._chunks = []
        return data

    async def read(self) -> bytes:
        """The whole body. Raises TransportError."""
        while not self.complete:
            if self.error is not None:
                raise self.error
            if self._connection is not None:
                self._connection.resume()
            await self._wait()
        data = b"".join(self._chunks)
        self._chunks = []
        return data

    def begun(self) -> None:
        """The first event is there: from here on the bounds of an answer under way hold."""
        if self._connection is not None:
            self._connection.answer_begun()

    def let_go(self) -> None:
        """The rest is known to be empty: leave the connection a moment to end the answer, so that it can be reused."""
        if not self.complete and self._connection is not None:
            self.drop()
            self._connection.end_within(_REST_S)

    def drop(self) -> None:
        """Forget what has arrived: nobody reads it any more."""
        self._chunks.clear()
        self.waiting = 0

    def close(self) -> None:
        """Drop the connection unless the answer is complete. Safe to call twice."""
        if not self.complete and self._connection is not None:
            self._connection.abort()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def feed(self, data: bytes) -> None:
        """Take body bytes."""
        self.size += len(data)
        self.waiting += len(data)
        self._chunks.append(data)
        self._wake()

    def finish(self, error: TransportError | None) -> None:
        """End the body, well or not, and let go of the connection."""
        if self.complete or self.error is not None:
            return
        if error is None:
            self.complete = True
        else:
            self.error = error
        self._connection = None
        self._wake()


class Connection(asyncio.Protocol):
    """Sends one request at a time; ``released`` is called when the answer is complete and the socket is reusable."""

    def __init__(
        self, released: Callable[["Connection"], None], closed: Callable[["Connection"], None], limits: tuple[int, int]
    ) -> None:
        self.max_head, self.max_body = limits
        self.deadline = _NEVER
        self.idle_s = _NEVER
        self.idle_until = 0.0
        self.first_token_by = _NEVER
        self.complete_by = _NEVER
        self.keep_s = 5.0
        self.used = 0
        self.started = False  # a byte of the current answer has arrived
        self._released = released
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._response: Response | None = None
        self._head: asyncio.Future[Response] | None = None
        self._bare = 0  # bytes since the call or the last of a body: heads, trailers, what belongs to chunks
        self._inflater: Inflater | None = None
        self._framed = False
        self._paused = False
        self._let_go = False
        self.lost = False

    @property
    def usable(self) -> bool:
        """Whether a new request may be written."""
        return not self.lost and self._response is None and not self._transport.is_closing()

    @property
    def response(self) -> Response | None:
        """The answer under way."""
        return self._response

    @property
    def awaiting_head(self) -> bool:
        """Whether the head of the current answer is still to come."""
        return self._head is not None and not self._head.done()

    def send(self, head: bytes, body: bytes) -> "asyncio.Future[Response]":
        """Write one request; the future ends when the head has arrived, or fails with a TransportError."""
        self.used += 1
        self.started = False
        self._bare = 0
        self._inflater = None
        self._let_go = False
        self._response = Response(self, self.max_body)
        self._head = self._loop.create_future()
        if len(body) < 65_536:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return self._head

    def end_within(self, seconds: float) -> None:
        """The answer must be complete by then, whatever still comes: nobody reads it."""
        self._let_go = True
        self.resume()
        self.complete_by = min(self.complete_by, time.monotonic() + seconds)

    def abort(self) -> None:
        """Close at once, without flushing."""
        self._transport.abort()

    def abandon(self, head: "asyncio.Future[Response]") -> None:
        """Close at once if the answer that ``head`` begins is still under way: the next call may be on it by now."""
        if self._head is head and self._response is not None:
            self._transport.abort()

    def fail(self, error: TransportError) -> None:
        """End the current answer with this error and close."""
        self._end(error)
        self._transport.abort()

    def resume(self) -> None:
        """The reader took what there was: read on from the socket if it was paused."""
        if self._paused:
            self._paused = False
            self._arm()
            self._transport.resume_reading()

    def answer_begun(self) -> None:
        """No first token is waited for any more."""
        self.first_token_by = _NEVER

    def overdue(self, now: float) -> TransportError | None:
        """Why the current answer is too late, or None. ``now`` is monotonic."""
        if self.complete_by < now:
            return TotalTimeout("the upstream's answer was not complete in time")
        if self.first_token_by < now:
            return FirstTokenTimeout("the upstream sent no first token in time")
        if self.deadline < now:
            if self.awaiting_head:
                return FirstByteTimeout("the upstream did not begin to answer in time")
            return IdleTimeout("the upstream stopped in the middle of its answer")
        return None

    def _arm(self) -> None:
        """Of a body that is being read, the next byte is due within ``idle_s``."""
        if self._response is not None and self._response.status and not self._paused:
            self.deadline = time.monotonic() + self.idle_s

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse; a peer that speaks out of turn or not HTTP is dropped."""
        if self._response is None:
            self._transport.abort()
            return
        self.started = True
        self._bare += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.fail(ProtocolViolation("the upstream did not answer in HTTP/1.1"))
            return
        if self._bare > self.max_head:
            self.fail(AnswerTooLarge("the upstream's headers are too large"))
        else:
            self._arm()

    def eof_received(self) -> bool:
        """The peer has closed: complete an answer that ends so, and close ours as well. TLS that ends without saying
        so is no end: whoever cuts the line could shorten an answer like that."""
        tls = self._transport.get_extra_info("ssl_object")
        if not self._framed and self._response is not None and self._response.status and (not tls or ended(tls)):
            self._end(self._cut_short())
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail an answer that is not complete."""
        self.lost = True
        self._end(ConnectionLost("the upstream closed the connection before its answer was complete"))
        self._closed(self)

    # httptools callbacks

    def on_message_begin(self) -> None:
        """A head begins. One that nobody asked for must never become the answer to the next request."""
        self._framed = False
        if self._response is None:
            self._transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect one header; repeated ones are joined with a comma. Trailers mean nothing to us."""
        response = self._response
        if response is None or response.status:
            return
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        if key in ("content-length", "transfer-encoding"):
            self._framed = True
        headers = response.headers
        if (before := headers.get(key)) is not None:
            if len(before) + len(text) > self.max_head:
                self.fail(AnswerTooLarge("the upstream's headers are too large"))
                return
            text = f"{before}, {text}"
        headers[key] = text

    def on_headers_complete(self) -> None:
        """Hand the head over, unless it is an interim one."""
        status = self._parser.get_status_code()
        if self._response is None or self._head is None:
            return
        if status < 100:
            self.fail(ProtocolViolation(f"the upstream answered with a status that is none ({status})"))
            return
        if status < 200:
            self._response.headers.clear()
            return
        if status in (204, 304):
            self._framed = True
        encoding = self._response.headers.pop("content-encoding", None)
        if encoding is not None and not self._decode(encoding.lower()):
            return
        self._response.status = status
        if not self._head.done():
            self._head.set_result(self._response)

    def on_body(self, data: bytes) -> None:
        """Pass body bytes on; stop reading from the socket while the reader is behind."""
        response = self._response
        if response is None:
            return
        self._bare = 0
        if self._inflater is not None:
            try:
                data = self._inflater.feed(data)
            except ValueError as error:
                self.fail(ProtocolViolation(f"the upstream's answer {error}"))
                return
            if not data:
                return
        response.feed(data)
        if response.size > response.max_bytes:
            self.fail(AnswerTooLarge(f"the upstream's answer exceeds {response.max_bytes} bytes"))
        elif response.waiting > _HIGH_WATER and self._let_go:
            response.drop()
        elif response.waiting > _HIGH_WATER and not self._paused:
            self._paused = True
            self.deadline = _NEVER  # the reader is slow, not the upstream
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer is whole: give the socket back or close it."""
        response = self._response
        if response is None or response.status == 0:
            return
        reusable = self._framed and self._parser.should_keep_alive()
        self.keep_s = kept_for(response.headers.get("keep-alive"))
        self._end(self._cut_short())
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # an early answer: who has not read the request by now may never do so
        elif reusable and not self._transport.is_closing():
            self.resume()
            self.deadline = _NEVER
            self._released(self)
        else:
            self._transport.close()

    def _decode(self, encoding: str) -> bool:
        """Undo this encoding from here on; false, and the call has failed, where we cannot."""
        if encoding in ("", "identity"):
            return True
        try:
            self._inflater = Inflater(encoding, self.max_body)
        except ValueError as error:
            self.fail(ProtocolViolation(f"the upstream's answer {error}"))
            return False
        return True

    def _cut_short(self) -> TransportError | None:
        if self._inflater is None or self._inflater.whole:
            return None
        return ConnectionLost("the upstream's compressed answer ends early")

    def _end(self, error: TransportError | None) -> None:
        response, self._response = self._response, None
        self.deadline = self.first_token_by = self.complete_by = _NEVER
        if response is None:
            return
        response.finish(error)
        if self._head is not None and not self._head.done():
            self._head.set_exception(error or ConnectionLost("the upstream closed the connection without an answer"))
