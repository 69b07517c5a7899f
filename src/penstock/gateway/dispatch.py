"""The dispatch stage: the first target whose first event arrives wins; a failure before that may try the next."""

import asyncio
import functools
import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from penstock.domain.answer import ChatEvent, EventStream, Produced
from penstock.domain.catalogue import Model, Target
from penstock.domain.chat import BoundRequest
from penstock.domain.errors import PenstockError, UpstreamError
from penstock.domain.ids import new_completion_id
from penstock.domain.value import Value
from penstock.gateway.routing.attempt import Attempt, Trail
from penstock.gateway.routing.board import Board
from penstock.gateway.routing.health import Health
from penstock.gateway.routing.hedge import Race
from penstock.gateway.routing.slots import Free
from penstock.gateway.routing.verdicts import Failures
from penstock.gateway.wire import Parsed

# What an adapter refuses by itself: the upstream was not called, so it is no attempt.
_BEFORE_ANY_CALL = frozenset({"unsupported_parameter", "unsupported_schema", "image_unavailable"})


class Adapter(Protocol):
    """What dispatch needs of a provider."""

    async def open(self, request: BoundRequest) -> EventStream:
        """Wait for the first event; raises PenstockError before it, and the stream raises after it."""

    def ignored(self, request: BoundRequest) -> tuple[str, ...]:
        """Parameters that are set and have no effect on this target."""


def bound(parsed: Parsed, model: Model, target: Target, *, fingerprint: str, app_id: str) -> BoundRequest:
    """The request as its first target gets it, with the identity that its answer will carry."""
    now_ns = time.time_ns()
    return BoundRequest(
        parsed.chat,
        parsed.raw,
        target.model,
        new_completion_id(now_ns),
        now_ns // 1_000_000_000,
        fingerprint,
        model.routing.timeouts,
        parsed.prompt_caching,
        isolation(fingerprint, app_id),
        Produced(),
    )


@functools.lru_cache(10_000)
def isolation(salt: str, app_id: str) -> str:
    """A name for an app that tells an upstream nothing of it."""
    return hashlib.blake2b(app_id.encode(), key=salt.encode()[:64], digest_size=16).hexdigest()


class Opened(Value, frozen=True):
    """An open event stream, the attempt that it comes from (None: it is out of the cache), and what its target
    ignores."""

    events: EventStream
    attempt: Attempt | None
    ignored: tuple[str, ...]


async def dispatch(
    targets: Sequence[Target],
    request: BoundRequest,
    *,
    model: Model,
    adapters: Mapping[str, Adapter],
    board: Board,
    trail: Trail,
) -> Opened:
    """Open the first target that answers, after as many attempts as the model allows; all share one identity.

    ``trail`` keeps every attempt, also when none is answered; the winner's end is told to it by the caller. Raises the
    most useful PenstockError of the attempts.
    """
    target = targets[0]
    health = board.health(target.name)
    tries: _Tries | None = None
    if not (model.routing.hedge or health.breaker.open_until or board.slots(target.provider)):
        # What nearly every request is, without ceremony.
        attempt, adapter = trail.begin(target, health, None), adapters[target.provider]
        attempt.produced = request.produced
        try:
            events = await adapter.open(request)
        except PenstockError as error:
            tries = _Tries(request, model, adapters, board, trail)
            tries.failed(attempt, error)
            targets = targets[1:]
        else:
            attempt.answered(streamed=request.chat.stream, timed=len(model.targets) > 1)
            trail.told = attempt
            return Opened(events, attempt, adapter.ignored(request))
    tries = tries or _Tries(request, model, adapters, board, trail)
    opened = await tries.all(deque(targets))
    trail.told = opened.attempt
    return opened


class _Tries:
    """The attempts of one request: one after the other, or two beside each other when the first is late."""

    __slots__ = ("_adapters", "_board", "_model", "_request", "_trail", "failures")

    def __init__(
        self, request: BoundRequest, model: Model, adapters: Mapping[str, Adapter], board: Board, trail: Trail
    ) -> None:
        self._request = request
        self._model = model
        self._adapters = adapters
        self._board = board
        self._trail = trail
        self.failures = Failures()

    @property
    def left(self) -> int:
        """Attempts that may still be made."""
        return self._model.routing.max_attempts - len(self._trail.attempts)

    async def all(self, ahead: deque[Target]) -> Opened:
        """One after the other, and after a pause again, while attempts are left. Raises PenstockError."""
        if self._model.routing.hedge:
            self._board.budget(self._model.id).requests += 1
        while True:
            while ahead and self.left > 0:
                target = ahead.popleft()
                hedged = self._model.routing.hedge and ahead and not self._trail.attempts
                opened = await (self.hedged(target, ahead) if hedged else self.one(target))
                if opened is not None:
                    return opened
            wait_s, again = self.failures.pause(self._board)
            if not again or self.left <= 0:
                told = self.failures.told()
                self._trail.told = told.attempt
                self._trail.uncalled = None if told.attempt else told.target.name
                raise told.error
            await asyncio.sleep(wait_s)
            ahead.extend(again)

    def failed(self, attempt: Attempt, error: PenstockError) -> None:
        """Note why an attempt failed. Raises PenstockError for what no other can mend."""
        status = error.upstream_status if isinstance(error, UpstreamError) else None
        attempt.end(error.code, retry_after_s=error.retry_after_s, status=status)
        if error.code in _BEFORE_ANY_CALL:
            self._trail.attempts.remove(attempt)
            self.failures.add(attempt.target, error)
            return
        self._trail.told = attempt
        self.failures.add(attempt.target, error, attempt)

    async def one(self, target: Target) -> Opened | None:
        """One attempt; None when it fails, or cannot be made. Raises PenstockError for what no other can mend."""
        health = self._board.health(target.name)
        free: Free | None = None
        if (slots := self._board.slots(target.provider)) is not None and not health.refused_for():
            health.outstanding += 1  # it waits for this target, and others should not choose it for that
            try:
                free = await slots.take(self._trail.app_id, self._trail.weight)
            except PenstockError as error:
                self.failures.add(target, error)
                return None
            finally:
                health.outstanding -= 1
        if not self._may_call(target, health):
            if free is not None:
                free()
            return None
        attempt = self._trail.begin(target, health, free)
        adapter, attempt.produced = self._adapters[target.provider], Produced()
        request = msgspec.structs.replace(self._request, target_model=target.model, produced=attempt.produced)
        try:
            events = await adapter.open(request)
        except PenstockError as error:
            self.failed(attempt, error)
            return None
        attempt.answered(streamed=request.chat.stream, timed=True)
        return Opened(events, attempt, adapter.ignored(request))

    def _may_call(self, target: Target, health: Health) -> bool:
        if seconds := health.refused_for():
            self.failures.rests(target, seconds)
            return False
        return self.left > 0 and not self.failures.too_small(target)

    async def hedged(self, target: Target, ahead: deque[Target]) -> Opened | None:
        """The same, with a second leg to the next target when the first event is late and the budget allows one."""
        streamed = self._request.chat.stream
        share, budget = self._model.routing.hedge_share, self._board.budget(self._model.id)
        late_s = self._board.health(target.name).speed(streamed=streamed).late_after()
        if late_s is None or self.left < 2 or not budget.allows(share):
            return await self.one(target)
        race = Race(_give_up)
        opened: Opened | None = None
        try:
            race.start(self.one(target))
            if await race.late(late_s) and (second := self._ready(ahead)) is not None and budget.take(share):
                ahead.remove(second)
                race.start(self.one(second))
            opened = await race.winner()
            await race.stop()
        except BaseException as error:
            if opened is not None:  # the client went while the other leg was being stopped
                await _give_up(opened)
            await race.stop()
            if isinstance(error, PenstockError):
                self._trail.end("cancelled")
            raise
        if opened is not None:
            for attempt in self._trail.attempts:
                if attempt is not opened.attempt:
                    attempt.lost(streamed=streamed)
        return opened

    def _ready(self, targets: Iterable[Target]) -> Target | None:
        return next((target for target in targets if not self._board.health(target.name).refused_for()), None)


async def _give_up(opened: Opened) -> None:
    if opened.attempt is not None and opened.attempt.produced is not None:
        for event in arrived(opened.events):
            opened.attempt.produced.add(event.output_tokens, event.usage, event.raw_usage)
    await opened.events.aclose()


def arrived(events: EventStream) -> Iterable[ChatEvent]:
    """The events that nobody has read of a stream that keeps some: what it says of usage counts all the same."""
    here: Callable[[], Iterable[ChatEvent]] = getattr(events, "arrived", tuple)
    return here()
