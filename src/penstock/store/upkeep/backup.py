"""Backups: one SQLite file that holds one state of all tables, whatever the database is, and the way back."""

import contextlib
import hashlib
import os
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from penstock.domain.platform import AuditEvent
from penstock.store.database import Database
from penstock.store.errors import StoreError
from penstock.store.governance import governance_revision
from penstock.store.schema import REVISIONS, audit_events, key_changes, key_revision
from penstock.store.sealed import TABLES, list_sealed
from penstock.store.sealing import MasterKeys, Sealer, sync_folder
from penstock.store.upkeep import copy
from penstock.store.upkeep.copy import Contents

# In the file beside our tables: when it was made, and a digest of everything else in it.
_SEAL = "penstock_backup"
# What gateway workers follow.
_REVISIONS = (key_revision.c.revision, governance_revision.c.revision)


class Backup(msgspec.Struct, frozen=True):
    """A backup that was checked. ``database`` is a private copy of it with the schema of this code."""

    path: Path
    taken_at: datetime
    database: Database


def write_backup(db: Database, path: Path) -> Contents:
    """Writes what the database holds at this moment to a new file, mode 0600, whole or not at all, and on the disk
    when it returns. Raises StoreError."""
    copy.check_schema(db)
    if path.exists():
        raise StoreError(f"{path}: exists already; name a new file")
    if not path.parent.is_dir():
        raise StoreError(f"{path.parent}: no such folder")
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        contents = _fill(db, draft)
        seal_file(draft)
        _verify(draft, contents)
        draft.replace(path)
        sync_folder(path.parent)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        for left in path.parent.glob(f"{draft.name}*"):
            left.unlink()
    return contents


@contextmanager
def opened_backup(path: Path) -> Iterator[Backup]:
    """Checks a backup and opens a copy of it, brought to the schema of this code. Raises StoreError with one line."""
    with tempfile.TemporaryDirectory(prefix="penstock-restore-") as folder:
        copied = Path(folder) / "backup.db"
        try:
            shutil.copyfile(path, copied)
            copied.chmod(0o600)
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
        taken_at = _checked(path, copied)
        with closing(Database.open(copied)) as database:
            yield Backup(path, taken_at, database)


def count_unopened(db: Database, keys: MasterKeys) -> tuple[int, int]:
    """How many of a backup's secrets the master keys do not open, and how many there are. Raises StoreError when there
    are secrets and no key."""
    with db.read() as connection:
        values = [value for table in TABLES for value in list_sealed(connection, table)]
    sealer, unopened = Sealer(keys.read) if values else None, 0
    for value in values:
        try:
            assert sealer is not None
            sealer.unseal(value.sealed, bound_to=value.bound_to)
        except StoreError:
            unopened += 1
    return unopened, len(values)


def restore(backup: Backup, db: Database, *, event: AuditEvent) -> Contents:
    """Replaces everything by the backup's content, in one transaction, and appends ``event`` to its audit log, with
    the rows before and after. Raises StoreError and leaves everything as it was."""
    with backup.database.read() as reading, db.write() as writing:
        before, last = copy.count_rows(writing), _last_seq(writing)
        seen = [writing.execute(select(number)).scalar_one() for number in _REVISIONS]
        with copy.append_only_open(writing):
            copy.clear(writing)
            contents = copy.copy_rows(reading, writing)
        _make_followers_forget(writing, seen)
        # No number of the audit log is ever given twice, not even for an event that the backup does not have.
        seq = max(last, _last_seq(writing)) + 1
        event = msgspec.structs.replace(event, seq=seq, before={"rows": before}, after={"rows": contents.rows})
        writing.execute(insert(audit_events).values(msgspec.structs.asdict(event)))
        copy.continue_after(writing, seq)
    return contents


def _last_seq(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(audit_events.c.seq), 0))).scalar_one())


def _make_followers_forget(connection: Connection, seen: Sequence[int]) -> None:
    """Revisions that no follower of the old or of the restored state has seen, with nothing known before them."""
    for number, old in zip(_REVISIONS, seen, strict=True):
        restored = connection.execute(select(number)).scalar_one()
        connection.execute(update(number.table).values({number: max(old, restored) + 1}))
    connection.execute(delete(key_changes))
    connection.execute(update(key_revision).values(pruned_to=key_revision.c.revision))


def _fill(db: Database, draft: Path) -> Contents:
    with closing(Database.open(draft)) as target:
        return copy.copy_database(db, target)


def seal_file(draft: Path) -> None:
    """Makes a SQLite file one that is known for a whole backup: when it was made, and the digest of what is in it."""
    with closing(sqlite3.connect(draft, isolation_level=None)) as raw:
        # One file, which opens where nothing can be written beside it.
        raw.execute("PRAGMA journal_mode = DELETE")
        raw.execute(f"CREATE TABLE {_SEAL} (taken_at TEXT NOT NULL, digest TEXT NOT NULL)")
        values = (datetime.now(UTC).isoformat(), _digest(raw))
        raw.execute(f"INSERT INTO {_SEAL} VALUES (?, ?)", values)  # noqa: S608 - a name of our own


def _verify(draft: Path, contents: Contents) -> None:
    _checked(draft, draft)
    with closing(Database.open(draft, upkeep=True)) as database, database.read() as connection:
        if copy.read_contents(connection) != contents:
            raise StoreError(f"{draft}: does not hold what was read")
    descriptor = os.open(draft, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checked(path: Path, file: Path) -> datetime:
    """When the backup was made. Raises StoreError when it is none, is damaged or newer than this code."""
    with contextlib.ExitStack() as scope:
        try:
            raw = scope.enter_context(closing(sqlite3.connect(file, isolation_level=None)))
            whole = raw.execute("PRAGMA integrity_check").fetchone()[0]
            if not raw.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (_SEAL,)).fetchone():
                raise StoreError(f"{path}: not a backup; penstock backup FILE makes one")
            taken_at, digest = raw.execute(f"SELECT taken_at, digest FROM {_SEAL}").fetchone()  # noqa: S608 - as above
            (schema,) = raw.execute("SELECT version_num FROM alembic_version").fetchone()
            same = whole == "ok" and not raw.execute("PRAGMA foreign_key_check").fetchall() and digest == _digest(raw)
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise StoreError(f"{path}: not a backup, or damaged: {error}") from error
    if not same:
        raise StoreError(f"{path}: damaged: it does not hold what was written; use another backup")
    if schema not in REVISIONS:
        raise StoreError(
            f"{path}: has schema {schema}, newer than this version of penstock knows (up to {REVISIONS[-1]}); "
            "install the newer penstock"
        )
    return datetime.fromisoformat(taken_at)


def _digest(raw: sqlite3.Connection) -> str:
    """Of all stored values but the seal; it needs to know no schema, so any version can check any backup."""
    total = 0
    tables = raw.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name != ? ORDER BY name", (_SEAL,))
    for (name,) in tables.fetchall():
        for row in raw.execute(f'SELECT * FROM "{name}"'):  # noqa: S608 - a name from the file's own list
            total += int.from_bytes(hashlib.sha256(repr((name, *row)).encode()).digest())
    return f"{total % 2**256:064x}"
