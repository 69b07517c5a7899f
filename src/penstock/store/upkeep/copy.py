"""Copies all tables from one database to another, whichever products they are, and proves that both hold the same."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Table, delete, func, insert, select

from penstock.store.database import Database
from penstock.store.errors import StoreError
from penstock.store.governance import governance_revision, ledger_head
from penstock.store.migrate import needs_upgrade
from penstock.store.schema import audit_events, key_revision, metadata

_BATCH = 1000
# What is referred to comes first.
_TABLES = metadata.sorted_tables
_APPEND_ONLY = ("audit_events", "ledger_entries")


class Contents(msgspec.Struct, frozen=True):
    """What a database holds: rows by table, and a digest of all values, the same on either product."""

    rows: dict[str, int]
    digest: str

    @property
    def total(self) -> int:
        """Rows of all tables."""
        return sum(self.rows.values())


class _Tally:
    """Sums the digests of rows, because the two products do not sort texts alike."""

    def __init__(self) -> None:
        self._rows = {str(table.name): 0 for table in _TABLES}
        self._sum = 0

    def add(self, table: Table, rows: Sequence[Row[Any]]) -> None:
        for row in rows:
            values = msgspec.json.encode([str(table.name), *row], order="deterministic")
            self._sum += int.from_bytes(hashlib.sha256(values).digest())
        self._rows[str(table.name)] += len(rows)

    def contents(self) -> Contents:
        return Contents(self._rows, f"{self._sum % 2**256:064x}")


def read_contents(connection: Connection) -> Contents:
    """What the connection's transaction sees."""
    tally = _Tally()
    for table in _TABLES:
        for rows in _batches(connection, table):
            tally.add(table, rows)
    return tally.contents()


def copy_rows(source: Connection, target: Connection) -> Contents:
    """Puts all rows into empty tables; what was read. Raises StoreError when it does not read back the same."""
    tally = _Tally()
    for table in _TABLES:
        for rows in _batches(source, table):
            tally.add(table, rows)
            target.execute(insert(table), [row._asdict() for row in rows])
    copied = tally.contents()
    if read_contents(target) != copied:
        raise StoreError("the copy is not the same as what was read; nothing was changed")
    continue_after(target, int(target.execute(select(func.coalesce(func.max(audit_events.c.seq), 0))).scalar_one()))
    return copied


def continue_after(connection: Connection, seq: int) -> None:
    """The next audit event gets a number above ``seq``; SQLite continues after what stands in the table."""
    if seq and connection.dialect.name == "postgresql":
        connection.execute(select(func.setval(func.pg_get_serial_sequence("audit_events", "seq"), seq)))


def count_rows(connection: Connection) -> dict[str, int]:
    """Tables with something in them; what a new database holds does not count."""
    counted = {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in _TABLES
    }
    # Each has one row from the beginning, which counts once something has happened.
    for number in (key_revision.c.revision, governance_revision.c.revision, ledger_head.c.seq):
        if connection.execute(select(number)).scalar() == 0:
            counted[number.table.name] = 0
    return {name: count for name, count in counted.items() if count}


def clear(connection: Connection) -> None:
    """Empties all tables and keeps other writers out until the transaction ends; inside ``append_only_open`` where the
    audit log or the ledger is filled."""
    if connection.dialect.name == "postgresql":
        names = ", ".join(table.name for table in _TABLES)
        connection.exec_driver_sql(f"LOCK TABLE {names} IN EXCLUSIVE MODE")
    for table in reversed(_TABLES):
        # A trigger of PostgreSQL refuses the statement, even where it would find nothing.
        if connection.execute(select(table).limit(1)).first() is not None:
            connection.execute(delete(table))


@contextmanager
def append_only_open(connection: Connection) -> Iterator[None]:
    """Lets the audit log and the ledger be emptied; their triggers are off in this transaction only, and on again when
    it commits."""
    if connection.dialect.name == "postgresql":
        for name in _APPEND_ONLY:
            connection.exec_driver_sql(f"ALTER TABLE {name} DISABLE TRIGGER USER")
        yield
        for name in _APPEND_ONLY:
            connection.exec_driver_sql(f"ALTER TABLE {name} ENABLE TRIGGER USER")
        return
    names = ", ".join(f"'{name}'" for name in _APPEND_ONLY)
    found = f"SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ({names})"  # noqa: S608 - our own names
    triggers = connection.exec_driver_sql(found).all()
    for name, _ in triggers:
        connection.exec_driver_sql(f"DROP TRIGGER {name}")
    yield
    for _, statement in triggers:
        connection.exec_driver_sql(statement)


def check_schema(db: Database) -> None:
    """Raises StoreError when the schema is not the one of this code."""
    with db.read() as connection:
        if needs_upgrade(connection):
            raise StoreError(f"{db.label}: the schema is an older one; run db:upgrade first")


def copy_database(source: Database, target: Database) -> Contents:
    """Fills an empty database of this schema with what another one holds at this moment. Raises StoreError."""
    check_schema(source)
    with source.read() as reading, target.write() as writing:
        if count_rows(writing):
            raise StoreError(f"{target.label}: the database is not empty; name an empty one")
        clear(writing)
        return copy_rows(reading, writing)


def _batches(connection: Connection, table: Table) -> Iterator[Sequence[Row[Any]]]:
    yield from connection.execute(select(table).execution_options(yield_per=_BATCH)).partitions()
