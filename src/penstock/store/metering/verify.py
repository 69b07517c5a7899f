"""Proves the ledger: the chain of its entries, the seals of those that are gone, the sums of days against both, those
of budgets against days.

Reads on and on without holding more than one batch of entries, and one day's sums, in memory.
"""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, case, func, select

from penstock.domain.chain import FIELDS, link
from penstock.domain.ledger import DAY_US, NOT_FAILED
from penstock.domain.limits import Scope, period_days
from penstock.domain.money import shown
from penstock.store.database import Database
from penstock.store.governance import budget_periods, budgets, ledger_days, ledger_entries, ledger_head, ledger_seals
from penstock.store.metering import subjects
from penstock.store.metering.seals import DAY_KEY, DAY_NAMES, DAY_SUMS, head_of_seals, seal_faults, sealed_sums

_BATCH = 2000
_MOST_FAULTS = 20
_VALUES = [ledger_entries.c[name] for name in FIELDS]
_TOLD = (*DAY_NAMES, *DAY_SUMS)
_EPOCH = date(1970, 1, 1)
_SUBJECTS = {
    Scope.KEY: ledger_days.c.key_id,
    Scope.ATTACHMENT: ledger_days.c.attachment_id,
    Scope.ADDON: ledger_days.c.addon_id,
    Scope.APP: ledger_days.c.app_id,
    Scope.MODEL: ledger_days.c.model,
}


class Head(msgspec.Struct, frozen=True):
    """What the ledger's two chains end with: number and hash of the newest entry and of the newest seal."""

    entry: int
    entry_hash: bytes
    seal: int
    seal_hash: bytes

    def __str__(self) -> str:
        return f"{self.entry}:{self.entry_hash.hex()}:{self.seal}:{self.seal_hash.hex()}"


def read_head(said: str) -> Head:
    """The head that was told so. Raises ValueError."""
    entry, entry_hash, seal, seal_hash = said.split(":")
    return Head(int(entry), bytes.fromhex(entry_hash), int(seal), bytes.fromhex(seal_hash))


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at and found: ``entries`` fit into the chain, up to number ``last``; ``broken`` is the number of
    the first that does not, of ``newest`` that there should be. ``head`` is what to keep elsewhere. ``faults`` say what
    is wrong, 20 of them at most, and ``more`` is how many more there are; none: the ledger is whole."""

    entries: int
    last: int
    newest: int
    head: str
    days: int
    budgets: int
    broken: int | None = None
    faults: tuple[str, ...] = ()
    more: int = 0


class _Chain(msgspec.Struct):
    """How far the chain was followed."""

    seq: int
    hash: bytes
    known: Head | None
    count: int = 0
    broken: int | None = None
    fault: str = ""
    newest: int = 0

    def __post_init__(self) -> None:
        self.meet()

    def meet(self) -> None:
        """Forget the head that is known, for here it is."""
        if self.known is not None and (self.known.entry, self.known.entry_hash) == (self.seq, self.hash):
            self.known = None

    def follow(self, rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            seq, kept = row[0], row[-1]
            if seq != self.seq + 1:
                self.broken, self.fault = self.seq + 1, "is missing"
            elif link(self.hash, row[:-1]) != kept:
                self.broken, self.fault = seq, f"(request {row[1]}) was changed: its hash does not fit"
            if self.broken is not None:
                return
            self.seq, self.hash, self.count = seq, kept, self.count + 1
            self.meet()


def verify(db: Database, known: Head | None = None) -> Verified:
    """Looks at the whole ledger while it is written; also whether it still has in it what was its head once, if that is
    ``known``. Raises PenstockError store_unavailable."""
    chain = _follow(db, known)
    faults = [] if chain.broken is None else [f"entry {chain.broken} {chain.fault}"]
    with db.read() as connection:
        pruned_hash = connection.execute(select(ledger_head.c.pruned_hash)).scalar_one()
        faults += seal_faults(connection, pruned_hash)
        head = Head(chain.seq, chain.hash, *head_of_seals(connection))
        if known is not None:
            faults += _head_faults(connection, known, met=chain.known is None)
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
        newest=chain.newest,
        head=str(head),
        days=days,
        budgets=len(periods),
        broken=chain.broken,
        faults=tuple(faults[:_MOST_FAULTS]),
        more=max(0, len(faults) - _MOST_FAULTS),
    )


def _head_faults(connection: Connection, known: Head, *, met: bool) -> Iterator[str]:
    head = connection.execute(select(ledger_head)).one()
    if not met and known.entry and known.entry < head.pruned_seq:
        yield f"entry {known.entry} of the known head is past its retention: take a head that is not so old"
    elif not met and known.entry:
        yield f"entry {known.entry} is not the one of the known head"
    seal = connection.execute(select(ledger_seals.c.hash).where(ledger_seals.c.number == known.seal)).scalar()
    if known.seal and seal != known.seal_hash:
        yield f"seal {known.seal} is not the one of the known head"


def _follow(db: Database, known: Head | None) -> _Chain:
    chain: _Chain | None = None
    while True:
        with db.read() as connection:
            head = connection.execute(select(ledger_head)).one()
            # Retention may have come past meanwhile.
            if chain is None or chain.seq < head.pruned_seq:
                count = 0 if chain is None else chain.count
                known = known if chain is None else chain.known
                chain = _Chain(head.pruned_seq, head.pruned_hash, known, count)
            query = select(*_VALUES, ledger_entries.c.hash).where(ledger_entries.c.seq > chain.seq)
            rows = list(connection.execute(query.order_by(ledger_entries.c.seq).limit(_BATCH)))
        chain.newest = head.seq
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
    """The first day behind that one that has sums, entries or a seal."""
    days, seals = select(func.min(ledger_days.c.day)), select(func.min(ledger_seals.c.day))
    entries = select(func.min(ledger_entries.c.admitted_us))
    if after is not None:
        days, seals = days.where(ledger_days.c.day > after), seals.where(ledger_seals.c.day > after)
        entries = entries.where(ledger_entries.c.admitted_us >= (after + 1) * DAY_US)
    with db.read() as connection:
        found = [connection.execute(query).scalar() for query in (days, seals)]
        admitted_us = connection.execute(entries).scalar()
    found.append(None if admitted_us is None else admitted_us // DAY_US)
    return min((day for day in found if day is not None), default=None)


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
    query = select(
        *key, *(expression.label(name) for name, expression in sums.items()), func.max(table.seq).label("of")
    )
    query = query.where(table.admitted_us >= day * DAY_US, table.admitted_us < (day + 1) * DAY_US).group_by(*key)
    summed = query.subquery()
    # What an object is called is what its newest entry calls it.
    return select(summed, *(table[name] for name in DAY_NAMES)).join(ledger_entries, table.seq == summed.c.of)


def _day_faults(db: Database, day: int) -> list[str]:
    with db.read() as connection:
        told = _by_key(connection, select(ledger_days).where(ledger_days.c.day == day))
        counted = _by_key(connection, _sums_of_entries(day))
        for row in sealed_sums(connection, day):
            gone = dict(zip((*DAY_KEY, *_TOLD), row, strict=True))
            left = counted.setdefault(tuple(row[1 : len(DAY_KEY)]), gone)
            if left is not gone:
                left.update({name: left[name] + gone[name] for name in DAY_SUMS})
    faults = []
    on = (_EPOCH + timedelta(days=day)).isoformat()
    nothing: dict[str, Any] = {"requests": 0}
    for key in sorted(told.keys() | counted.keys()):
        kept, right = told.get(key, nothing), counted.get(key, nothing)
        there = right if kept is nothing else kept
        of = f"key {there['key_prefix']} of app {there['app_name']}, model {key[1]}, target {key[2] or 'none'}"
        for name in _TOLD if kept is not nothing and right is not nothing else nothing:
            if kept[name] != right[name]:
                what, in_sums = _in_words(name, kept[name], key[3])
                _, in_entries = _in_words(name, right[name], key[3])
                faults.append(f"{on}, {of}: {what} is {in_sums} in the sums and {in_entries} in the entries")
    return faults


def _by_key(connection: Connection, query: Select[Any]) -> dict[tuple[str, ...], dict[str, Any]]:
    rows = connection.execute(query).mappings()
    return {tuple(str(row[name]) for name in DAY_KEY[1:]): {name: row[name] for name in _TOLD} for row in rows}


def _in_words(name: str, value: Any, currency: str) -> tuple[str, object]:
    """A sum and its value as people write them: money in its currency, unless somebody has left a fraction of it."""
    if name.endswith("_nanos") and value == int(value):
        return name.removesuffix("_nanos"), f"{shown(int(value))} {currency}"
    return name, value


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
        place = (Scope(row.scope), row.subject_id)
        named = subjects.describe(connection, [place]).get(place)
    if spent == row.spent_nanos:
        return []
    when = starts_on or "the whole time"
    said = f"budget of {row.scope} {named.name if named else row.subject_id} for {when}: spent is"
    in_budget, in_days = (f"{shown(nanos)} {row.currency}" for nanos in (int(row.spent_nanos), spent))
    return [f"{said} {in_budget} in the budget and {in_days} in the sums of days"]
