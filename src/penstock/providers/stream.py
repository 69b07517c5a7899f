"""The events of a streamed answer as they come from an upstream: what waits, what has failed, how it ends."""

from abc import ABC, abstractmethod
from collections import deque
from typing import Self

from penstock.domain.chat import ChatEvent
from penstock.domain.errors import UpstreamError
from penstock.providers import faults
from penstock.providers.connection import Response, TransportError

_ERROR_BODY_LIMIT = 64 * 1024


async def error_body(response: Response) -> bytes:
    """The body of an answer that is none, as far as it is of use and arrives: a status that says what is wrong keeps
    saying it when the body breaks off. Raises TransportError for a 200, which says nothing."""
    body = b""
    try:
        while len(body) < _ERROR_BODY_LIMIT and (block := await response.block()):
            body += block
    except TransportError:
        if response.status == 200:
            raise
    return body


class UpstreamStream(ABC):
    """Reads blocks of the body and hands out events, all that came before a failure first, then raises UpstreamError.

    A dialect fills ``_ready`` and ``_failure`` and sets ``_over`` when nothing more is to be read.
    """

    __slots__ = ("_failure", "_over", "_ready", "_response")

    def __init__(self, response: Response) -> None:
        self._response = response
        self._ready: deque[ChatEvent] = deque()
        self._failure: UpstreamError | None = None
        self._over = False

    @abstractmethod
    def whole(self) -> bool:
        """Whether the upstream's own end of a whole answer was seen."""

    @abstractmethod
    def _take(self, block: bytes) -> None:
        """More of the body."""

    @abstractmethod
    def _end(self) -> None:
        """The body has ended as HTTP frames it."""

    async def prime(self) -> None:
        """Wait for the first event that shows a client something, and keep it for the reader. Raises UpstreamError."""
        try:
            first = await anext(self)
        except StopAsyncIteration:
            message = "The upstream ended without an answer. Try again."
            raise UpstreamError("upstream_closed", message) from None
        self._response.begun()
        self._ready.appendleft(first)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatEvent:
        while not self._ready:
            if self._failure is not None:
                raise self._failure
            if self._over:
                raise StopAsyncIteration
            try:
                block = await self._response.block()
            except TransportError as error:
                raise faults.from_transport(error) from error
            if block:
                self._take(block)
            else:
                self._over = True
                self._end()
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Hang up unless the answer is complete."""
        if self.whole():
            self._response.let_go()
        else:
            self._response.close()
