"""The dispatch stage: the first target whose first event arrives wins; a failure before that may try the next."""

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from penstock.domain.catalogue import Target
from penstock.domain.chat import BoundRequest, ChatRequest, EventStream
from penstock.domain.errors import PenstockError
from penstock.domain.ids import new_completion_id
from penstock.gateway.wire import Parsed

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
    target: Target
    ignored: tuple[str, ...]


async def dispatch(
    targets: Sequence[Target], adapters: Mapping[str, Adapter], parsed: Parsed, *, fingerprint: str
) -> Opened:
    """Open the first target that answers; all attempts share one identity. Raises the last attempt's PenstockError."""
    now_ns = time.time_ns()
    completion_id, created = new_completion_id(now_ns), now_ns // 1_000_000_000
    for number, target in enumerate(targets, 1):
        adapter = adapters[target.provider]
        request = BoundRequest(parsed.chat, parsed.raw, target.model, completion_id, created, fingerprint)
        try:
            events = await adapter.open(request)
        except PenstockError as error:
            if number == len(targets) or error.code not in _TRY_NEXT:
                raise
            continue
        return Opened(events, target, adapter.ignored(parsed.chat))
    raise PenstockError("model_unavailable", "The model has no target.", param="model")
