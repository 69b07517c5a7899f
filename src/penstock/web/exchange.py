"""One HTTP request and its answer as our server sees them: the ASGI ``receive`` and ``send``."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, ClassVar, Protocol

_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus}
_BUFFERED = 256 * 1024
_BODILESS = (204, 304)
_END = b"\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Message = dict[str, Any]
App = Callable[
    [dict[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class Connection(Protocol):
    """What an exchange needs of the connection it came on."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def hold(self, *, reading: bool) -> None:
        """Stop or go on reading from the socket."""

    async def writable(self) -> None:
        """Wait until the client has taken what was written."""

    def finished(self, exchange: "Exchange") -> None:
        """The answer is complete."""


class Exchange:
    """A request whose head has arrived. ``scope`` is ASGI's; the body arrives by ``feed`` and ``end``."""

    __slots__ = (
        "_bodiless",
        "_body",
        "_chunked",
        "_connection",
        "_expects_continue",
        "_head",
        "_taken",
        "_waiter",
        "answered",
        "begun",
        "ended",
        "fed",
        "gone",
        "keep_alive",
        "scope",
        "task",
        "waiting",
    )

    def __init__(self, connection: Connection, scope: dict[str, Any], *, keep_alive: bool, expects: bool) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.task: asyncio.Task[None] | None = None
        self.ended = False  # the request's body is whole
        self.begun = False  # the answer's head has been written
        self.answered = False  # the answer is whole
        self.gone = False  # the client has hung up
        self.fed = 0  # body bytes so far
        self.waiting = 0  # body bytes that the application has not taken
        self._connection = connection
        self._expects_continue = expects
        self._body: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._head = b""
        self._chunked = False
        self._bodiless = scope["method"] == "HEAD"
        self._taken = False  # the application has all of the body

    async def run(self, app: App) -> None:
        """Serve it; an answer that the application did not complete closes the connection."""
        try:
            await app(self.scope, self.receive, self.send)
        finally:
            if not self.answered:
                self.keep_alive = False
                self._connection.finished(self)

    def feed(self, data: bytes) -> None:
        """Body bytes; they are dropped once the answer is complete."""
        self.fed += len(data)
        if self.answered:
            return
        self._body.append(data)
        self.waiting += len(data)
        if self.waiting > _BUFFERED:
            self._connection.hold(reading=False)
        self._wake()

    def end(self) -> None:
        """The body is whole; reading goes on, or a hang-up would not be seen."""
        self.ended = True
        self._connection.hold(reading=True)
        self._wake()

    def hang_up(self, reason: str | None) -> None:
        """The client is gone: cancel the application, with the reason as the cancellation's message. Without a reason
        it goes on: what it does in a thread could not be stopped anyway."""
        self.gone = True
        self._wake()
        if reason is not None and self.task is not None and not self.answered:
            self.task.cancel(reason)

    async def receive(self) -> Message:
        """ASGI: the body bytes that have arrived, waiting for some; after the body, the disconnect."""
        while not (self._body or self.gone or (self.ended and not self._taken)):
            if self._expects_continue and not (self.begun or self.ended):
                self._connection.write(_CONTINUE)
            self._expects_continue = False
            self._connection.hold(reading=True)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.gone:
            return {"type": "http.disconnect"}
        data = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self.waiting = 0
        self._taken = self.ended
        self._connection.hold(reading=True)
        return {"type": "http.request", "body": data, "more_body": not self.ended}

    async def send(self, message: Message) -> None:
        """ASGI: the head waits for the first body message, so that both leave in one write."""
        if self.gone or self.answered:
            return
        if message["type"] == "http.response.start":
            self._head = self._build_head(message["status"], message["headers"])
            return
        more = message.get("more_body", False)
        data = b"" if self._bodiless else self._framed(message.get("body", b""), more=more)
        if not self.begun:
            self.begun = True
            data = self._head + data
        if data:
            self._connection.write(data)
        if more:
            await self._connection.writable()
            return
        self.answered = True
        self._connection.finished(self)

    def _framed(self, body: bytes, *, more: bool) -> bytes:
        if not self._chunked:
            return body
        data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return data if more else data + b"0\r\n\r\n"

    def _build_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        lines = [_STATUS[status], _date_line()]
        sized = False
        for name, value in headers:
            if name == b"connection":  # the one wish that an application can have of it is to close
                self.keep_alive = False
                continue
            if name == b"content-length":
                sized = True
            lines.append(name + b": " + value)
        if status in _BODILESS:
            self._bodiless = True
        elif sized:
            pass
        elif self.scope["http_version"] == "1.1":
            self._chunked = True
            lines.append(b"transfer-encoding: chunked")
        else:
            self.keep_alive = False
        if not self.keep_alive:
            lines.append(b"connection: close")
        lines.append(_END)
        return b"\r\n".join(lines)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Clock:
    second: ClassVar[int] = 0
    line: ClassVar[bytes] = b""


def _date_line() -> bytes:
    """The Date header, made once a second."""
    now = int(time.time())
    if now != _Clock.second:
        _Clock.second = now
        _Clock.line = b"date: %b" % formatdate(now, usegmt=True).encode()
    return _Clock.line
