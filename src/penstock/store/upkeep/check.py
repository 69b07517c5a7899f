"""Looks whether a database is whole: its schema, its file, its references, its counters, and its master key."""

import sqlite3

import msgspec
from sqlalchemy import Connection, Table, func, inspect, select, text

from penstock.domain.errors import PenstockError
from penstock.store.database import Database
from penstock.store.errors import StoreError
from penstock.store.migrate import schema_of
from penstock.store.schema import REVISIONS, key_changes, key_revision, metadata
from penstock.store.sealed import TABLES

_INVALID = """
SELECT format('constraint %s of %s is not valid', conname, conrelid::regclass) FROM pg_constraint
WHERE NOT convalidated AND connamespace = current_schema()::regnamespace
UNION ALL SELECT format('index %s is not valid', indexrelid::regclass) FROM pg_index
JOIN pg_class ON pg_class.oid = indexrelid
WHERE NOT indisvalid AND relnamespace = current_schema()::regnamespace
"""


class Report(msgspec.Struct, frozen=True):
    """What was found: the ``schema`` (None for a database without one) beside the one that this code ``needs``,
    ``rows`` by table, and every problem in one line."""

    database: str
    schema: str | None
    needs: str
    rows: dict[str, int]
    problems: tuple[str, ...]


def check(db: Database) -> Report:
    """Reads all of the database and changes nothing. Raises PenstockError when it does not answer."""
    try:
        return _check(db)
    except PenstockError as error:
        cause = getattr(error.__cause__, "orig", None)
        if type(cause) is not sqlite3.DatabaseError:
            raise
        return Report(db.label, db.found, REVISIONS[-1], {}, (f"the file is damaged: {cause}",))


def _check(db: Database) -> Report:
    with db.read() as connection:
        if problems := _damages(connection):
            return Report(db.label, db.found, REVISIONS[-1], {}, tuple(problems))
        found = schema_of(connection)
        if found != REVISIONS[-1]:
            return Report(db.label, found, REVISIONS[-1], {}, (_other_schema(found),))
        rows: dict[str, int] = {}
        if not (problems := _missing(connection)):
            rows = {name: _count(connection, table) for name, table in metadata.tables.items()}
            problems = [*_orphans(connection), *_counters(connection)]
    if any(rows.get(table.name) for table in TABLES):
        problems += _master_key(db)
    return Report(db.label, found, REVISIONS[-1], rows, tuple(problems))


def _other_schema(found: str | None) -> str:
    if found is None:
        return "the database has no schema yet: run penstock db:upgrade"
    if found in REVISIONS:
        return f"the schema {found} is older than this code needs: run penstock db:upgrade"
    return f"the schema {found} is newer than this code knows: install the newer penstock"


def _missing(connection: Connection) -> list[str]:
    there = set(inspect(connection).get_table_names())
    return [f"table {name} is missing" for name in metadata.tables if name not in there]


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def _damages(connection: Connection) -> list[str]:
    if connection.dialect.name == "postgresql":
        return list(connection.execute(text(_INVALID)).scalars())
    told = connection.exec_driver_sql("PRAGMA integrity_check(20)").scalars()
    return [f"the file is damaged: {' '.join(line.split())}" for line in told if line != "ok"]


def _orphans(connection: Connection) -> list[str]:
    told = []
    for table in metadata.tables.values():
        for key in table.foreign_keys:
            parent = key.column.table.alias()
            there = parent.c[key.column.name]
            lost = select(func.count()).select_from(table.outerjoin(parent, key.parent == there))
            lost = lost.where(key.parent.is_not(None), there.is_(None))
            if count := connection.execute(lost).scalar_one():
                told.append(f"{count} rows of {table.name} have a {key.parent.name} that is not in {key.column.table}")
    return told


def _counters(connection: Connection) -> list[str]:
    counters = connection.execute(select(key_revision.c.revision, key_revision.c.pruned_to)).all()
    if len(counters) != 1:
        return [f"key_revision has {len(counters)} rows instead of one"]
    revision, pruned_to = counters[0]
    kept = select(func.count(), func.min(key_changes.c.revision), func.max(key_changes.c.revision))
    count, first, last = connection.execute(kept).one()
    wanted = (revision - pruned_to, pruned_to + 1 if count else None, revision if count else None)
    if (count, first, last) == wanted:
        return []
    return [f"key_changes should hold the changes {pruned_to + 1} to {revision}, and has {count}, {first} to {last}"]


def _master_key(db: Database) -> list[str]:
    try:
        _ = db.sealer
    except StoreError as error:
        return [str(error)]
    return []
