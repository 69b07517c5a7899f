"""The admission of requests to what limits and budgets allow: everything is held at once, or nothing is.

The fast path takes from the worker's leases in memory and waits for nothing; where a lease does not hold enough, the
slow path asks the store. What is held is settled exactly once, or put back.
"""

import asyncio
import functools
import time
from collections.abc import Callable

from penstock.domain.catalogue import Model
from penstock.domain.errors import PenstockError
from penstock.domain.platform import Principal
from penstock.gateway.limits import refusals
from penstock.gateway.limits.bounds import Bounds, Pricing, bounds, input_bound, input_estimate
from penstock.gateway.limits.defaults import Defaults
from penstock.gateway.limits.headers import RateHeaders
from penstock.gateway.limits.noted import RefusalLog
from penstock.gateway.limits.rules import Rule, Rules, rules_for
from penstock.gateway.limits.shared import SharedRules
from penstock.gateway.wire import Parsed, with_max_tokens
from penstock.ledger.bundle import Counters
from penstock.ledger.leases import Leases
from penstock.ledger.slices import REFUSED_S

_MAX_KNOWN = 50_000
_INSTANT_S = 0.001
# Other workers give back what is idle within a second: so long it is asked for again, whenever a refusal is forgotten.
_ROUNDS = 5
_ROUND_S = REFUSED_S + 0.05
_MOST_PATIENT = 64


class Governor:
    """Finds what holds for a principal and a model. One per served configuration; the leases outlive it."""

    def __init__(
        self, leases: Leases, shared: SharedRules, defaults: Defaults, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._leases = leases
        self._shared = shared
        self._defaults = defaults
        self._clock = clock
        self._seen = shared.now
        self.refused = RefusalLog()
        self._known: dict[tuple[str, str], tuple[Principal, Allowance | None]] = {}

    def allowance(self, principal: Principal, model: Model) -> "Allowance | None":
        """What the principal may do with the model; None when nothing bounds it."""
        if self._shared.now is not self._seen:
            self._seen = self._shared.now
            self._known.clear()
        known = self._known.get((principal.key_id, model.id))
        if known is not None and known[0] is principal:
            allowance = known[1]
            if allowance is None or allowance.rules.until is None or self._clock() < allowance.rules.until:
                return allowance
        return self._find(principal, model)

    def _find(self, principal: Principal, model: Model) -> "Allowance | None":
        rules = rules_for(principal, model, shared=self._seen, defaults=self._defaults, now=self._clock())
        allowance = None
        if rules is not None:
            assumed = self._defaults.assumed_output_tokens
            note = functools.partial(self.refused.note, principal, model.id)
            allowance = Allowance(self._leases, model, rules, assumed=assumed, clock=self._clock, note=note)
        self._known.pop((principal.key_id, model.id), None)
        self._known[principal.key_id, model.id] = principal, allowance
        if len(self._known) > _MAX_KNOWN:
            del self._known[next(iter(self._known))]
        return allowance


def governor(leases: Leases, shared: SharedRules, defaults: Defaults) -> Governor:
    """The governor of a worker, by the wall clock."""
    return Governor(leases, shared, defaults)


# Has the log told of a refusal, with the request's id.
Note = Callable[[PenstockError, str], None]


class Allowance:
    """What one principal may do with one model. ``hold`` is for the hot path, ``obtain`` for when that has nothing."""

    __slots__ = (
        "_assumed", "_bounded", "_clock", "_least_rate", "_model", "_note", "_numbers", "_patient", "bundle", "headers",
        "leases", "money_ids", "pricing", "rules",
    )  # fmt: skip

    def __init__(
        self, leases: Leases, model: Model, rules: Rules, *, assumed: int, clock: Callable[[], float], note: Note
    ) -> None:
        self.leases = leases
        self.rules = rules
        kinds = (rules.permits, rules.requests, rules.tokens, rules.money)
        self.bundle = leases.bundle(Counters(*(tuple(rule.counter for rule in kind) for kind in kinds)))
        self.headers = RateHeaders(self.bundle, rules)
        self.pricing = Pricing(model.rate) if rules.money and model.rate else None
        self.money_ids = tuple(rule.counter.id for rule in rules.money)
        self._model = model
        self._clock = clock
        self._assumed = assumed if rules.money else None
        self._bounded = rules.max_tokens is not None or self.pricing is not None
        self._numbers = tuple(len(kind) for kind in kinds)
        self._least_rate = min((rule.counter.limit for rule in rules.tokens), default=None)
        self._note = note
        self._patient = 0

    def hold(self, parsed: Parsed) -> "Held | None":
        """Take everything that the request needs out of memory, or nothing: then None. Never waits."""
        try:
            held = self._needs(parsed)
        except PenstockError:
            return None  # ``obtain`` raises it, and has it noted
        if not self.bundle.take(held.tokens, held.money):
            return None
        held.permits, held.requests, held.rates, held.budgets = self._numbers
        if not held.money:
            held.budgets = 0
        return held

    async def obtain(self, parsed: Parsed, request_id: str = "") -> "Held":
        """The same, asking the store for what is not in memory. Raises PenstockError concurrency_limit_exceeded,
        rate_limit_exceeded, budget_exceeded, max_tokens_exceeded, limits_unavailable; nothing is held then, nor when
        the wait is cancelled. The log is told of a refusal, by the request's id."""
        try:
            return await self._obtain(parsed)
        except PenstockError as error:
            self._note(error, request_id)
            raise

    async def _obtain(self, parsed: Parsed) -> "Held":
        held = self._needs(parsed)
        rules = self.rules
        self.bundle.expect(held.tokens, held.money)
        try:
            for rule in rules.permits:
                if not await self._one(rule, 1):
                    raise refusals.no_permit(rule, self.leases.frees_in_s(rule.counter))
                held.permits += 1
            for rule in rules.requests:
                if not await self._one(rule, 1):
                    raise refusals.too_fast(rule, self.leases.frees_in_s(rule.counter))
                held.requests += 1
            for rule in rules.tokens:
                if not await self._one(rule, held.tokens):
                    left, frees_in_s = self.leases.left(rule.counter)[0], self.leases.frees_in_s(rule.counter)
                    raise refusals.too_many(rule, frees_in_s, left=left, needs=held.tokens)
                held.rates += 1
            if held.money:
                await self._hold_money(held)
        except BaseException:
            held.release()
            raise
        return held

    async def _one(self, rule: Rule, units: int) -> bool:
        return self.leases.take(rule.counter, units) or await self.leases.obtain(rule.counter, units) > 0

    async def _hold_money(self, held: "Held") -> None:
        """Of every budget the same, as much as the poorest has."""
        leases, whole, least = self.leases, held.money, held.least
        for rule in self.rules.money:
            got = held.money
            if not leases.take(rule.counter, got):
                got = await self._money(rule, held.money, least)
                if not got:
                    raise self._refused(rule, held)
            if got < held.money:
                for earlier in self.rules.money[: held.budgets]:
                    leases.put_back(earlier.counter, held.money - got)
                held.money = got
            held.budgets += 1
        if held.money < whole:
            assert self.pricing is not None
            assert held.bounds is not None
            tokens = self.pricing.affords(held.money, held.input)
            if tokens is not None:
                held.bounds = held.bounds.within(tokens)

    async def _money(self, rule: Rule, units: int, least: int) -> int:
        """Of one budget; asks again for a moment where other workers hold what is missing, which may be idle there."""
        leases, counter = self.leases, rule.counter
        got = await leases.obtain(counter, units, least=least)
        if got or self._patient >= _MOST_PATIENT:
            return got
        self._patient += 1
        try:
            for _ in range(_ROUNDS - 1):
                left, elsewhere = leases.left(counter)[0], leases.on_hold(counter)[1]
                if got or not left < least <= left + elsewhere:
                    break
                await asyncio.sleep(_ROUND_S)
                got = await leases.obtain(counter, units, least=least)
        finally:
            self._patient -= 1
        return got

    def _refused(self, rule: Rule, held: "Held") -> PenstockError:
        left, on_hold = self.leases.left(rule.counter)[0], self.leases.on_hold(rule.counter)[0]
        return refusals.no_money(rule, left=left, least=held.least, on_hold=on_hold, now=self._clock())

    def _needs(self, parsed: Parsed) -> "Held":
        """What the request is to hold; nothing is held yet. Raises PenstockError max_tokens_exceeded."""
        held = Held(self)
        if self._least_rate is not None:
            # One that is larger than a limit waits for an empty window instead of for ever.
            held.tokens = min(input_estimate(parsed), self._least_rate)
        if not self._bounded:
            return held
        most = self.rules.max_tokens
        made = bounds(parsed, self._model, limit=most.limit if most else None, assumed=self._assumed)
        if made is None:
            assert most is not None
            raise refusals.too_many_tokens(most)
        held.bounds = made
        if self.pricing is not None:
            held.input = input_bound(parsed, self._model)
            held.money = self.pricing.worst(held.input, made.whole)
        return held

    def at(self) -> float:
        """Unix time of an admission, within the budgets' periods that were held from."""
        now, rules = self._clock(), self.rules
        if rules.since is None or rules.until is None:
            return now
        return min(max(now, rules.since), rules.until - _INSTANT_S)


class Held:
    """What one request holds: one unit of each of the first ``permits`` and ``requests``, ``tokens`` of the first
    ``rates`` and ``money``, in 10^-9, of the first ``budgets``; ``input`` is the most that its prompt counts for. Ended
    by ``settle`` or ``release``, whichever comes first."""

    __slots__ = (
        "allowance", "bounds", "budgets", "ended", "input", "money", "permits", "rates", "requests", "tokens",
    )  # fmt: skip

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.bounds: Bounds | None = None
        self.permits = self.requests = self.rates = self.budgets = 0
        self.tokens = self.money = self.input = 0
        self.ended = False

    @property
    def least(self) -> int:
        """The least money, in 10^-9, with which the request can be sent."""
        pricing, made = self.allowance.pricing, self.bounds
        if pricing is None or made is None:
            return 0
        return min(pricing.worst(self.input, made.whole), pricing.worst(self.input, made.least))

    @property
    def counters(self) -> tuple[str, ...]:
        """The counters of which it holds money, for the journal."""
        return self.allowance.money_ids if self.budgets else ()

    @property
    def told(self) -> str | None:
        """What the answer says of a ``max_tokens`` that is not the client's: ``512; budget``. None when it is."""
        made = self.bounds
        return f"{made.send}; {made.why}" if made is not None and made.send is not None else None

    @property
    def shortens(self) -> bool:
        """Whether the answer may end before its end, for a ``max_tokens`` that is not the client's."""
        return self.bounds is not None and self.bounds.send is not None

    def bounded(self, parsed: Parsed) -> Parsed:
        """The request with the ``max_tokens`` that it may have."""
        made = self.bounds
        return parsed if made is None or made.send is None else with_max_tokens(parsed, made.send)

    def settle(self, tokens: int, amount: int, *, age_s: float = 0.0) -> None:
        """The request has ended, ``age_s`` seconds after it took what it holds: it used so many tokens and is charged
        so much, in 10^-9."""
        if self.ended:
            return
        self.ended = True
        money = self.money if self.budgets else 0
        self.allowance.bundle.settle(tokens - self.tokens, money, amount, age_s=age_s)

    def release(self) -> None:
        """The request is not admitted after all: everything goes back."""
        if self.ended:
            return
        self.ended = True
        leases, rules = self.allowance.leases, self.allowance.rules
        for rule in (*rules.permits[: self.permits], *rules.requests[: self.requests]):
            leases.put_back(rule.counter, 1)
        for rule in rules.tokens[: self.rates]:
            leases.put_back(rule.counter, self.tokens)
        for rule in rules.money[: self.budgets]:
            leases.put_back(rule.counter, self.money)
