"""What is told when a budget is used up to a threshold: in the audit log, and in a line of the log."""

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from penstock.domain.ids import new_id
from penstock.domain.limits import Budget, Scope
from penstock.domain.money import shown
from penstock.domain.platform import AuditEvent
from penstock.store.metering.subjects import Subject, describe

_log = logging.getLogger("penstock.budgets")
_SCOPES = {Scope.ADDON: "add-on"}


class Crossed(msgspec.Struct, frozen=True, kw_only=True):
    """A budget's spend has reached a threshold of its alerts, in percent, in the period that began on ``starts_on``; or
    it ``refuses`` a request that waiting does not help, whatever it has spent. ``subject`` is whose it is, None when
    that is gone."""

    budget: Budget
    percent: int
    starts_on: str
    spent_nanos: int = 0
    refuses: bool = False
    subject: Subject | None = None

    @property
    def whose(self) -> str:
        """Whose budget it is: ``key inf-ab12 of app shop``."""
        budget, subject = self.budget, self.subject
        kind = _SCOPES.get(budget.scope, budget.scope.value)
        if subject is None:
            return f"{kind} {budget.subject_id}"
        of_app = f" of app {subject.app_name}" if subject.app_name and budget.scope is not Scope.APP else ""
        return f"{kind} {subject.name}{of_app}"

    @property
    def said(self) -> str:
        """A line for people, in money and without ids."""
        budget = self.budget
        about = f", model {budget.model}," if budget.model else ""
        per = "in all" if budget.period == "total" else f"per {budget.period}, since {self.starts_on}"
        has = f"the budget of {self.whose}{about} of {shown(budget.amount_nanos)} {budget.currency} {per}"
        spent = f"{shown(self.spent_nanos)} {budget.currency}"
        if self.refuses:
            return f"{has} refuses requests that may cost more than is left: {spent} is in the ledger"
        return f"{has} has reached {self.percent} %: {spent} is spent"


def named(connection: Connection, crossed: Iterable[Crossed]) -> list[Crossed]:
    """The same with the names of whose budgets they are."""
    these = list(crossed)
    found = describe(connection, [(one.budget.scope, one.budget.subject_id) for one in these])
    return [msgspec.structs.replace(one, subject=found.get((one.budget.scope, one.budget.subject_id))) for one in these]


def event_of(crossed: Crossed) -> AuditEvent:
    """What the audit log is told."""
    budget, subject = crossed.budget, crossed.subject
    after: dict[str, Any] = {
        "percent": crossed.percent,
        "refuses": crossed.refuses,
        "amount": shown(budget.amount_nanos),
        "spent": shown(crossed.spent_nanos),
        "currency": budget.currency,
        "period": budget.period,
        "starts_on": crossed.starts_on,
        "model": budget.model or None,
    }
    return AuditEvent(
        at=datetime.now(UTC),
        actor_id=None,
        actor_email="penstock",
        source="local",
        request_id=new_id(),
        action="budget.alert",
        object_type="budget",
        object_id=budget.id,
        object_name=crossed.whose,
        app_id=subject.app_id if subject else budget.subject_id if budget.scope is Scope.APP else None,
        app_name=subject.app_name if subject else None,
        after=after,
    )


def tell(crossed: Iterable[Crossed]) -> None:
    """A line of the log for each, once what it tells of is committed."""
    for one in crossed:
        _log.warning("%s", one.said)


Audit = Callable[[AuditEvent], None]


def no_audit(_event: AuditEvent) -> None:
    """For a store beside which no audit log is kept."""
