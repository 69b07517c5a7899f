"""Budgets, each of one object, period and currency, of one model or of all together, and how far they are spent."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, exc, func, insert, or_, select, update

from penstock.domain.ids import new_id
from penstock.domain.limits import Budget, Period, Scope, Spending, period_start
from penstock.store.database import Database
from penstock.store.errors import NotFoundError, RetryableError
from penstock.store.governance import budget_periods, budgets, leases
from penstock.store.metering.alerts import Audit, event_of, no_audit, tell
from penstock.store.metering.revisions import touch
from penstock.store.metering.spending import budget_of, open_period, set_anew
from penstock.store.metering.subjects import hold, hold_spending, of_app
from penstock.store.paging import Page, cut

# Bound variables of one statement; both databases take many more.
_BATCH = 500


class BudgetName(NamedTuple):
    """What there is one budget of; ``model`` is empty for all models together."""

    scope: Scope
    subject_id: str
    period: Period
    currency: str = "USD"
    model: str = ""


class DefaultName(NamedTuple):
    """Which budgets of origin default a row of the configuration stands for."""

    scope: str
    period: str
    currency: str
    model: str = ""


class BudgetStore:
    """Budgets by id, or by what there is one of. A change makes gateway workers read again what it concerns. ``audit``
    is told of one that has reached a threshold of its alerts when it is set, in the same transaction."""

    def __init__(self, db: Database, *, audit: Audit = no_audit) -> None:
        self._db = db
        self._audit = audit

    def find(self, budget_id: str) -> Budget | None:
        """The budget of that id, or None."""
        return self._find(select(budgets).where(budgets.c.id == budget_id))

    def find_named(self, name: BudgetName, *, held: bool = False) -> Budget | None:
        """That one, whether an operator or a default made it, or None; ``held`` keeps others from changing it until the
        transaction ends."""
        query = select(budgets).where(_is(name))
        return self._find(_held(query) if held else query)

    def get(self, budget_id: str) -> Budget:
        """The budget of that id. Raises NotFoundError."""
        found = self.find(budget_id)
        if found is None:
            raise NotFoundError("budget")
        return found

    def list(
        self,
        *,
        app_id: str | None = None,
        defaults: Sequence[DefaultName] = (),
        page: Page | None = None,
        at: datetime | None = None,
    ) -> tuple[Spending, ...]:
        """Budgets by ``id`` with what is spent in the period around ``at`` (now): all, or those that are about an app
        (store/metering/subjects.py). Of those that a default made, the ones that ``defaults`` still name."""
        query = cut(select(budgets), page, {"id": budgets.c.id}).where(_in_force(defaults))
        if app_id is not None:
            query = query.where(of_app(budgets, app_id))
        with self._db.read() as connection:
            rows = connection.execute(query).all()
            return spendings(connection, [budget_of(row) for row in rows], at=at or datetime.now(UTC))

    def spending(self, budget: Budget) -> Spending:
        """What is spent of it in the present period."""
        with self._db.read() as connection:
            return spendings(connection, [budget], at=datetime.now(UTC))[0]

    def put(self, budget: Budget) -> Budget:
        """Sets the one budget of that object, period, currency and model, which keeps its id if there is one, and opens
        its present period with what was spent before. ``id`` and times are given here. Raises NotFoundError when the
        object is gone."""
        now = datetime.now(UTC)
        name = BudgetName(budget.scope, budget.subject_id, budget.period, budget.currency, budget.model)
        values = {
            "amount_nanos": budget.amount_nanos,
            "alerts": list(budget.alerts),
            "origin": budget.origin,
            "updated_by": budget.updated_by,
            "updated_at": now,
        }
        with self._db.write() as connection:
            hold(connection, budget.scope, budget.subject_id)
            before = connection.execute(_held(select(budgets.c.amount_nanos).where(_is(name)))).scalar()
            if connection.execute(update(budgets).where(_is(name)).values(values)).rowcount == 0:
                named = {**name._asdict(), "scope": name.scope.value}
                try:
                    connection.execute(insert(budgets).values({"id": new_id(), **named, "created_at": now, **values}))
                except exc.IntegrityError as error:
                    raise RetryableError from error
            made = budget_of(connection.execute(select(budgets).where(_is(name))).one())
            starts_on = period_start(made.period, now)
            open_period(connection, made, starts_on)
            crossed = set_anew(connection, made, starts_on, changed=before != made.amount_nanos)
            for one in crossed:
                self._audit(event_of(one))
            self._db.at_commit(lambda _connection: tell(crossed))
            touch(self._db, budget.scope, budget.subject_id)
        return made

    def remove(self, budget_id: str) -> Budget:
        """Removes it with what is known of its periods; what it was. Raises NotFoundError."""
        with self._db.write() as connection:
            # In the order in which ``put`` takes the two.
            connection.execute(_held(select(budgets.c.id).where(budgets.c.id == budget_id)))
            hold_spending(connection)
            gone = connection.execute(delete(budgets).where(budgets.c.id == budget_id).returning(budgets)).first()
            if gone is None:
                raise NotFoundError("budget")
            touch(self._db, Scope(gone.scope), gone.subject_id)
        return budget_of(gone)

    def _find(self, query: Select[Any]) -> Budget | None:
        with self._db.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else budget_of(row)


def spendings(connection: Connection, found: Sequence[Budget], *, at: datetime) -> tuple[Spending, ...]:
    """Each of those budgets with what its period around ``at`` has spent, and what requests under way hold of it."""
    starts = {budget.id: period_start(budget.period, at) for budget in found}
    spent = {
        (row.budget_id, row.starts_on): (int(row.spent_nanos), int(row.alerted))
        for ids in _batches([*starts])
        for row in connection.execute(select(budget_periods).where(budget_periods.c.budget_id.in_(ids)))
    }
    granted = select(leases.c.counter, func.sum(leases.c.granted).label("held")).group_by(leases.c.counter)
    counters = [money_counter(id_, starts_on) for id_, starts_on in starts.items()]
    held = {
        row.counter: int(row.held)
        for names in _batches(counters)
        for row in connection.execute(granted.where(leases.c.counter.in_(names)))
    }
    return tuple(
        Spending(
            budget=budget,
            starts_on=starts[budget.id],
            spent_nanos=spent.get((budget.id, starts[budget.id]), (0, 0))[0],
            held_nanos=held.get(money_counter(budget.id, starts[budget.id]), 0),
            alerted=spent.get((budget.id, starts[budget.id]), (0, 0))[1],
        )
        for budget in found
    )


def money_counter(budget_id: str, starts_on: str) -> str:
    """The id of a budget's counter in one period."""
    return f"b:{budget_id}:{starts_on}"


def _held(query: Select[Any]) -> Select[Any]:
    # The ledger may go on to name the row as the one that a period is of.
    return query.with_for_update(key_share=True)


def _is(name: BudgetName) -> ColumnElement[bool]:
    return and_(
        budgets.c.scope == name.scope.value,
        budgets.c.subject_id == name.subject_id,
        budgets.c.model == name.model,
        budgets.c.period == name.period,
        budgets.c.currency == name.currency,
    )


def _in_force(defaults: Sequence[DefaultName]) -> ColumnElement[bool]:
    named = (
        and_(
            budgets.c.scope == one.scope,
            budgets.c.period == one.period,
            budgets.c.currency == one.currency,
            budgets.c.model == one.model,
        )
        for one in defaults
    )
    return or_(budgets.c.origin == "operator", *named)


def _batches(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[at : at + _BATCH] for at in range(0, len(names), _BATCH))
