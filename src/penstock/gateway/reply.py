"""Writes answers to an ASGI ``send``: JSON, event streams, and errors before or after the first byte."""

import asyncio
import functools
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from penstock.domain.answer import ChatEvent
from penstock.domain.errors import PenstockError
from penstock.gateway.admit import Admission
from penstock.gateway.dispatch import Opened
from penstock.gateway.limits.governor import Allowance
from penstock.gateway.underway import DISCONNECTED, KEY_EXPIRED, KEY_REVOKED, gone

_log = logging.getLogger("penstock.gateway")
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json")
_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_encode = msgspec.json.Encoder().encode


class Reply:
    """One request's way back to the client. ``started`` tells whether the status has been sent."""

    __slots__ = (
        "_admission",
        "_allowance",
        "_headers",
        "_route",
        "_send",
        "_stream",
        "dropped",
        "request_id",
        "started",
    )

    def __init__(self, send: Send, request_id: str, *, route_headers: bool = True) -> None:
        self._send = send
        self._route = route_headers
        self._admission: Admission | None = None
        self._allowance: Allowance | None = None
        self.request_id = request_id
        self.started = False
        self.dropped: tuple[str, ...] = ()
        self._stream = False
        self._headers: Headers = [(b"x-request-id", request_id.encode())]

    def expect(self, *, stream: bool, dropped: tuple[str, ...]) -> None:
        """What the request asked for, and the parameters that were dropped from it."""
        self._stream = stream
        self.dropped = dropped

    def limited(self, allowance: Allowance) -> None:
        """The answer tells what is left of these limits."""
        self._allowance = allowance

    def bounded(self, told: str) -> None:
        """The answer's bound, where it is not the client's own: ``512; budget``."""
        self._headers.append((b"penstock-max-tokens", told.encode()))

    def admitted(self, admission: Admission) -> None:
        """From here on there is something to tell of the request's way."""
        self._admission = admission

    async def begin(self, opened: Opened) -> None:
        """Headers that the answer's source decides; a stream's status goes out now."""
        if self._admission is not None and (stand_in := self._admission.model.stand_in) is not None:
            self._headers.append((b"penstock-stand-in", stand_in.encode()))
        self._tell_route()
        ignored = self.dropped + opened.ignored
        if ignored:
            self._headers.append((b"penstock-ignored-params", header_text(", ".join(ignored))))
        if self._stream:
            await self._send(self._started(200, _STREAM))

    async def event(self, event: ChatEvent) -> None:
        """One event of a stream, or the whole plain answer."""
        if not self._stream:
            await self.json(200, event.frame)
        elif event.frame or event.done:
            await self._send({"type": "http.response.body", "body": event.frame, "more_body": not event.done})

    async def error(self, error: PenstockError) -> None:
        """A refusal with its status, or the last event of a stream that had begun."""
        body = _encode(error.body())
        if self.started:
            frame = b"data: " + body + b"\n\n"
            await self._send({"type": "http.response.body", "body": frame, "more_body": False})
            return
        self._tell_route()
        if error.retry_after_s is not None:
            self._headers.append((b"retry-after", b"%d" % error.retry_after_s))
        if error.should_retry is not None:
            self._headers.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
        if error.status == 401:
            self._headers.append((b"www-authenticate", b"Bearer"))
        await self.json(error.status, body)

    async def json(self, status: int, body: bytes) -> None:
        """A whole JSON answer."""
        await self._send(self._started(status, [_JSON, (b"content-length", b"%d" % len(body))]))
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def failed(self, error: BaseException) -> None:
        """Tell why the request ended early: a refusal, a cut, or a bug without its stack trace."""
        if isinstance(error, PenstockError):
            await self.error(error)
        elif isinstance(error, asyncio.CancelledError):
            if (cut := _why_cut(error)) is not None:
                await self.error(cut)
        else:
            _log_failure(self.request_id, error)
            message = f"Internal error; quote {self.request_id} to the operator."
            await self.error(PenstockError("internal_error", message))

    async def relay(self, message: dict[str, Any]) -> None:
        """A message of an answer that was written elsewhere, with its own headers."""
        self.started = True
        await self._send(message)

    def twin(self, send: Send) -> "Reply":
        """The same request's way to another place, as long as nothing has been sent."""
        twin = Reply(send, self.request_id, route_headers=self._route)
        twin.expect(stream=self._stream, dropped=self.dropped)
        return twin

    def add_header(self, name: bytes, value: bytes) -> None:
        """One more header, before the status is sent."""
        self._headers.append((name, value))

    def _tell_route(self) -> None:
        """What was tried: how often, and which target the answer or the failure is of."""
        if self._route and self._admission is not None and (attempts := self._admission.tally.trail.attempts):
            trail = self._admission.tally.trail
            self._headers += _way(trail.uncalled or (trail.told or attempts[-1]).name, len(attempts))

    def _started(self, status: int, headers: Headers) -> dict[str, Any]:
        """The message that begins the answer."""
        self.started = True
        if self._allowance is not None:
            self._allowance.headers.add_to(self._headers)
        return {"type": "http.response.start", "status": status, "headers": [*headers, *self._headers]}


def _why_cut(cancelled: asyncio.CancelledError) -> PenstockError | None:
    """What a cancelled request's client is told; None when it has hung up."""
    for reason in cancelled.args:
        if reason == DISCONNECTED:
            return None
        if reason in (KEY_REVOKED, KEY_EXPIRED):
            return gone(reason)
    return PenstockError("shutting_down", "The server is stopping; try again.", retry_after_s=2)


def _log_failure(request_id: str, error: BaseException) -> None:
    """The type and the place: a message may hold what a client sent, so it is for the debug level alone."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    _log.error("request %s failed: %s at %s:%s", request_id, type(error).__name__, last.name, last.lineno)
    _log.debug("request %s failed", request_id, exc_info=error)


@functools.lru_cache(1024)
def _way(target: str, attempts: int) -> Headers:
    return [(b"penstock-target", header_text(target)), (b"penstock-attempts", b"%d" % attempts)]


def header_text(text: str) -> bytes:
    """Text as a header value: printable ASCII, anything else as a question mark, at most 1,000 bytes."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:1000]).encode("ascii")
