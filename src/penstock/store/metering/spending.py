"""What budgets have spent: sums of the ledger's entries, kept with every entry, by budget and period."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Column, Connection, Row, bindparam, func, insert, select, tuple_, update

from penstock.domain.errors import PenstockError
from penstock.domain.ids import new_id
from penstock.domain.ledger import DAY_US
from penstock.domain.limits import Budget, Counter, Scope, period_end, period_start
from penstock.store.database import Database
from penstock.store.engines.inserting import insert_into
from penstock.store.governance import budget_periods, budgets, ledger_days, ledger_head
from penstock.store.metering.alerts import Audit, Crossed, event_of, named, tell
from penstock.store.metering.ledger import AMOUNT, Sums

T = TypeVar("T")

_EPOCH = date(1970, 1, 1)
_AT_ONCE = 400
_KNOWN_PERIODS = 10_000
# Where an entry, or a day's sum, names the object of each scope.
_SUBJECTS: dict[Scope, str] = {
    Scope.KEY: "key_id",
    Scope.ATTACHMENT: "attachment_id",
    Scope.ADDON: "addon_id",
    Scope.APP: "app_id",
    Scope.MODEL: "model",
}
# Of each batch of the ledger: built once, for that takes longer than running them.
_PERIOD = budget_periods.c
_BUDGETS = select(budgets).where(
    tuple_(budgets.c.scope, budgets.c.subject_id).in_(bindparam("subjects", expanding=True))
)
_OPENED = select(_PERIOD.budget_id, _PERIOD.starts_on, _PERIOD.spent_nanos, _PERIOD.alerted).where(
    tuple_(_PERIOD.budget_id, _PERIOD.starts_on).in_(bindparam("periods", expanding=True))
)
_ADD = (
    update(budget_periods)
    .where(_PERIOD.budget_id == bindparam("of"), _PERIOD.starts_on == bindparam("since"))
    .values(spent_nanos=_PERIOD.spent_nanos + bindparam("more"))
)
_UNIQUE = ("scope", "subject_id", "model", "period", "currency")


def open_period(connection: Connection, budget: Budget, starts_on: str) -> int:
    """What a budget has spent in a period, in 10^-9. The first one to ask sums the ledger's days, while the ledger
    waits; from then on ``add_spent`` keeps the sum. One that was removed has spent nothing, and
    nothing is kept."""
    row = budget_periods.c
    found = select(row.spent_nanos).where(row.budget_id == budget.id, row.starts_on == starts_on)
    spent: int | None = connection.execute(found).scalar()
    if spent is not None:
        return spent
    connection.execute(select(ledger_head.c.seq).with_for_update()).all()
    if not connection.execute(select(budgets.c.id).where(budgets.c.id == budget.id)).all():
        return 0
    spent = connection.execute(found).scalar()
    if spent is None:
        spent = _sum_of_days(connection, budget, starts_on)
        values = {"budget_id": budget.id, "starts_on": starts_on, "spent_nanos": spent, "alerted": 0}
        connection.execute(insert(budget_periods).values(values))
    return spent


def default_budget(connection: Connection, budget: Budget) -> str:
    """The id of the row for a budget out of penstock.toml, made or brought up to date. An operator's own for the same
    object and period stays as it is."""
    same = [budgets.c[name] == getattr(budget, name) for name in _UNIQUE]
    found = connection.execute(select(budgets).where(*same)).first()
    if found is not None and (
        found.origin != "default" or (found.amount_nanos, tuple(found.alerts)) == (budget.amount_nanos, budget.alerts)
    ):
        return str(found.id)
    now = datetime.now(UTC)
    values = {name: getattr(budget, name) for name in (*_UNIQUE, "amount_nanos", "origin", "updated_by")}
    values |= {"alerts": list(budget.alerts), "created_at": now, "updated_at": now}
    write = insert_into(budgets, connection.dialect.name).values(id=budget.id or new_id(), **values)
    # Two workers may see it missing at once.
    write = write.on_conflict_do_update(
        index_elements=_UNIQUE,
        set_={name: write.excluded[name] for name in ("amount_nanos", "alerts", "updated_at")},
        where=budgets.c.origin == "default",
    )
    connection.execute(write)
    return str(connection.execute(select(budgets.c.id).where(*same)).scalar_one())


class _Charged(NamedTuple):
    """What entries of one day have in common that are charged to the same budgets; the ids in the order of
    ``_SUBJECTS``."""

    day: int
    currency: str
    key_id: str
    attachment_id: str
    addon_id: str
    app_id: str
    model: str

    def subjects(self) -> Iterator[tuple[Scope, str]]:
        """The objects whose budgets they count for."""
        return zip(_SUBJECTS, self[2:], strict=True)


def _charged(sums: Sums) -> dict[_Charged, int]:
    """The amounts of entries, those together that count for the same budgets."""
    found: defaultdict[_Charged, int] = defaultdict(int)
    for of, added in sums.items():
        if amount := added[AMOUNT]:
            one = _Charged(of.day, of.currency, of.key_id, of.attachment_id, of.addon_id, of.app_id, of.model)
            found[one] += amount
    return found


def add_spent(connection: Connection, added: Sums) -> list[Crossed]:
    """Adds new entries to the periods of all budgets that they count for, and says which thresholds were reached for
    the first time. For the transaction that appends them, which has the ledger's head locked and the entries in
    ``ledger_days`` already."""
    charged = _charged(added)
    rules = _budgets_of(connection, charged)
    sums: defaultdict[tuple[str, str], int] = defaultdict(int)
    for one, amount in charged.items():
        at = datetime.fromtimestamp(one.day * DAY_US / 1e6, UTC)
        for subject in one.subjects():
            for budget in rules.get(subject, ()):
                if budget.model in ("", one.model) and budget.currency == one.currency:
                    sums[budget.id, period_start(budget.period, at)] += amount
    if not sums:
        return []
    by_id = {budget.id: budget for found in rules.values() for budget in found}
    opened = _periods(connection, sums)
    for id_, starts_on in sorted(sums.keys() - opened.keys()):
        # Its days hold the new entries too.
        open_period(connection, by_id[id_], starts_on)
    if opened:
        connection.execute(
            _ADD, [{"of": id_, "since": since, "more": sums[id_, since]} for id_, since in sorted(opened)]
        )
    return _crossed(connection, by_id, _periods(connection, sums))


def set_anew(connection: Connection, budget: Budget, starts_on: str, *, changed: bool) -> list[Crossed]:
    """What is told at once when a budget is set, with a period that is open: the highest threshold that it has reached
    already, unless that was told. Where its amount has ``changed``, the thresholds above are told again."""
    spent, alerted = _periods(connection, [(budget.id, starts_on)])[budget.id, starts_on]
    reached = [*_reached(budget, spent, 0)] if spent else []
    highest = max(reached, default=0)
    _note_told(connection, (budget.id, starts_on), highest if changed else max(alerted, highest))
    if highest <= alerted:
        return []
    return named(connection, [Crossed(budget=budget, percent=highest, starts_on=starts_on, spent_nanos=spent)])


class Refusals:
    """Tells of budgets that refuse what waiting does not help: that counts as the highest of their thresholds, once in
    a period."""

    def __init__(self, db: Database, audit: Audit) -> None:
        self._db = db
        self._audit = audit
        # Counters and limits whose refusal was told.
        self._told: set[tuple[str, int]] = set()

    def tell(self, counter: Counter, budget_id: str) -> None:
        """In a transaction of its own: no counter waits for the audit log's lock. While the store does not answer, the
        next refusal tells it."""
        if (counter.id, counter.limit) in self._told:
            return
        try:
            crossed = self._db.retrying(lambda: self._note(budget_id, counter.starts_on))
        except PenstockError:
            return
        tell(crossed)
        if len(self._told) > _KNOWN_PERIODS:
            self._told.clear()
        self._told.add((counter.id, counter.limit))

    def _note(self, budget_id: str, starts_on: str) -> list[Crossed]:
        row = budget_periods.c
        with self._db.write() as connection:
            found = connection.execute(select(budgets).where(budgets.c.id == budget_id)).first()
            budget = None if found is None else budget_of(found)
            if budget is None or not budget.alerts:
                return []
            top = max(budget.alerts)
            these = (row.budget_id == budget_id, row.starts_on == starts_on, row.alerted < top)
            noted = update(budget_periods).where(*these).values(alerted=top).returning(row.spent_nanos)
            spent = connection.execute(noted).scalar()
            if spent is None:
                return []
            crossed = Crossed(budget=budget, percent=top, starts_on=starts_on, spent_nanos=int(spent), refuses=True)
            told = named(connection, [crossed])
            self._audit(event_of(told[0]))
        return told


def budget_of(row: Row[Any]) -> Budget:
    """The budget of a whole row of ``budgets``."""
    return Budget(
        id=row.id,
        scope=Scope(row.scope),
        subject_id=row.subject_id,
        period=row.period,
        amount_nanos=row.amount_nanos,
        currency=row.currency,
        model=row.model,
        alerts=tuple(row.alerts),
        origin=row.origin,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )


def _sum_of_days(connection: Connection, budget: Budget, starts_on: str) -> int:
    day = ledger_days.c
    subject: Column[str] = day[_SUBJECTS[budget.scope]]
    these = [subject == budget.subject_id, day.currency == budget.currency]
    if budget.model:
        these.append(day.model == budget.model)
    if starts_on:
        first = date.fromisoformat(starts_on)
        end = period_end(budget.period, datetime(first.year, first.month, first.day, tzinfo=UTC))
        these.append(day.day >= (first - _EPOCH) // timedelta(days=1))
        if end is not None:
            these.append(day.day < (end.date() - _EPOCH) // timedelta(days=1))
    return int(connection.execute(select(func.coalesce(func.sum(day.amount_nanos), 0)).where(*these)).scalar_one())


def _budgets_of(connection: Connection, charged: Iterable[_Charged]) -> dict[tuple[Scope, str], list[Budget]]:
    """The budgets of all objects that are charged."""
    subjects = {subject for one in charged for subject in one.subjects()}
    found: dict[tuple[Scope, str], list[Budget]] = {}
    for some in _batches(sorted(subjects)):
        named = [(scope.value, id_) for scope, id_ in some]
        for row in connection.execute(_BUDGETS, {"subjects": named}):
            budget = budget_of(row)
            found.setdefault((budget.scope, budget.subject_id), []).append(budget)
    return found


def _periods(connection: Connection, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[int, int]]:
    """What was spent, and the highest percentage that was told, of the periods that are open."""
    found = {}
    for some in _batches(sorted(keys)):
        for id_, starts_on, spent, alerted in connection.execute(_OPENED, {"periods": some}):
            found[id_, starts_on] = (spent, alerted)
    return found


def _crossed(
    connection: Connection, by_id: dict[str, Budget], periods: dict[tuple[str, str], tuple[int, int]]
) -> list[Crossed]:
    crossed = []
    for (id_, starts_on), (spent, alerted) in sorted(periods.items()):
        news = [*_reached(by_id[id_], spent, alerted)]
        if not news:
            continue
        crossed += [
            Crossed(budget=by_id[id_], percent=percent, starts_on=starts_on, spent_nanos=spent) for percent in news
        ]
        _note_told(connection, (id_, starts_on), news[-1])
    return named(connection, crossed)


def _note_told(connection: Connection, of: tuple[str, str], percent: int) -> None:
    period = (budget_periods.c.budget_id == of[0], budget_periods.c.starts_on == of[1])
    connection.execute(update(budget_periods).where(*period).values(alerted=percent))


def _batches(these: Sequence[T]) -> Iterator[Sequence[T]]:
    return (these[at : at + _AT_ONCE] for at in range(0, len(these), _AT_ONCE))


def _reached(budget: Budget, spent: int, alerted: int) -> Iterator[int]:
    for percent in sorted(budget.alerts):
        if percent > alerted and spent * 100 >= budget.amount_nanos * percent:
            yield percent
