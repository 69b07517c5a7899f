"""The line that every chat request takes, stage by stage. What it promises, each pinned by a test:

1. Every admitted request ends in exactly one settle, whatever happens: disconnect, revocation, crash of the upstream.
   What a killed worker had open stays in its journal as admitted, for the ledger to settle.
2. No upstream call before admission; no byte to the client before the first upstream event, so that early failures
   keep their HTTP status.
3. Fallback only before the first event. After it a failure ends the stream with a typed error, never with an
   invented finish_reason or usage.
4. Stages take and return values; none receives the web request.
5. One path: streamed and plain answers run through the same stages.
6. The price belongs to the catalogue model that was asked for; what served it is recorded beside it.
7. The hot path never waits for the database: keys come from the snapshot, limits from leases, usage goes to the
   journal. The store is asked where a lease is used up.
"""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Protocol

from penstock.domain.answer import ChatEvent, Whole
from penstock.domain.catalogue import Catalogue
from penstock.domain.errors import PenstockError
from penstock.domain.platform import STANDARD_PLAN, Principal
from penstock.domain.value import Value
from penstock.gateway.admit import Admission, Recent, admit, admitted, allowed_model
from penstock.gateway.content import Contents, Kept
from penstock.gateway.dispatch import Adapter, Opened, arrived, bound, dispatch
from penstock.gateway.limits.governor import Allowance, Governor, Held
from penstock.gateway.route import route
from penstock.gateway.routing.board import Board
from penstock.gateway.underway import LEFT
from penstock.gateway.wire import Parsed, with_model
from penstock.ledger.journal import Journal


class Line(Value, frozen=True):
    """What the stages of one worker work with."""

    catalogue: Catalogue
    adapters: Mapping[str, Adapter]
    journal: Journal
    fingerprint: str
    recent: Recent
    board: Board
    governor: Governor
    contents: Contents | None = None


class Out(Protocol):
    """Where the answer goes."""

    def limited(self, allowance: Allowance) -> None:
        """The request falls under limits, which every answer tells of, a refusal too."""

    def bounded(self, told: str) -> None:
        """What it may generate is not what the client asked for: so many tokens, and why."""

    def admitted(self, admission: Admission) -> None:
        """The request is held; its tally tells what was tried for it, also when that fails."""

    async def begin(self, opened: Opened) -> None:
        """The first event has arrived: status and headers are settled."""

    async def event(self, event: ChatEvent) -> None:
        """One event's bytes."""


class Origin(Value, frozen=True):
    """What is special about a request: the id under which it is charged once, and the answer, if it is out of the
    cache, with the percentage of its price that is charged."""

    charge_id: bytes | None = None
    cached: Opened | None = None
    percent: int = 100


_PLAIN = Origin()


async def run_line(
    line: Line, principal: Principal, parsed: Parsed, *, request_id: str, out: Out, origin: Origin = _PLAIN
) -> None:
    """Serve one authenticated request. Raises PenstockError; the admission is settled by then."""
    model, app_id = allowed_model(line.catalogue, principal, parsed.chat.model), principal.app_id
    held = None
    allowance = line.governor.allowance(principal, model)
    if allowance is not None:
        out.limited(allowance)
        held = allowance.hold(parsed) or await allowance.obtain(parsed, request_id)
        parsed = _bounded(held, parsed, out)
    record = admitted(principal, parsed.chat, model, request_id=request_id, held=held, charge_id=origin.charge_id)
    admission = admit(record, model, journal=line.journal, recent=line.recent, held=held)
    admission.tally.chat = parsed.chat
    out.admitted(admission)
    trail = admission.tally.trail
    trail.app_id, trail.weight = app_id, principal.policy.weight
    kept = _kept(line.contents, principal, parsed, admission)
    outcome = "internal_error"
    try:
        # A whole answer is more than what a shortened request may have.
        opened = origin.cached if held is None or not held.shortens else None
        if opened is not None:
            admission.tally.cached_percent = origin.percent
        else:
            if parsed.chat.model == STANDARD_PLAN:
                parsed = with_model(parsed, model.id)
            targets = route(model, parsed, line.board, app_id=app_id)
            opened = await dispatch(
                targets,
                bound(parsed, model, targets[0], fingerprint=line.fingerprint, app_id=app_id),
                model=model,
                adapters=line.adapters,
                board=line.board,
                trail=trail,
            )
        await _relay(opened, admission, out, kept)
        outcome = "completed"
    except PenstockError as error:
        outcome = error.code
        raise
    except asyncio.CancelledError as cancelled:
        outcome = next((reason for reason in cancelled.args if reason in LEFT), "cancelled")
        raise
    finally:
        admission.settle(outcome)
        if kept is not None and line.contents is not None:
            line.contents.end(kept, outcome)


def _bounded(held: Held, parsed: Parsed, out: Out) -> Parsed:
    """The request with no more output than it may have, which the answer tells."""
    if (told := held.told) is None:
        return parsed
    try:
        out.bounded(told)
        return held.bounded(parsed)
    except BaseException:
        held.release()
        raise


def _kept(contents: Contents | None, principal: Principal, parsed: Parsed, admission: Admission) -> Kept | None:
    """Where prompt and answer are collected, for an app that has them kept."""
    if contents is None or principal.policy.content_days is None:
        return None
    return Kept(principal, admission.model.id, parsed, request_id=admission.request_id)


async def _relay(opened: Opened, admission: Admission, out: Out, kept: Kept | None) -> None:
    """Events to the client; the settlement is written before the last byte, so a whole answer is a settled one."""
    tally = admission.tally
    if isinstance(opened.events, Whole):  # iterating over one event costs more than all of this
        event = opened.events.event
        tally.add(event)
        await out.begin(opened)
        if kept is not None:
            kept.add(event.frame)
        admission.settle("completed")
        await out.event(event)
        return
    async with aclosing(opened.events) as events:
        try:
            async for event in events:
                begins = tally.first_event_ms is None
                tally.add(event)
                if begins:
                    await out.begin(opened)
                if kept is not None:
                    kept.add(event.frame)
                if event.done:
                    admission.settle("completed")
                await out.event(event)
        except asyncio.CancelledError:
            # Whoever asked has gone; what has come for them was produced, and may tell the usage.
            for event in arrived(events):
                tally.add(event)
            raise
    if not tally.done:
        raise PenstockError("upstream_closed", "The upstream ended early; what arrived is incomplete. Try again.")
