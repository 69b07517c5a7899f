"""Which rules a request falls under, from who calls and which model they want: all of them hold together.

For each field the object's own row counts, else the default of its scope, and for an add-on's use of one model the
catalogue's plan limits; ``UNLIMITED`` anywhere on the way ends it. A row about all models together and one about a
single model stand beside each other.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from penstock.domain.catalogue import Model
from penstock.domain.limits import (
    UNLIMITED,
    Budget,
    Counter,
    LimitRow,
    Limits,
    Scope,
    Shared,
    period_end,
    period_start,
)
from penstock.domain.platform import Principal
from penstock.gateway.limits.defaults import Defaults


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One bound: ``who`` has it (``the app shop``), about ``model`` alone unless that is empty. For money, ``frees_at``
    is Unix time of the next period, None when there is none."""

    counter: Counter
    who: str
    model: str = ""
    frees_at: float | None = None


class MaxTokens(msgspec.Struct, frozen=True, kw_only=True):
    """So many output tokens in one request, and who says so."""

    limit: int
    who: str
    model: str = ""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """All that holds for one principal and model. ``since`` and ``until`` are Unix times between which the budgets'
    periods are the current ones; both None without a budget."""

    permits: tuple[Rule, ...] = ()
    requests: tuple[Rule, ...] = ()
    tokens: tuple[Rule, ...] = ()
    money: tuple[Rule, ...] = ()
    max_tokens: MaxTokens | None = None
    since: float | None = None
    until: float | None = None


class _Subject(NamedTuple):
    scope: Scope
    id: str
    who: str


def rules_for(principal: Principal, model: Model, *, shared: Shared, defaults: Defaults, now: float) -> Rules | None:
    """The rules; None when nothing bounds these requests. ``now`` is Unix time: it decides the budgets' periods."""
    subjects = _subjects(principal, model)
    found = list(_limits(subjects, model, (*principal.limits, *shared.limits), defaults))
    money, since, until = _money(subjects, model, (*principal.budgets, *shared.budgets), defaults, now)
    most = min((rule for rule in found if isinstance(rule, MaxTokens)), key=lambda rule: rule.limit, default=None)
    counted = [rule for rule in found if isinstance(rule, Rule)]
    if not counted and not money and most is None:
        return None

    def of(letter: str) -> tuple[Rule, ...]:
        return tuple(rule for rule in counted if rule.counter.id.startswith(letter))

    return Rules(
        permits=of("c:"),
        requests=of("r:"),
        tokens=of("t:"),
        money=money,
        max_tokens=most,
        since=since,
        until=until,
    )


def _subjects(principal: Principal, model: Model) -> tuple[_Subject, ...]:
    return (
        _Subject(Scope.KEY, principal.key_id, f"the key {principal.key_prefix}"),
        _Subject(Scope.ATTACHMENT, principal.attachment_id, f"the attachment {principal.attachment_name}"),
        _Subject(Scope.ADDON, principal.addon_id, f"the add-on {principal.addon_name or principal.addon_id}"),
        _Subject(Scope.APP, principal.app_id, f"the app {principal.app_name}"),
        _Subject(Scope.MODEL, model.id, f"the model {model.id}"),
    )


def _limits(
    subjects: Iterable[_Subject], model: Model, rows: Iterable[LimitRow], defaults: Defaults
) -> Iterator[Rule | MaxTokens]:
    own = {(row.scope, row.subject_id, row.model): row.limits for row in rows}
    for subject in subjects:
        for name in ("",) if subject.scope is Scope.MODEL else ("", model.id):
            said = [
                own.get((subject.scope, subject.id, name), _NOTHING),
                *defaults.limits_of(subject.scope, model, name),
            ]
            yield from _said(subject, name, said)


_NOTHING = Limits()


def _said(subject: _Subject, model: str, said: Iterable[Limits]) -> Iterator[Rule | MaxTokens]:
    """What an object may do, field by field the first that is said."""
    for field in Limits.__struct_fields__:
        limit = next((value for one in said if (value := getattr(one, field)) is not None), UNLIMITED)
        if limit == UNLIMITED:
            continue
        if field == "max_tokens":
            yield MaxTokens(limit=limit, who=subject.who, model=model)
            continue
        letter = _LETTERS[field]
        counter = Counter(
            id=f"{letter}:{subject.scope}:{subject.id}:{model}",
            kind="permit" if letter == "c" else "rate",
            limit=limit,
        )
        yield Rule(counter=counter, who=subject.who, model=model)


_LETTERS = {"requests_per_minute": "r", "tokens_per_minute": "t", "concurrent_requests": "c"}


def _money(
    subjects: Iterable[_Subject], model: Model, rows: Iterable[Budget], defaults: Defaults, now: float
) -> tuple[tuple[Rule, ...], float | None, float | None]:
    """The budgets that a request counts against, and from when to when their periods are these."""
    if model.rate is None:
        return (), None, None  # what has no price is charged nothing
    own = tuple(rows)
    at = datetime.fromtimestamp(now, UTC)
    found = []
    for subject in subjects:
        its = [row for row in own if (row.scope, row.subject_id) == (subject.scope, subject.id)]
        said = {(row.model, row.period, row.currency) for row in its}
        made = defaults.budgets_of(subject.scope, subject.id, model)
        its += [row for row in made if (row.model, row.period, row.currency) not in said]
        for budget in its:
            if budget.currency == model.rate.currency and budget.model in ("", model.id) and budget.amount_nanos >= 0:
                found.append(_budget_rule(subject, budget, at))
    if not found:
        return (), None, None
    # A day is the shortest period, and all others begin and end with one.
    began = at.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    return tuple(found), began, began + 86_400


def _budget_rule(subject: _Subject, budget: Budget, at: datetime) -> Rule:
    starts_on, ends = period_start(budget.period, at), period_end(budget.period, at)
    counter = Counter(
        id=f"b:{budget.id}:{starts_on}", kind="money", limit=budget.amount_nanos, budget=budget, starts_on=starts_on
    )
    return Rule(
        counter=counter, who=subject.who, model=budget.model, frees_at=ends.timestamp() if ends is not None else None
    )
