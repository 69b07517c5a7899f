"""The events that an adapter yields for a chat request, and what is known of an answer that had none."""

from collections.abc import AsyncIterator, Awaitable
from typing import Protocol, Self

from penstock.domain.usage import Usage
from penstock.domain.value import Value


class ChatEvent(Value, frozen=True):
    """What an adapter yields: bytes for the client in our dialect, and what the meter needs of them.

    ``frame`` is one or more whole SSE events (streamed request) or the whole JSON answer (plain request); it may be
    empty when the event only carries ``usage``. ``output_tokens`` counts the deltas in the frame, for the meter's
    estimate when no usage ever comes. ``done`` marks the last event of a complete answer: an adapter that ends
    without it has been cut, and the pipeline treats that as a failure. ``raw_usage`` is what the upstream itself said
    of usage so far, as JSON, kept beside what we make of it, also when we can make nothing of it.
    """

    frame: bytes
    output_tokens: int = 0
    usage: Usage | None = None
    done: bool = False
    raw_usage: bytes | None = None


class Produced:
    """What an upstream is known to have produced for a call whose ``open`` ended without a first event: the adapter
    writes it, the meter reads it. ``tokens`` counts deltas. Of an open stream the events say it."""

    __slots__ = ("raw_usage", "tokens", "usage")

    def __init__(self) -> None:
        self.tokens = 0
        self.usage: Usage | None = None
        self.raw_usage: bytes | None = None

    def __bool__(self) -> bool:
        return self.tokens > 0 or self.usage is not None

    def add(self, tokens: int, usage: Usage | None, raw_usage: bytes | None) -> None:
        """So much more; the last usage counts."""
        self.tokens += tokens
        if usage is not None:
            self.usage, self.raw_usage = usage, raw_usage
        elif raw_usage is not None:
            self.raw_usage = raw_usage


class EventStream(Protocol):
    """The events of one answer, in order; ``aclose`` gives up the rest and hangs up on the upstream."""

    def __aiter__(self) -> AsyncIterator[ChatEvent]: ...

    def __anext__(self) -> Awaitable[ChatEvent]: ...

    def aclose(self) -> Awaitable[None]:
        """Safe to call at any time, more than once."""


class Whole:
    """The event stream of a plain answer: its one ``event``."""

    __slots__ = ("_read", "event")

    def __init__(self, event: ChatEvent) -> None:
        self.event = event
        self._read = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatEvent:
        if self._read:
            raise StopAsyncIteration
        self._read = True
        return self.event

    async def aclose(self) -> None:
        """Nothing is held: the answer has been read whole."""
