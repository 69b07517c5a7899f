"""Proves the ledger: the chain of its entries, the sums of days against entries, those of budgets against days.

Reads on and on without holding more than one batch of entries, and one day's sums, in memory.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, case, func, select

from penstock.domain.chain import FIELDS, link
from penstock.domain.ledger import DAY_US, NOT_FAILED
from penstock.domain.limits import Scope, period_days
from penstock.store.database import Database
from penstock.store.governance import budget_periods, budgets, ledger_days, ledger_entries, ledger_head
from penstock.store.metering.ledger import DAY_SUMS

_BATCH = 2000
_MOST_FAULTS = 20
_VALUES = [ledger_entries.c[name] for name in FIELDS]
_KEY = ("key_id", "model", "target", "currency")
_SUBJECTS = {
    Scope.KEY: ledger_days.c.key_id,
    Scope.ATTACHMENT: ledger_days.c.attachment_id,
    Scope.ADDON: ledger_days.c.addon_id,
    Scope.APP: ledger_days.c.app_id,
    Scope.MODEL: ledger_days.c.model,
}


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at and found: ``entries`` fit into the chain, up to number ``last``; ``broken`` is the number of
    the first that does not. ``faults`` say what is wrong, 20 of them at most; none: the ledger is whole."""

    entries: int
    last: int
    days: int
    budgets: int
    broken: int | None = None
    faults: tuple[str, ...] = ()


class _Chain(msgspec.Struct):
    """How far the chain was followed."""

    seq: int
    hash: bytes
    count: int = 0
    broken: int | None = None
    fault: str = ""

    def follow(self, rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            seq, kept = row[0], row[-1]
            if seq != self.seq + 1:
                self.broken, self.fault = self.seq + 1, "is missing"
            elif link(self.hash, row[:-1]) != kept:
                self.broken, self.fault = seq, "was changed: its hash does not fit"
            if self.broken is not None:
                return
            self.seq, self.hash, self.count = seq, kept, self.count + 1


def verify(db: Database) -> Verified:
    """Looks at the whole ledger while it is written. Raises PenstockError store_unavailable."""
    chain = _follow(db)
    faults = [] if chain.broken is None else [f"entry {chain.broken} {chain.fault}"]
    days = 0
    day = _next_day(db, None)
    while day is not None:
        days += 1
        faults += _day_faults(db, day)
        day = _next_day(db, day)
    with db.read() as connection:
        periods = connection.execute(select(budget_periods.c.budget_id, budget_periods.c.starts_on)).all()
    for period in periods:
        faults += _budget_faults(db, *period)
    return Verified(
        entries=chain.count,
        last=chain.seq,
        days=days,
        budgets=len(periods),
        broken=chain.broken,
        faults=tuple(faults[:_MOST_FAULTS]),
    )


def _follow(db: Database) -> _Chain:
    chain: _Chain | None = None
    while True:
        with db.read() as connection:
            head = connection.execute(select(ledger_head)).one()
            # Retention may have come past meanwhile.
            if chain is None or chain.seq < head.pruned_seq:
                count = 0 if chain is None else chain.count
                chain = _Chain(head.pruned_seq, head.pruned_hash, count)
            query = select(*_VALUES, ledger_entries.c.hash).where(ledger_entries.c.seq > chain.seq)
            rows = list(connection.execute(query.order_by(ledger_entries.c.seq).limit(_BATCH)))
        chain.follow(rows)
        if chain.broken is not None:
            return chain
        if not rows:
            if chain.seq < head.seq:
                chain.broken, chain.fault = chain.seq + 1, f"is missing: the head says that the last is {head.seq}"
            elif chain.seq > head.seq or chain.hash != head.hash:
                chain.broken, chain.fault = chain.seq, f"is not the one that the head says is the last, {head.seq}"
            return chain


def _next_day(db: Database, after: int | None) -> int | None:
    """The first day behind that one that has sums or entries."""
    days, entries = select(func.min(ledger_days.c.day)), select(func.min(ledger_entries.c.admitted_us))
    if after is not None:
        days = days.where(ledger_days.c.day > after)
        entries = entries.where(ledger_entries.c.admitted_us >= (after + 1) * DAY_US)
    with db.read() as connection:
        first, admitted_us = connection.execute(days).scalar(), connection.execute(entries).scalar()
    found = [first] if first is not None else []
    found += [admitted_us // DAY_US] if admitted_us is not None else []
    return min(found, default=None)


def _sums_of_entries(day: int) -> Select[Any]:
    table = ledger_entries.c
    sums = {
        "requests": func.count(),
        "failed": func.sum(case((table.outcome.in_(NOT_FAILED), 0), else_=1)),
        "estimated": func.sum(case((table.estimated, 1), else_=0)),
        "input_tokens": func.sum(table.input_tokens),
        "cached_input_tokens": func.sum(table.cached_input_tokens),
        "cache_write_tokens": func.sum(table.cache_write_tokens),
        "output_tokens": func.sum(table.output_tokens),
        "reasoning_tokens": func.sum(table.reasoning_tokens),
        "amount_nanos": func.sum(table.amount_nanos),
        "cost_nanos": func.sum(case((table.cost_currency == table.currency, table.cost_nanos), else_=0)),
    }
    key = [table.key_id, table.model, func.coalesce(table.target, "").label("target"), table.currency]
    query = select(*key, *(expression.label(name) for name, expression in sums.items()))
    return query.where(table.admitted_us >= day * DAY_US, table.admitted_us < (day + 1) * DAY_US).group_by(*key)


def _day_faults(db: Database, day: int) -> list[str]:
    with db.read() as connection:
        # Of a day whose entries may be pruned, the sums are all that is left: no less than what is still there.
        whole = day * DAY_US >= connection.execute(select(ledger_head.c.pruned_us)).scalar_one()
        told = _by_key(connection, select(ledger_days).where(ledger_days.c.day == day))
        counted = _by_key(connection, _sums_of_entries(day))
    faults = []
    for key in sorted(told.keys() | counted.keys()) if whole else sorted(counted):
        for name, sum_ in counted.get(key, {}).items() or [("requests", 0)]:
            kept = told.get(key, {}).get(name, 0)
            if kept != sum_ if whole else kept < sum_:
                said = f"day {day} of key {key[0]}, model {key[1]}, target {key[2] or 'none'}: {name}"
                faults.append(f"{said} is {kept} in the sums and {sum_} in the entries")
    return faults


def _by_key(connection: Connection, query: Select[Any]) -> dict[tuple[str, ...], dict[str, int]]:
    found = {}
    for row in connection.execute(query).mappings():
        found[tuple(str(row[name]) for name in _KEY)] = {name: int(row[name]) for name in DAY_SUMS}
    return found


def _budget_faults(db: Database, budget_id: str, starts_on: str) -> list[str]:
    with db.read() as connection:
        period = select(budgets, budget_periods.c.spent_nanos).join(budget_periods)
        wanted = (budgets.c.id == budget_id) & (budget_periods.c.starts_on == starts_on)
        row = connection.execute(period.where(wanted)).one_or_none()
        if row is None:
            return []
        days = ledger_days.c
        query = select(func.coalesce(func.sum(days.amount_nanos), 0)).where(
            _SUBJECTS[Scope(row.scope)] == row.subject_id, days.currency == row.currency
        )
        if row.model:
            query = query.where(days.model == row.model)
        if bounds := period_days(row.period, starts_on):
            query = query.where(days.day >= bounds[0], days.day < bounds[1])
        spent = int(connection.execute(query).scalar_one())
    if spent == row.spent_nanos:
        return []
    when = starts_on or "the whole time"
    said = f"budget of {row.scope} {row.subject_id} for {when}: spent is {row.spent_nanos}"
    return [f"{said} in the budget and {spent} in the sums of days"]
