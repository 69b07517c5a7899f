"""The HTTP/1.1 server protocol of the data plane: the server library's, with bounds on time and size.

Adds what a public listener needs and the library lacks: a deadline for heads and bodies (slow-loris), a bound on
header bytes, refusals in the API's own error shape, and a call back at the moment a client hangs up, which costs
nothing where waiting for the disconnect message would cost a task per request.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from penstock.domain.errors import PenstockError

_SWEEP_S = 0.5
_NEVER = float("inf")


class ProtocolLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds for a head and a body to arrive, and the most header bytes."""

    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    max_header_bytes: int = 64 * 1024


class Sweeper:
    """One timer for all connections of a worker, instead of one for each request."""

    def __init__(self) -> None:
        self.guarded: set[GuardedProtocol] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, protocol: "GuardedProtocol") -> None:
        """Check this connection until it is lost."""
        self.guarded.add(protocol)
        if self._timer is None:
            self._timer = protocol.loop.call_later(_SWEEP_S, self._sweep, protocol.loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for protocol in tuple(self.guarded):
            if protocol.deadline < now:
                protocol.expire()
        self._timer = loop.call_later(_SWEEP_S, self._sweep, loop) if self.guarded else None


class GuardedProtocol(HttpToolsProtocol):
    """One client connection. ``scope["extensions"]["penstock.hooks"]`` is called when it is lost."""

    limits = ProtocolLimits()
    sweeper = Sweeper()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deadline = _NEVER
        self._head_bytes = 0
        self._in_head = True
        self._hooks: list[Callable[[], None]] = []

    def connection_made(self, transport: Any) -> None:
        """Start the clock for the first head."""
        super().connection_made(transport)
        self._expect_head()
        self.sweeper.watch(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request under way that nobody listens."""
        self.sweeper.guarded.discard(self)
        hooks, self._hooks = self._hooks, []
        if self.cycle is not None and not self.cycle.response_complete:
            for hook in hooks:
                hook()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bound the head, then parse."""
        if self.parser is None or self.transport.is_closing():
            return
        if self._in_head:
            if self.deadline == _NEVER:
                self._expect_head()
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self.limits.max_header_bytes:
            self.refuse(PenstockError("header_too_large", f"Headers exceed {self.limits.max_header_bytes} bytes."))

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True
        self._hooks = []
        self.scope["extensions"] = {"penstock.hooks": self._hooks}

    def on_headers_complete(self) -> None:
        """The head is here: the clock for the body starts."""
        self._in_head = False
        self._head_bytes = 0
        self.deadline = self.loop.time() + self.limits.body_timeout_s
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole: no deadline while it is answered."""
        self.deadline = _NEVER
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What the parser refuses."""
        self.refuse(PenstockError("invalid_request", "This is not a valid HTTP/1.1 request."))

    def expire(self) -> None:
        """The deadline has passed: say so when something was sent, and close."""
        if self._in_head and self._head_bytes == 0:
            self.transport.close()
            return
        part = "headers" if self._in_head else "body"
        self.refuse(PenstockError("request_timeout", f"The request's {part} did not arrive in time."))

    def refuse(self, error: PenstockError) -> None:
        """Answer in the API's error shape, unless an answer has begun, and close."""
        self.deadline = _NEVER
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = msgspec.json.encode(error.body())
            self.transport.write(
                STATUS_LINE[error.status]
                + b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
                + body
            )
        self.transport.close()

    def _expect_head(self) -> None:
        self.deadline = self.loop.time() + self.limits.header_timeout_s


def guarded_protocol(limits: ProtocolLimits) -> type[GuardedProtocol]:
    """A protocol class bound to these limits; the server library wants a class."""
    return type("BoundProtocol", (GuardedProtocol,), {"limits": limits, "sweeper": Sweeper()})
