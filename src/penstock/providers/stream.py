"""The events of a streamed answer as they come from an upstream: what waits, what has failed, how it ends."""

from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from penstock.domain.answer import ChatEvent, Produced
from penstock.domain.errors import UpstreamError
from penstock.domain.usage import Usage
from penstock.providers import faults
from penstock.providers.connection import Response, TransportError

_ERROR_BODY_LIMIT = 64 * 1024
Block = TypeVar("Block")
Block_co = TypeVar("Block_co", covariant=True)


class Source(Protocol[Block_co]):
    """What a stream reads: a Response, in blocks of bytes, or a library's stream, in its own."""

    async def block(self) -> Block_co:
        """The next block; an empty one at the end. Raises TransportError."""

    def arrived(self) -> Block_co:
        """What has come and was not asked for; empty when there is nothing."""

    def begun(self) -> None:
        """The first event is there."""

    def let_go(self) -> None:
        """The answer was read to its end."""

    def close(self) -> None:
        """Hang up on the upstream."""


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


class Unshown(NamedTuple):
    """What has come and is in no event yet: deltas counted, the usage known and the upstream's own account of it."""

    tokens: int = 0
    usage: Usage | None = None
    raw_usage: bytes | None = None


class UpstreamStream(ABC, Generic[Block]):
    """Reads blocks of the body and hands out events, all that came before a failure first, then raises UpstreamError.

    A dialect fills ``_ready`` and ``_failure`` and sets ``_over`` when nothing more is to be read.
    """

    __slots__ = ("_failure", "_over", "_ready", "_source")

    def __init__(self, source: Source[Block]) -> None:
        self._source = source
        self._ready: deque[ChatEvent] = deque()
        self._failure: UpstreamError | None = None
        self._over = False

    @abstractmethod
    def whole(self) -> bool:
        """Whether the upstream's own end of a whole answer was seen."""

    @abstractmethod
    def _take(self, block: Block) -> None:
        """More of the body."""

    @abstractmethod
    def _end(self) -> None:
        """The body has ended as HTTP frames it."""

    @abstractmethod
    def _unshown(self) -> Unshown:
        """What the next event will carry beside its own, as it is now."""

    def arrived(self) -> list[ChatEvent]:
        """The events that are here already, for the meter: nobody will read on."""
        if not self._over and self._failure is None and (block := self._source.arrived()):
            self._take(block)
        left = self._unshown()
        events = [*self._ready, ChatEvent(b"", left.tokens, left.usage, raw_usage=left.raw_usage)]
        self._ready.clear()
        return events

    async def prime(self, produced: Produced | None = None) -> None:
        """Wait for the first event that shows a client something, and keep it for the reader; ``produced`` is told what
        came when that never does. Raises UpstreamError."""
        try:
            first = await anext(self)
        except BaseException as error:
            if produced is not None:
                for event in self.arrived():
                    produced.add(event.output_tokens, event.usage, event.raw_usage)
            if not isinstance(error, StopAsyncIteration):
                raise
            message = "The upstream ended without an answer. Try again."
            raise UpstreamError("upstream_closed", message) from None
        self._source.begun()
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
                block = await self._source.block()
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
            self._source.let_go()
        else:
            self._source.close()
