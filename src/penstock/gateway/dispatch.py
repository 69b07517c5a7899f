"""The dispatch stage: the first target whose first event arrives wins; a failure before that may try the next."""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from penstock.domain.chat import BoundRequest, ChatRequest, EventStream
from penstock.domain.errors import PenstockError
from penstock.gateway.route import Attempt

# Failures that say nothing about the request itself, so another target may do better.
_TRY_NEXT = frozenset(
    {"engine_not_ready", "upstream_error", "upstream_closed", "upstream_timeout", "upstream_rate_limited"}
)


class Adapter(Protocol):
    """What dispatch needs of a provider."""

    async def open(self, request: BoundRequest) -> EventStream:
        """Wait for the first event; raises PenstockError before it, and the stream raises after it."""

    def ignored(self, chat: ChatRequest) -> tuple[str, ...]:
        """Parameters that are set and have no effect on this target."""


class Opened(msgspec.Struct, frozen=True):
    """An open event stream, where it comes from, and what it ignores."""

    events: EventStream
    attempt: Attempt
    ignored: tuple[str, ...]


async def dispatch(attempts: list[Attempt], adapters: Mapping[str, Adapter], request: BoundRequest) -> Opened:
    """Open the first attempt that answers. Raises the last attempt's PenstockError."""
    for number, attempt in enumerate(attempts, 1):
        adapter = adapters[attempt.provider]
        bound = msgspec.structs.replace(request, target_model=attempt.target_model)
        try:
            events = await adapter.open(bound)
        except PenstockError as error:
            if number == len(attempts) or error.code not in _TRY_NEXT:
                raise
            continue
        return Opened(events, attempt, adapter.ignored(request.chat))
    raise PenstockError("model_unavailable", "The model has no target.", param="model")
