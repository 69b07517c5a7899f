"""Leases: the store's half of limits that are exact over all workers.

Of a counter there is never more out than its limit: what was used, and what workers may still use, is summed under a
lock of the counter each time that something is granted. Times are seconds by the database's clock.
"""

import functools
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Executable, bindparam, case, delete, func, select, text, tuple_, update

from penstock.domain.limits import MINUTE_S, Counter, LeaseAsk, LeaseGrant, granted_of
from penstock.store.database import Database
from penstock.store.engines.inserting import insert_into
from penstock.store.governance import budget_periods, lease_usage, leases
from penstock.store.metering.alerts import Audit, no_audit
from penstock.store.metering.spending import Refusals, default_budget, open_period

# How long a permit's lease lasts at least: a short stall of the worker or the store must not free what is in use.
PERMIT_LEASE_S = 5.0
MONEY_PREFIX = "b:"
_CLEAN_EVERY_S = 10.0
_CLEANED_AT_ONCE = 5000
# Money that a worker could not renew for a while is still what its journal will spend: the row outlives its lease.
_GRACE_S = 300.0
# The longest that the settings of any gateway let a row last, and how far the clock may be behind a row of before: what
# is further in the future was written before the clock was set back.
_LONGEST_S = {"rate": 60.0 + MINUTE_S, "permit": 60.0, "money": 86_400.0}
_BEHIND_S = 2
_KNOWN_PERIODS = 10_000
_COLUMNS = ("counter", "holder", "granted", "seq", "last_grant", "expires_s")
# Locks are taken in the order of the keys, by each exchange in the same one. The time is read when all are held.
_LOCK = text(
    "SELECT pg_advisory_xact_lock(k), CAST(extract(epoch FROM clock_timestamp()) AS float8) "
    "FROM unnest(CAST(:keys AS bigint[])) AS k"
)


class _Held(msgspec.Struct, frozen=True, gc=False):
    """What is out of a counter: the units of other holders, and this holder's own row, if there is one. ``alive``: the
    row's lease has not ended."""

    others: int = 0
    granted: int = 0
    seq: int = -1
    last_grant: int = 0
    exists: bool = False
    alive: bool = False

    def repeats(self, ask: LeaseAsk) -> bool:
        """Whether the ask was answered already."""
        return self.seq == ask.seq and (self.alive or (self.exists and ask.counter.kind == "money"))

    def kept(self, ask: LeaseAsk) -> int:
        """What the holder still holds of a counter before anything is granted."""
        if self.repeats(ask):
            return self.granted - self.last_grant
        if ask.counter.kind == "permit":
            # What is in use is in use, whether its lease ended meanwhile or not.
            return ask.keep
        if ask.counter.kind == "money":
            return self.granted - ask.returned if self.exists else ask.keep
        return min(ask.keep, self.granted) if self.alive else 0


class _Used(msgspec.Struct, frozen=True, gc=False):
    """What a counter has used: units in the window, or money spent; ``newest`` is the last second with any."""

    units: int = 0
    newest: int = 0


class _PeriodGoneError(Exception):
    """A period is not open any more: nothing of the exchange may stand."""


class LeaseStore:
    """What each worker may take of limits and budgets. ``clock`` stands in for the database's in tests; ``audit`` is
    told of a budget that refuses, once in its period."""

    def __init__(self, db: Database, *, clock: Callable[[], float] | None = None, audit: Audit = no_audit) -> None:
        self._db = db
        self._clock = clock
        self._refusals = Refusals(db, audit)
        self._cleaned_at = 0.0
        # Budget ids by counter and limit, of periods that are open.
        self._periods: dict[tuple[str, int], str] = {}

    def exchange(
        self, holder: str, asks: Sequence[LeaseAsk], /, *, lease_s: float, money_lease_s: float
    ) -> list[LeaseGrant]:
        """Applies the asks, at most one of a counter, in one transaction; the answers are in their order. The holder
        may use what it gets for ``lease_s`` (money: ``money_lease_s``) from before it asked. Raises PenstockError
        store_unavailable."""
        if not asks:
            return []

        refused: list[tuple[Counter, str]] = []

        def act() -> tuple[float, list[LeaseGrant]]:
            with self._db.write() as connection:
                opened = self._open_periods(connection, asks)
                now = self._lock(connection, [ask.counter.id for ask in asks])
                turn = _Turn(connection, holder, now, lease_s, money_lease_s)
                grants = turn.run(asks, opened)
                self._check_periods(opened, turn.without_period)
                refused[:] = [(counter, opened[counter.id, counter.limit]) for counter in turn.refused]
            return now, grants

        try:
            now, grants = self._db.retrying(act)
        except _PeriodGoneError:
            now, grants = self._db.retrying(act)
        for counter, budget_id in refused:
            self._refusals.tell(counter, budget_id)
        if abs(now - self._cleaned_at) >= _CLEAN_EVERY_S:
            self._cleaned_at = 0.0 if self._clean(now) else now
        return grants

    def leave(self, holder: str, /) -> None:
        """Removes what the holder has of rates and permits; money stays until its lease ends or the ledger has all
        that it spent. Raises PenstockError store_unavailable."""
        own = (leases.c.holder == holder, ~leases.c.counter.startswith(MONEY_PREFIX))
        with self._db.write() as connection:
            connection.execute(delete(leases).where(*own))

    def _lock(self, connection: Connection, ids: Sequence[str]) -> float:
        """Waits until no other exchange has any of the counters; the time from which on none has."""
        now = time.time()
        # SQLite has one writer at a time.
        if connection.dialect.name == "postgresql":
            now = connection.execute(_LOCK, {"keys": sorted({_lock_key(id_) for id_ in ids})}).all()[-1][1]
        return self._clock() if self._clock else now

    def _open_periods(self, connection: Connection, asks: Sequence[LeaseAsk]) -> dict[tuple[str, int], str]:
        """The ids of the asks' budgets. Before any counter is locked: who opens a period waits for the ledger, and the
        ledger may wait for a lease."""
        opened = {}
        for counter in sorted((ask.counter for ask in asks), key=lambda counter: counter.id):
            budget = counter.budget
            if budget is None:
                continue
            known = self._periods.get((counter.id, counter.limit))
            if known is None:
                if budget.origin == "default":
                    budget = msgspec.structs.replace(budget, id=default_budget(connection, budget))
                open_period(connection, budget, counter.starts_on)
            opened[counter.id, counter.limit] = known or budget.id
        return opened

    def _check_periods(self, opened: dict[tuple[str, int], str], missing: set[str]) -> None:
        """Keeps in mind which periods are open. Raises _PeriodGoneError when one that was is no more: the budget was
        removed, and a default one of the same id may hold again."""
        gone = [key for key in opened if key[0] in missing and key in self._periods]
        for key in gone:
            del self._periods[key]
        if gone:
            raise _PeriodGoneError
        if len(self._periods) > _KNOWN_PERIODS:
            self._periods.clear()
        self._periods.update({key: id_ for key, id_ in opened.items() if key[0] not in missing})

    def _clean(self, now: float) -> bool:
        """Removes what counts no more; whether there is more of it. Side by side with others that do the same."""
        usage, lease = lease_usage.c, leases.c
        old_usage = select(usage.counter, usage.second).where(usage.second < int(now) - 2 * MINUTE_S)
        ended = select(lease.counter, lease.holder).where(lease.expires_s < now - _GRACE_S)
        with self._db.write() as connection:
            counts = [
                connection.execute(
                    delete(table).where(
                        tuple_(*columns).in_(old.limit(_CLEANED_AT_ONCE).with_for_update(skip_locked=True))
                    )
                ).rowcount
                for table, columns, old in (
                    (lease_usage, (usage.counter, usage.second), old_usage),
                    (leases, (lease.counter, lease.holder), ended),
                )
            ]
        return max(counts) >= _CLEANED_AT_ONCE


# Of each exchange: built once, for that takes longer than running them.
_OWN = leases.c.holder == bindparam("holder")
_HELD = (
    select(
        leases.c.counter,
        func.sum(case((_OWN, 0), else_=case((leases.c.expires_s > bindparam("now"), leases.c.granted), else_=0))),
        *(func.max(case((_OWN, leases.c[name]))) for name in ("granted", "seq", "last_grant", "expires_s")),
        func.max(leases.c.expires_s),
    )
    .where(leases.c.counter.in_(bindparam("ids", expanding=True)))
    .group_by(leases.c.counter)
)
_USED = (
    select(lease_usage.c.counter, func.sum(lease_usage.c.used), func.max(lease_usage.c.second))
    .where(
        lease_usage.c.counter.in_(bindparam("ids", expanding=True)),
        lease_usage.c.second >= bindparam("since"),
        lease_usage.c.used > 0,
    )
    .group_by(lease_usage.c.counter)
)


@functools.cache
def _writes(dialect: str) -> dict[str, Executable]:
    """How an exchange writes a use, a lease, and one of money: of that the ledger may have taken off what it found
    spent, since the row was read."""
    use = insert_into(lease_usage, dialect)
    added = {"used": lease_usage.c.used + use.excluded.used}
    lease = insert_into(leases, dialect).values({name: bindparam(name) for name in _COLUMNS})
    new = {name: lease.excluded[name] for name in _COLUMNS[2:]}
    changed = new | {"granted": leases.c.granted + bindparam("change")}
    return {
        "use": use.on_conflict_do_update(index_elements=["counter", "second"], set_=added),
        "lease": lease.on_conflict_do_update(index_elements=_COLUMNS[:2], set_=new),
        "money": lease.on_conflict_do_update(index_elements=_COLUMNS[:2], set_=changed),
    }


class _Turn:
    """One exchange, in its transaction, with all of its counters locked."""

    def __init__(self, connection: Connection, holder: str, now: float, lease_s: float, money_lease_s: float) -> None:
        self._connection = connection
        self._holder = holder
        self._now = now
        self._seconds = {"rate": lease_s + MINUTE_S, "permit": max(lease_s, PERMIT_LEASE_S), "money": money_lease_s}
        # The first second that counts: a use at its end is a window old when it counts no more.
        self._since = int(now) - MINUTE_S
        # The counters of money whose budget, or its period, is not there.
        self.without_period: set[str] = set()
        # Budgets that refuse what waiting for open requests does not help.
        self.refused: list[Counter] = []

    def run(self, asks: Sequence[LeaseAsk], budgets: dict[tuple[str, int], str]) -> list[LeaseGrant]:
        """The grants, in the order of the asks."""
        ids = [ask.counter.id for ask in asks]
        held = self._held({ask.counter.id: self._now + _LONGEST_S[ask.counter.kind] for ask in asks})
        new = [ask for ask in asks if not held.get(ask.counter.id, _NOTHING).repeats(ask)]
        self._take_off({ask.counter.id: ask.returned for ask in new if ask.counter.kind == "rate" and ask.returned > 0})
        self._note_used({ask.counter.id: ask.used for ask in new if ask.counter.kind == "rate" and ask.used > 0})
        # Read after the leases: the ledger moves money from the one to the other, and it may be counted twice here,
        # never not at all.
        used = self._used([ask.counter.id for ask in asks if ask.counter.kind == "rate"])
        used.update(
            self._spent({ask.counter: budgets[ask.counter.id, ask.counter.limit] for ask in asks if ask.counter.budget})
        )
        grants = {
            ask.counter.id: self._grant(ask, held.get(ask.counter.id, _NOTHING), used.get(ask.counter.id, _UNUSED))
            for ask in asks
        }
        self._keep(asks, held, grants)
        self._foretell(asks, grants)
        return [grants[id_] for id_ in ids]

    def _held(self, latest: dict[str, float]) -> dict[str, _Held]:
        """What is out of the counters, none of whose leases ends later than at that time."""
        row = leases.c
        asked = {"ids": [*latest], "holder": self._holder, "now": self._now}
        rows: Sequence[Any] = self._connection.execute(_HELD, asked).all()
        if late := [row[0] for row in rows if row[-1] > latest[row[0]] + _BEHIND_S]:
            for id_ in sorted(late):
                these = (row.counter == id_, row.expires_s > latest[id_])
                self._connection.execute(update(leases).where(*these).values(expires_s=latest[id_]))
            rows = self._connection.execute(_HELD, asked).all()
        return {
            counter: _Held(int(others))
            if expires_s is None
            else _Held(int(others), granted, seq, last_grant, True, expires_s > self._now)
            for counter, others, granted, seq, last_grant, expires_s, _ in rows
        }

    def _note_used(self, units: dict[str, int]) -> None:
        if not units:
            return
        rows = [{"counter": id_, "second": int(self._now), "used": count} for id_, count in sorted(units.items())]
        self._connection.execute(_writes(self._connection.dialect.name)["use"], rows)

    def _take_off(self, units: dict[str, int]) -> None:
        """Takes units off the oldest seconds that count: off a later one, they could be missing when the second in
        which they really were told has left the window."""
        if not units:
            return
        row = lease_usage.c
        changed = []
        for counter, second, used in self._connection.execute(
            select(row.counter, row.second, row.used)
            .where(row.counter.in_(units), row.second >= self._since)
            .order_by(row.counter, row.second)
        ):
            less = min(used, units[counter])
            units[counter] -= less
            if less:
                changed.append({"of": counter, "at": second, "left": used - less})
        if changed:
            at = (row.counter == bindparam("of"), row.second == bindparam("at"))
            self._connection.execute(update(lease_usage).where(*at).values(used=bindparam("left")), changed)

    def _used(self, ids: Sequence[str]) -> dict[str, _Used]:
        if not ids:
            return {}
        rows = self._connection.execute(_USED, {"ids": ids, "since": self._since})
        used = {counter: _Used(int(units), newest) for counter, units, newest in rows}
        if late := [counter for counter, one in used.items() if one.newest > int(self._now) + _BEHIND_S]:
            self._bring_back(late)
            used.update(self._used(late))
        return used

    def _bring_back(self, ids: Sequence[str]) -> None:
        """What was used by a clock that was ahead was used now at the latest."""
        row = lease_usage.c
        late = delete(lease_usage).where(row.counter.in_(ids), row.second > int(self._now))
        units: dict[str, int] = {}
        for counter, used in self._connection.execute(late.returning(row.counter, row.used)):
            units[counter] = units.get(counter, 0) + used
        self._note_used(units)

    def _spent(self, counters: dict[Counter, str]) -> dict[str, _Used]:
        if not counters:
            return {}
        row = budget_periods.c
        rows = self._connection.execute(select(budget_periods).where(row.budget_id.in_(set(counters.values()))))
        spent = {(budget_id, starts_on): nanos for budget_id, starts_on, nanos, _ in rows}
        # A budget that was removed meanwhile has spent nothing.
        self.without_period = {counter.id for counter, id_ in counters.items() if (id_, counter.starts_on) not in spent}
        return {counter.id: _Used(spent.get((id_, counter.starts_on), 0)) for counter, id_ in counters.items()}

    def _grant(self, ask: LeaseAsk, held: _Held, used: _Used) -> LeaseGrant:
        free = ask.counter.limit - used.units - held.others - held.kept(ask)
        granted = held.last_grant if held.repeats(ask) else granted_of(ask, free)
        money = ask.counter.kind == "money"
        if money and ask.least and not granted and free + held.others + ask.keep < ask.least:
            self.refused.append(ask.counter)
        return LeaseGrant(
            granted=granted,
            left=max(0, free - granted),
            holds=held.kept(ask) + granted,
            spent=used.units if money else 0,
            held=held.others if money else 0,
            full_in_s=min(MINUTE_S, max(0.0, used.newest + MINUTE_S + 1 - self._now)),
        )

    def _keep(self, asks: Sequence[LeaseAsk], held: dict[str, _Held], grants: dict[str, LeaseGrant]) -> None:
        rows: dict[bool, list[dict[str, object]]] = {False: [], True: []}
        for ask in sorted(asks, key=lambda ask: ask.counter.id):
            counter, grant = ask.counter, grants[ask.counter.id]
            rows[counter.kind == "money"].append(
                {
                    "counter": counter.id,
                    "holder": self._holder,
                    "granted": grant.holds,
                    "seq": ask.seq,
                    "last_grant": grant.granted,
                    "expires_s": self._now + self._seconds[counter.kind],
                }
            )
            if counter.kind == "money":
                rows[True][-1]["change"] = grant.holds - held.get(counter.id, _NOTHING).granted
        for money, these in rows.items():
            if not these:
                continue
            writes = _writes(self._connection.dialect.name)
            self._connection.execute(writes["money" if money else "lease"], these)

    def _foretell(self, asks: Sequence[LeaseAsk], grants: dict[str, LeaseGrant]) -> None:
        """Says of each rate that was refused when enough of what was used will have left the window."""
        missing = {
            ask.counter.id: max(ask.least, 1) - grants[ask.counter.id].left
            for ask in asks
            if ask.counter.kind == "rate" and ask.wants > 0 and not grants[ask.counter.id].granted
        }
        if not missing:
            return
        row = lease_usage.c
        for counter, second, used in self._connection.execute(
            select(row.counter, row.second, row.used)
            .where(row.counter.in_(missing), row.second >= self._since)
            .order_by(row.second)
        ):
            if missing[counter] > 0:
                missing[counter] -= used
                if missing[counter] <= 0:
                    after = max(0.0, second + MINUTE_S + 1 - self._now)
                    grants[counter] = msgspec.structs.replace(grants[counter], frees_in_s=after)


_NOTHING = _Held()
_UNUSED = _Used()


def _lock_key(counter: str) -> int:
    return int.from_bytes(hashlib.blake2b(counter.encode(), digest_size=8).digest(), "big", signed=True)
