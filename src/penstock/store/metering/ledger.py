"""The ledger in the database: entries are chained and appended, with the sums of days and budgets, all in one
transaction, so that none is ever counted twice or not at all."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select, update

from penstock.domain.catalogue import Rate
from penstock.domain.chain import FIELDS, link, values_of
from penstock.domain.ledger import DAY_US, NOT_FAILED, LedgerEntry
from penstock.domain.money import price_version
from penstock.domain.usage import Usage
from penstock.store.database import Database
from penstock.store.governance import leases, ledger_entries, ledger_head, price_versions
from penstock.store.metering.alerts import Audit, Crossed, event_of
from penstock.store.metering.seals import DAY_KEY, DAY_NAMES, DAY_SUMS, seal

_USAGE = tuple(Usage.__struct_fields__)
_OWN = tuple(name for name in LedgerEntry.__struct_fields__ if name != "usage")


# Adds the amounts of entries to the budgets that they count for, in the open transaction.
Spend = Callable[[Connection, Sequence[LedgerEntry]], Sequence[Crossed]]


def no_budgets(_connection: Connection, _entries: Sequence[LedgerEntry]) -> Sequence[Crossed]:
    """For a ledger beside which no budgets are kept."""
    return ()


class Appended(msgspec.Struct, frozen=True):
    """How many entries are new, and which thresholds of budgets they have crossed."""

    inserted: int
    crossed: tuple[Crossed, ...] = ()


class LedgerStore:
    """The entries of one database. Those of one idempotency id, within ``idempotency_window_s`` of each other, cost
    together what the dearest of them costs. ``audit`` is told of budgets that reach a threshold, in the same
    transaction."""

    def __init__(
        self,
        db: Database,
        *,
        spend: Spend = no_budgets,
        audit: Audit | None = None,
        idempotency_window_s: float = 86_400.0,
    ) -> None:
        self._db = db
        self._audit = audit
        self._spend = spend
        self._window_us = int(idempotency_window_s * 1_000_000)

    def append(
        self, entries: Sequence[LedgerEntry], *, holder: str = "", money: Mapping[str, Sequence[str]] | None = None
    ) -> Appended:
        """Put entries behind those that are there; one whose request has its entry already is left out. ``money`` are
        the counters, by request id, on which the worker ``holder`` held money that is now spent. Raises PenstockError
        store_unavailable; then nothing was appended."""
        return self._db.retrying(lambda: self._append(entries, holder, money or {}))

    def entries(self, *, after: int = 0, limit: int = 1000) -> list[LedgerEntry]:
        """Entries in the order of the chain, from behind the one of that number. Raises PenstockError
        store_unavailable."""
        query = select(ledger_entries).where(ledger_entries.c.seq > after).order_by(ledger_entries.c.seq).limit(limit)
        with self._db.read() as connection:
            return [entry_of(row) for row in connection.execute(query)]

    def known(self, requests: Sequence[str]) -> set[str]:
        """Those of the requests that have an entry, of a thousand at most. Raises PenstockError store_unavailable."""
        query = select(ledger_entries.c.request_id).where(ledger_entries.c.request_id.in_(requests))
        with self._db.read() as connection:
            return set(connection.execute(query).scalars())

    def head(self) -> tuple[int, bytes]:
        """Number and hash of the newest entry; 0 before the first. Raises PenstockError store_unavailable."""
        with self._db.read() as connection:
            row = connection.execute(select(ledger_head.c.seq, ledger_head.c.hash)).one()
            return row.seq, row.hash

    def prune(self, before_us: int, *, most: int = 2000) -> int:
        """Remove the oldest entries that were admitted before the day (UTC) of that time, up to the first that was not,
        and at most so many: how many there were. Their sums by day stay, and are sealed. One that says it was admitted
        in the future holds none up: it goes with those around it. Raises PenstockError store_unavailable."""
        return self._db.retrying(lambda: self._prune(before_us // DAY_US * DAY_US, most))

    def release(self, holder: str) -> None:
        """A dead worker whose whole journal is in the ledger holds no money any more. Raises PenstockError
        store_unavailable."""
        held = delete(leases).where(leases.c.holder == holder, leases.c.counter.startswith("b:"))

        def act() -> None:
            with self._db.write() as connection:
                connection.execute(held)

        self._db.retrying(act)

    def note_rates(self, rates: Iterable[Rate]) -> None:
        """Keep what each price version says, once. Raises PenstockError store_unavailable."""
        wanted = {price_version(rate): rate for rate in rates}
        known = select(price_versions.c.version)

        def act() -> None:
            with self._db.write() as connection:
                # Two ledgers on one database may note the same one.
                connection.execute(select(ledger_head.c.id).with_for_update())
                new = wanted.keys() - set(connection.execute(known).scalars())
                rows = [
                    {"version": one, "rate": msgspec.to_builtins(wanted[one]), "first_seen_at": datetime.now(UTC)}
                    for one in sorted(new)
                ]
                if rows:
                    connection.execute(insert(price_versions), rows)

        self._db.retrying(act)

    def _append(self, entries: Sequence[LedgerEntry], holder: str, money: Mapping[str, Sequence[str]]) -> Appended:
        with self._db.write() as connection:
            head = connection.execute(select(ledger_head).with_for_update()).one()
            new = _unknown(connection, entries)
            if not new:
                return Appended(0)
            billed = self._billed_once(connection, new)
            seq, last = head.seq, head.hash
            rows = []
            for entry in billed:
                seq += 1
                values = values_of(entry, seq)
                last = link(last, values)
                rows.append((*values, last))
            connection.exec_driver_sql(_insert(connection), rows)
            _add_days(connection, billed)
            connection.execute(update(ledger_head).values(seq=seq, hash=last))
            crossed = tuple(self._spend(connection, billed))
            # Of what the worker took off its slice: what it charged, also where the ledger charges less. The rest is
            # neither spent nor held any more, and so free.
            _release_spent(connection, holder, _spent(new, money))
            if self._audit is not None:
                for crossing in crossed:
                    self._audit(event_of(crossing))
            return Appended(len(rows), crossed)

    def _billed_once(self, connection: Connection, entries: list[LedgerEntry]) -> list[LedgerEntry]:
        """The entries; of those with one idempotency id, each is charged for what it costs more than those before it,
        so that the dearest of them is what they cost together, in whatever order they come."""
        ids = {entry.idempotency_id for entry in entries if entry.idempotency_id is not None and entry.amount_nanos}
        if not ids:
            return entries
        table = ledger_entries.c
        query = select(table.idempotency_id, table.admitted_us, table.currency, table.amount_nanos).where(
            table.idempotency_id.in_(ids), table.amount_nanos != 0
        )
        charged: dict[bytes, list[tuple[int, str, int]]] = {}
        for row in connection.execute(query):
            charged.setdefault(row.idempotency_id, []).append((row.admitted_us, row.currency, row.amount_nanos))
        billed = []
        for entry in entries:
            one = entry
            if entry.idempotency_id is not None and entry.amount_nanos:
                before = charged.setdefault(entry.idempotency_id, [])
                one = msgspec.structs.replace(entry, amount_nanos=self._rest(entry, before))
                before.append((one.admitted_us, one.currency, one.amount_nanos))
            billed.append(one)
        return billed

    def _rest(self, entry: LedgerEntry, charged: Iterable[tuple[int, str, int]]) -> int:
        """What an entry costs more than what was charged within the window: (when, currency, amount)."""
        rest = entry.amount_nanos
        for admitted_us, currency, amount_nanos in charged:
            if abs(admitted_us - entry.admitted_us) < self._window_us:
                # Amounts of two currencies have no difference, and twice is worse than not at all.
                rest -= amount_nanos if currency == entry.currency else rest
        return max(rest, 0)

    def _prune(self, before_us: int, most: int) -> int:
        table = ledger_entries.c
        # A clock that was ahead must not hold up all that comes behind it.
        dated = table.admitted_us <= max(before_us - 1, int(time.time() * 1_000_000))
        with self._db.write() as connection:
            head = connection.execute(select(ledger_head).with_for_update()).one()
            query = select(table.seq, table.hash, table.admitted_us).where(table.seq > head.pruned_seq, dated)
            last = None
            for row in connection.execute(query.order_by(table.seq).limit(most)):
                if row.admitted_us >= before_us:
                    break
                last = row
            if last is None:
                return 0
            these = (table.seq > head.pruned_seq, table.seq <= last.seq)
            rows = connection.execute(select(ledger_entries).where(*these).order_by(table.seq)).all()
            seal(connection, day_rows(entry_of(row) for row in rows), last.hash)
            told = max(before_us, head.pruned_us)
            connection.execute(update(ledger_head).values(pruned_seq=last.seq, pruned_hash=last.hash, pruned_us=told))
            connection.execute(delete(ledger_entries).where(*these))
            return len(rows)


def entry_of(row: Row[Any]) -> LedgerEntry:
    """A row of the table as an entry."""
    usage = Usage(**{name: getattr(row, name) for name in _USAGE})
    return LedgerEntry(usage=usage, **{name: getattr(row, name) for name in _OWN})


def day_rows(entries: Iterable[LedgerEntry]) -> list[tuple[object, ...]]:
    """The rows by which entries change the sums of their days, in the order of their keys."""
    names: dict[tuple[Any, ...], tuple[str, ...]] = {}
    adds: defaultdict[tuple[Any, ...], list[tuple[int, ...]]] = defaultdict(list)
    for entry in entries:
        key = (entry.admitted_us // DAY_US, entry.key_id, entry.model, entry.target or "", entry.currency)
        names[key] = (entry.key_prefix, entry.app_id, entry.app_name, entry.addon_id, entry.attachment_id)
        usage = entry.usage
        one = (
            1,
            entry.outcome not in NOT_FAILED,
            usage.estimated,
            usage.input_tokens,
            usage.cached_input_tokens,
            usage.cache_write_tokens,
            usage.output_tokens,
            usage.reasoning_tokens,
            entry.amount_nanos,
            # A sum has one currency, the charge's.
            (entry.cost_nanos or 0) if entry.cost_currency == entry.currency else 0,
        )
        adds[key].append(one)
    return [(*key, *names[key], *map(sum, zip(*adds[key], strict=True))) for key in sorted(adds)]


def _unknown(connection: Connection, entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """Those without an entry yet, each once."""
    wanted = {entry.request_id: entry for entry in reversed(entries)}
    named: str | list[str] = list(wanted)
    among = "= ANY(%s)"
    if connection.dialect.name == "sqlite":
        named, among = msgspec.json.encode(named).decode(), "IN (SELECT value FROM json_each(?))"
    sql = f"SELECT request_id FROM ledger_entries WHERE request_id {among}"  # noqa: S608 - one of the two texts above
    found = connection.exec_driver_sql(sql, (named,))
    for known in found.scalars():
        del wanted[known]
    return [entry for entry in entries if wanted.pop(entry.request_id, None) is not None]


def _insert(connection: Connection) -> str:
    columns = (*FIELDS, "hash")
    return f"INSERT INTO ledger_entries ({', '.join(columns)}) VALUES ({_marks(connection, len(columns))})"  # noqa: S608


def _add_days(connection: Connection, entries: Sequence[LedgerEntry]) -> None:
    columns = (*DAY_KEY, *DAY_NAMES, *DAY_SUMS)
    latest = [f"{name} = excluded.{name}" for name in DAY_NAMES]
    added = [f"{name} = ledger_days.{name} + excluded.{name}" for name in DAY_SUMS]
    sql = (
        f"INSERT INTO ledger_days ({', '.join(columns)}) VALUES ({_marks(connection, len(columns))}) "  # noqa: S608
        f"ON CONFLICT ({', '.join(DAY_KEY)}) DO UPDATE SET {', '.join([*latest, *added])}"
    )
    connection.exec_driver_sql(sql, day_rows(entries))


def _marks(connection: Connection, count: int) -> str:
    return ", ".join(["?" if connection.dialect.name == "sqlite" else "%s"] * count)


def _spent(entries: Sequence[LedgerEntry], money: Mapping[str, Sequence[str]]) -> dict[str, int]:
    spent: dict[str, int] = {}
    for entry in entries:
        if entry.amount_nanos:
            for counter in money.get(entry.request_id, ()):
                spent[counter] = spent.get(counter, 0) + entry.amount_nanos
    return spent


def _release_spent(connection: Connection, holder: str, spent: Mapping[str, int]) -> None:
    # In one order everywhere, so that no two transactions wait for each other's rows.
    for counter in sorted(spent):
        row = update(leases).where(leases.c.counter == counter, leases.c.holder == holder)
        connection.execute(row.values(granted=leases.c.granted - spent[counter]))
