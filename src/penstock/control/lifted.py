"""Limits and budgets that go with their object: the audit log tells what they were, as of those removed by name."""

from typing import Any

import msgspec

from penstock.control.trail import Subject, record
from penstock.domain import money
from penstock.domain.limits import UNLIMITED, Budget, Limits, Scope
from penstock.domain.platform import Actor, App
from penstock.store.nouns.stores import Stores

UNLIMITED_WORD = "unlimited"


def bounds(limits: Limits) -> dict[str, Any]:
    """The fields of limits as answers have them."""
    fields = msgspec.structs.asdict(limits)
    return {name: UNLIMITED_WORD if value == UNLIMITED else value for name, value in fields.items()}


def budget_told(budget: Budget) -> dict[str, Any]:
    """What the audit log tells of a budget."""
    return {
        "amount": money.shown(budget.amount_nanos),
        "currency": budget.currency,
        "period": budget.period,
        "alerts": list(budget.alerts),
        "source": budget.origin,
    }


def row_subject(row_id: str, scope: Scope, name: str, model: str, app: App | None) -> Subject:
    """What an event about a limit or budget is about: one of the object of that scope and name, perhaps about a model
    alone."""
    return Subject(row_id, f"{scope} {name}" + (f" ({model})" if model else ""), app)


def record_lifted(stores: Stores, by: Actor, scope: Scope, id_: str, name: str, app: App) -> None:
    """Tells of all limits and budgets that operators have set on an object, which is about to be removed by someone who
    may not be one to set them. For the transaction of the removal."""
    rows, budgets = stores.governance.set_on(scope, id_)
    for row in rows:
        subject = row_subject(row.id, scope, name, row.model, app)
        record(stores, by, "limit.remove", subject=subject, before=bounds(row.limits))
    for budget in budgets:
        subject = row_subject(budget.id, scope, name, budget.model, app)
        record(stores, by, "budget.remove", subject=subject, before=budget_told(budget))
