"""The admit and settle stages: a request is either refused, or admitted in the journal and settled exactly once."""

import logging
import math
import time
from collections import deque
from typing import TypeVar

from penstock.domain.answer import ChatEvent
from penstock.domain.catalogue import Catalogue, Model
from penstock.domain.chat import ChatRequest
from penstock.domain.errors import PenstockError
from penstock.domain.ledger import INTERRUPTED
from penstock.domain.money import price_nanos, price_version
from penstock.domain.platform import STANDARD_PLAN, Principal
from penstock.domain.usage import Usage
from penstock.gateway.limits.governor import Held
from penstock.gateway.routing.attempt import Trail
from penstock.gateway.routing.spent import calling, cost, measured, under_way
from penstock.gateway.routing.window import estimate
from penstock.gateway.underway import LEFT
from penstock.ledger.journal import Journal, JournalError
from penstock.ledger.records import Admitted, Leg, Progress, Settled

_log = logging.getLogger("penstock.gateway")
_LONGEST_NAME = 256
Kind = TypeVar("Kind", bound=Settled)


class Tally:
    """What the meter has seen of one answer."""

    __slots__ = (
        "cached_percent",
        "chat",
        "done",
        "first_event_ms",
        "input_tokens",
        "output_tokens",
        "raw_usage",
        "started_at",
        "trail",
        "usage",
    )

    def __init__(self) -> None:
        self.started_at = time.monotonic()
        self.trail = Trail()
        self.usage: Usage | None = None
        self.raw_usage: bytes | None = None
        self.chat: ChatRequest | None = None  # what was asked, for an estimate of its length
        self.input_tokens: int | None = None  # the estimate, once somebody needs it
        self.output_tokens = 0
        self.first_event_ms: float | None = None
        self.done = False
        self.cached_percent: int | None = None  # of the price, for an answer out of the cache

    def add(self, event: ChatEvent) -> None:
        """Count one event."""
        if self.first_event_ms is None:
            self.first_event_ms = (time.monotonic() - self.started_at) * 1000
        self.output_tokens += event.output_tokens
        if event.usage is not None:
            self.usage, self.raw_usage = event.usage, event.raw_usage
        elif event.raw_usage is not None:  # one that cannot be read
            self.raw_usage = event.raw_usage
        self.done = event.done

    def final_usage(self, *, left: bool = False) -> Usage:
        """The upstream's own usage; as long as it has not said how many it generated, the deltas counted. Where it has
        said nothing, the prompt is estimated once its answer has begun, or when whoever asked has left a call that is
        under way; else nothing was produced."""
        if self.first_event_ms is None and self.usage is None:
            if (found := under_way(self.trail)) is None:
                read = self.prompt_tokens() if left and calling(self.trail) else 0
                # Where nobody was called nothing was estimated: it is known that there is nothing.
                counted = self.output_tokens > 0 or bool(self.trail.attempts)
                return Usage(input_tokens=read, output_tokens=self.output_tokens, estimated=counted)
            # Cut before anything could be shown: what the upstream thought by then counts.
            self.trail.told, produced = found
            self.output_tokens, self.usage, self.raw_usage = produced.tokens, produced.usage, produced.raw_usage
        return measured(self.usage, self._counted(), self.prompt_tokens, whole=self.done)

    def prompt_tokens(self) -> int:
        """About how long the prompt is, counted once and only when it is needed."""
        if self.input_tokens is None:
            self.input_tokens = 0 if self.chat is None else estimate(self.chat)
        return self.input_tokens

    def _counted(self) -> int:
        """The deltas, no more than may be generated: events without text are among them where blocks pass as they are,
        and what a budget holds for a request is a bound for its charge."""
        bound = None if self.chat is None else self.chat.most_output
        if self.chat is None or bound is None:
            return self.output_tokens
        return min(self.output_tokens, bound * (self.chat.n or 1))

    def queued_ms(self) -> float | None:
        """How long the request waited until an upstream was called; None when none was."""
        attempts = self.trail.attempts
        return (attempts[0].began_at - self.started_at) * 1000 if attempts else None


class Recent(dict[str, deque[Settled]]):
    """The last 64 completed answers of each model at this worker, by model id."""

    def __missing__(self, model_id: str) -> deque[Settled]:
        answers = self[model_id] = deque(maxlen=64)
        return answers

    def speed(self, model_id: str) -> str:
        """Mean time to the first event, and output tokens by time, in the words that Heroku's plugin prints."""
        answers = self.get(model_id)
        if not answers:
            return "no requests yet"
        latency_s = math.fsum(answer.first_event_ms or 0.0 for answer in answers) / len(answers) / 1000
        rate = sum(answer.output_tokens for answer in answers) / math.fsum(answer.total_ms for answer in answers) * 1000
        return f"latency {latency_s:.2f}sec, {rate:.0f} tokens/sec"


class Admission:
    """A held reservation: ``settle`` ends it, once, and with it what is under way for the request and what it holds of
    limits and budgets."""

    __slots__ = ("_held", "_journal", "_recent", "model", "request_id", "settled", "tally")

    def __init__(self, journal: Journal, request_id: str, model: Model, recent: Recent, held: Held | None) -> None:
        self._journal = journal
        self._recent = recent
        self._held = held
        self.request_id = request_id
        self.model = model
        self.tally = Tally()
        self.settled = False
        journal.open[self] = 0

    def settle(self, outcome: str) -> None:
        """Write the settlement unless it is written. One that the disk refuses is written as soon as it can be."""
        if self.settled:
            return
        self.settled = True
        self._journal.open.pop(self, None)
        try:
            settlement = self._settlement(outcome)
        except BaseException:
            self._release()
            raise
        if self._held is not None:
            tokens = settlement.input_tokens + settlement.output_tokens
            self._held.settle(tokens, settlement.amount_nanos, age_s=settlement.total_ms / 1000)
        if outcome == "completed" and not settlement.cached_answer:
            self._recent[self.model.id].append(settlement)
        try:
            self._journal.append(settlement)
        except JournalError as error:
            _log.error("request %s stays unsettled for now: %s", self.request_id, error)
            self._journal.late.append(settlement)

    def produced(self) -> int:
        """How much of the answer is there; 0 before its first event."""
        return 0 if self.tally.first_event_ms is None else 1 + self.tally.output_tokens + (self.tally.usage is not None)

    def progress(self) -> Progress:
        """What the settlement would say now, were the worker to die."""
        usage = self.tally.final_usage()
        return self._record(Progress, INTERRUPTED, usage, self.tally.trail.so_far(INTERRUPTED))

    def _release(self) -> None:
        if self._held is not None:
            self._held.release()

    def _settlement(self, outcome: str) -> Settled:
        usage = self.tally.final_usage(left=outcome in LEFT)
        return self._record(Settled, outcome, usage, self.tally.trail.end(outcome))

    def _record(self, kind: type[Kind], outcome: str, usage: Usage, attempts: tuple[Leg, ...]) -> Kind:
        tally = self.tally
        told = tally.trail.told
        rate, percent = self.model.rate, tally.cached_percent
        cached = percent is not None
        cost_nanos, cost_currency = (
            (0, rate.currency if rate else "USD") if cached else cost(tally.trail, usage, tally.prompt_tokens)
        )
        return kind(
            request_id=self.request_id,
            settled_at=time.time(),
            outcome=outcome,
            provider=told.target.provider if told else None,
            target_model=told.target.model if told else None,
            stand_in=self.model.stand_in,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_input_tokens=usage.cached_input_tokens,
            estimated=usage.estimated,
            first_event_ms=tally.first_event_ms,
            total_ms=(time.monotonic() - tally.started_at) * 1000,
            cache_write_tokens=usage.cache_write_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            attempts=attempts,
            amount_nanos=price_nanos(usage, rate, percent=100 if percent is None else percent) if rate else 0,
            currency=rate.currency if rate else "USD",
            price_version=price_version(rate) if rate else None,
            cost_nanos=cost_nanos,
            cost_currency=cost_currency,
            raw_usage=tally.raw_usage.decode("utf-8", "replace") if tally.raw_usage else None,
            queued_ms=tally.queued_ms(),
            cached_answer=cached,
        )


def may_use(catalogue: Catalogue, principal: Principal, model: Model) -> bool:
    """Whether the key's plan and the key itself have the model."""
    if principal.models is not None and model.id not in principal.models:
        return False
    return principal.model_id in (None, model.id) or catalogue.find(principal.model_id or "") is model


def allowed_model(catalogue: Catalogue, principal: Principal, name: str) -> Model:
    """The model of that name, when the key has it; ``standard`` is the key's default (see ``_default_name``). Raises
    PenstockError model_not_found, model_not_allowed."""
    if name == STANDARD_PLAN and catalogue.find(name) is None:
        name = _default_name(catalogue, principal)
    model = catalogue.get(name)
    limited = principal.models is not None or principal.model_id is not None
    if limited and not may_use(catalogue, principal, model):
        has = ", ".join(principal.models or (principal.model_id or "",))[:200]
        raise PenstockError("model_not_allowed", f"This key has {has} only, not '{name[:200]}'.", param="model")
    return model


def _default_name(catalogue: Catalogue, principal: Principal) -> str:
    """What the AI plugin 1.1.0 means by the model ``standard`` (heroku-wire.md 4.5): the plan's one model, else the
    first that the key is limited to, else the catalogue's default."""
    if principal.model_id is not None:
        return principal.model_id
    if principal.models:
        return principal.models[0]
    return STANDARD_PLAN if catalogue.default is None else catalogue.default.id


def admitted(
    principal: Principal,
    chat: ChatRequest,
    model: Model,
    *,
    request_id: str,
    held: Held | None = None,
    charge_id: bytes | None = None,
) -> Admitted:
    """What is written down of a request, with the budgets on which it holds money, and the id under which it is charged
    once."""
    return Admitted(
        request_id=request_id,
        admitted_at=time.time() if held is None else held.allowance.at(),
        key_id=principal.key_id,
        key_prefix=principal.key_prefix,
        app_id=principal.app_id,
        addon_id=principal.addon_id,
        attachment_id=principal.attachment_id,
        model=model.id,
        stream=bool(chat.stream),
        app_name=principal.app_name,
        asked=chat.model[:_LONGEST_NAME],
        money=held.counters if held is not None else (),
        idempotency_id=charge_id,
    )


def admit(record: Admitted, model: Model, *, journal: Journal, recent: Recent, held: Held | None = None) -> Admission:
    """Write the request down as admitted, with what it holds of limits and budgets.

    Raises PenstockError journal_unavailable when the record is not written; what it holds is put back then.
    """
    try:
        journal.append(record)
    except BaseException as error:
        if held is not None:
            held.release()
        if not isinstance(error, JournalError):
            raise
        raise PenstockError(
            "journal_unavailable", "Nothing can be admitted: the journal cannot be written.", retry_after_s=5
        ) from error
    return Admission(journal, record.request_id, model, recent, held)
