"""The ledger in the database: entries are chained and appended, with the sums of days and budgets, all in one
transaction, so that none is ever counted twice or not at all."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from operator import add
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from penstock.domain.catalogue import Rate
from penstock.domain.chain import FIELDS, Said, Values, link, said_by
from penstock.domain.ledger import DAY_US, NOT_FAILED, LedgerEntry
from penstock.domain.money import price_version
from penstock.domain.usage import Usage
from penstock.store.database import Database
from penstock.store.governance import leases, ledger_entries, ledger_head, price_versions
from penstock.store.metering.alerts import Audit, Crossed, event_of
from penstock.store.metering.seals import DAY_KEY, DAY_NAMES, DAY_SUMS, seal
from penstock.store.metering.seals import Row as DayRow

_USAGE = tuple(Usage.__struct_fields__)
_OWN = tuple(name for name in LedgerEntry.__struct_fields__ if name != "usage")
_ALL = (*FIELDS, "hash")
_BARE = tuple(name for name in _ALL if name not in ("stand_in", "idempotency_id"))
_STAND_IN, _CHARGED = Said._fields.index("stand_in"), Said._fields.index("amount_nanos")
_SAID = select(*(ledger_entries.c[name] for name in Said._fields))
AMOUNT = DAY_SUMS.index("amount_nanos")
_MOVE = update(ledger_head).values(seq=bindparam("last"), hash=bindparam("its"))


class Shared(NamedTuple):
    """What the sums of days and the budgets tell apart, in the order of ``DAY_KEY`` and ``DAY_NAMES``."""

    day: int
    key_id: str
    model: str
    target: str
    currency: str
    key_prefix: str
    app_id: str
    app_name: str
    addon_id: str
    attachment_id: str


# In the order of ``DAY_SUMS``, and behind them the number of the last entry.
Sums = dict[Shared, list[int]]
# Adds the amounts of entries to the budgets that they count for, in the open transaction.
Spend = Callable[[Connection, Sums], Sequence[Crossed]]


def no_budgets(_connection: Connection, _sums: Sums) -> Sequence[Crossed]:
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
        # Whether the last batch was: after a start, what is read again has its entries.
        self._all_new = False
        self._window_us = int(idempotency_window_s * 1_000_000)

    def append(
        self, entries: Sequence[LedgerEntry], *, holder: str = "", money: Mapping[str, Sequence[str]] | None = None
    ) -> Appended:
        """Put entries behind those that are there; one whose request has its entry already is left out. ``money`` are
        the counters, by request id, on which the worker ``holder`` held money that is now spent. Raises PenstockError
        store_unavailable; then nothing was appended."""
        return self.append_said([said_by(entry) for entry in entries], holder=holder, money=money or {})

    def append_said(self, entries: Sequence[Values], *, holder: str, money: Mapping[str, Sequence[str]]) -> Appended:
        """As ``append``, of entries that say this. Raises PenstockError store_unavailable."""
        return self._db.retrying(lambda: self._append(entries, holder, money))

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

    def _append(self, entries: Sequence[Values], holder: str, money: Mapping[str, Sequence[str]]) -> Appended:
        with self._db.write() as connection:
            new, billed = self._insert(connection, entries)
            if not new:
                return Appended(0)
            sums = add_up(billed)
            _add_days(connection, sums)
            crossed = tuple(self._spend(connection, sums))
            # Of what the worker took off its slice: what it charged, also where the ledger charges less. The rest is
            # neither spent nor held any more, and so free.
            _release_spent(connection, holder, _spent(new, money))
            if self._audit is not None:
                for crossing in crossed:
                    self._audit(event_of(crossing))
            return Appended(len(new), crossed)

    def _insert(self, connection: Connection, entries: Sequence[Values]) -> tuple[Sequence[Values], Sequence[Values]]:
        """Chain those without an entry, and move the head: which those are, and as they are charged."""
        head = connection.execute(select(ledger_head).with_for_update()).one()
        new, billed = entries, entries
        if self._all_new and entries:
            # The database tells where it is not so, for a request id is unique there: it is not asked before.
            try:
                billed = self._billed_once(connection, entries)
                with connection.begin_nested():
                    _insert_behind(connection, head, billed)
            except IntegrityError:
                self._all_new = False
            else:
                return new, billed
        new = _unknown(connection, entries)
        self._all_new = len(new) == len(entries)
        billed = self._billed_once(connection, new)
        if new:
            _insert_behind(connection, head, billed)
        return new, billed

    def _billed_once(self, connection: Connection, entries: Sequence[Values]) -> Sequence[Values]:
        """The entries; of those with one idempotency id, each is charged for what it costs more than those before it,
        so that the dearest of them is what they cost together, in whatever order they come."""
        ids = {id_ for values in entries if (id_ := values[-1]) is not None}
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
        for values in entries:
            one = Said._make(values)
            if one.idempotency_id is not None and one.amount_nanos:
                before = charged.setdefault(one.idempotency_id, [])
                one = one._replace(amount_nanos=self._rest(one, before))
                if one.amount_nanos:
                    before.append((one.admitted_us, one.currency, one.amount_nanos))
            billed.append(one)
        return billed

    def _rest(self, entry: Said, charged: Iterable[tuple[int, str, int]]) -> int:
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
            rows = connection.execute(_SAID.where(*these).order_by(table.seq)).all()
            seal(connection, day_rows(add_up(map(Said._make, rows))), last.hash)
            told = max(before_us, head.pruned_us)
            connection.execute(update(ledger_head).values(pruned_seq=last.seq, pruned_hash=last.hash, pruned_us=told))
            connection.execute(delete(ledger_entries).where(*these))
            return len(rows)


def entry_of(row: Row[Any]) -> LedgerEntry:
    """A row of the table as an entry."""
    usage = Usage(**{name: getattr(row, name) for name in _USAGE})
    return LedgerEntry(usage=usage, **{name: getattr(row, name) for name in _OWN})


def add_up(entries: Iterable[Values]) -> Sums:
    """The sums of entries: a batch has thousands of a few keys, and each is looked at once."""
    # By what a Shared has, which takes longer to make.
    found: dict[tuple[object, ...], list[int]] = {}
    for number, (
        _, admitted_us, _, key_id, key_prefix, app_id, app_name, addon_id, attachment_id, _, model, target, _, _,
        outcome, _, estimated, read, cached, written, generated, thought, _, currency, _, amount, cost, cost_currency,
        _, _, _, _, _,
    ) in enumerate(entries):  # fmt: skip
        of = (
            admitted_us // DAY_US, key_id, model, target or "", currency, key_prefix, app_id, app_name, addon_id,
            attachment_id,
        )  # fmt: skip
        sums = found.get(of)
        if sums is None:
            sums = found[of] = [0] * (len(DAY_SUMS) + 1)
        sums[0] += 1
        sums[1] += outcome not in NOT_FAILED
        sums[2] += estimated
        sums[3] += read
        sums[4] += cached
        sums[5] += written
        sums[6] += generated
        sums[7] += thought
        sums[8] += amount
        if cost and cost_currency == currency:
            # A sum has one currency, the charge's.
            sums[9] += cost
        sums[-1] = number
    return {Shared._make(of): sums for of, sums in found.items()}


def day_rows(found: Sums) -> list[DayRow]:
    """The rows by which entries change the sums of their days, in the order of their keys; each has the names of its
    last entry."""
    rows: dict[DayRow, DayRow] = {}
    for of, (*sums, _) in sorted(found.items(), key=lambda one: one[1][-1]):
        before = rows.get(of[: len(DAY_KEY)])
        added = sums if before is None else map(add, before[len(of) :], sums)
        rows[of[: len(DAY_KEY)]] = (*of, *added)
    return sorted(rows.values())


def _unknown(connection: Connection, entries: Sequence[Values]) -> list[Values]:
    """Those without an entry yet, each once."""
    wanted = {values[0]: values for values in reversed(entries)}
    named: str | list[str] = list(wanted)
    among = "= ANY(%s)"
    if connection.dialect.name == "sqlite":
        named, among = msgspec.json.encode(named).decode(), "IN (SELECT value FROM json_each(?))"
    sql = f"SELECT request_id FROM ledger_entries WHERE request_id {among}"  # noqa: S608 - one of the two texts above
    found = connection.exec_driver_sql(sql, (named,))
    for known in found.scalars():
        del wanted[known]
    return [values for values in entries if wanted.pop(values[0], None) is not None]


def _insert_behind(connection: Connection, head: Row[Any], entries: Sequence[Values]) -> None:
    """Insert entries behind the head, which moves to the last of them."""
    seq, last = head.seq, head.hash
    rows, bare = [], []
    on_sqlite = connection.dialect.name == "sqlite"
    for said in entries:
        seq += 1
        last = link(last, (seq, *said))
        if on_sqlite and said[_STAND_IN] is None and said[-1] is None:
            # Python's driver takes ten times as long for None, bytes and bool as for what says the same here.
            flags = +said[13], said[14], +said[15], +said[16]
            bare.append((seq, *said[:_STAND_IN], *flags, *said[17:-1], bytearray(last)))
        else:
            rows.append((seq, *said, last))
    if bare:
        connection.exec_driver_sql(_insertion(connection, _BARE), bare)
    if rows:
        connection.exec_driver_sql(_insertion(connection, _ALL), rows)
    connection.execute(_MOVE, {"last": seq, "its": last})


def _insertion(connection: Connection, columns: Sequence[str]) -> str:
    return f"INSERT INTO ledger_entries ({', '.join(columns)}) VALUES ({_marks(connection, len(columns))})"  # noqa: S608


def _add_days(connection: Connection, sums: Sums) -> None:
    columns = (*DAY_KEY, *DAY_NAMES, *DAY_SUMS)
    latest = [f"{name} = excluded.{name}" for name in DAY_NAMES]
    added = [f"{name} = ledger_days.{name} + excluded.{name}" for name in DAY_SUMS]
    sql = (
        f"INSERT INTO ledger_days ({', '.join(columns)}) VALUES ({_marks(connection, len(columns))}) "  # noqa: S608
        f"ON CONFLICT ({', '.join(DAY_KEY)}) DO UPDATE SET {', '.join([*latest, *added])}"
    )
    connection.exec_driver_sql(sql, day_rows(sums))


def _marks(connection: Connection, count: int) -> str:
    return ", ".join(["?" if connection.dialect.name == "sqlite" else "%s"] * count)


def _spent(entries: Sequence[Values], money: Mapping[str, Sequence[str]]) -> dict[str, int]:
    spent: dict[str, int] = {}
    for values in entries if money else ():
        if amount := values[_CHARGED]:
            for counter in money.get(values[0], ()):
                spent[counter] = spent.get(counter, 0) + amount
    return spent


def _release_spent(connection: Connection, holder: str, spent: Mapping[str, int]) -> None:
    # In one order everywhere, so that no two transactions wait for each other's rows.
    for counter in sorted(spent):
        row = update(leases).where(leases.c.counter == counter, leases.c.holder == holder)
        connection.execute(row.values(granted=leases.c.granted - spent[counter]))
