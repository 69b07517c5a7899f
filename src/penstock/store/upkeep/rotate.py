"""Rotates the master key: everything sealed is sealed again under a new key while servers go on reading and writing.

The key file names the new key before anything is sealed under it, and names the old one until nothing needs it: a
rotation that dies at any point leaves everything readable, and the next one finishes it. Its audit event is committed
before the old key goes, so that no finished rotation lacks one, and names the key, so that none has two.
"""

from collections.abc import Callable

import msgspec
from sqlalchemy import Connection, Table, bindparam, update

from penstock.domain.platform import AuditEvent
from penstock.store.database import Database, hold_master_keys
from penstock.store.errors import StoreError
from penstock.store.nouns.audit import AuditFilter, AuditStore
from penstock.store.sealed import TABLES, SealedValue, list_sealed
from penstock.store.sealing import new_master_key, read_master_keys, replace_master_keys, rotating

# Rows that one transaction seals again: a writer of the server waits for that many at most.
_BATCH = 500

Progress = Callable[[str], None]


class Rotation(msgspec.Struct, frozen=True):
    """What a rotation did: values sealed again, and whether the keys are in a file."""

    resealed: int
    from_file: bool


def rotate(db: Database, *, progress: Progress, event: AuditEvent | None = None, batch: int = _BATCH) -> Rotation:
    """Seals everything under a new key, or under the current one where several are given already: by the settings, or
    by a rotation that did not finish. ``progress`` is called between the steps; ``event`` is recorded. Raises
    StoreError."""
    sealer, keys = db.sealer, db.master_keys
    assert keys is not None
    if keys.path is None:
        done = Rotation(_reseal(db, progress, batch), from_file=False)
        _tell(db, event, done.resealed)
        return done
    with rotating(keys.path):
        known = read_master_keys(keys.path)
        if len(known) == 1:
            replace_master_keys(keys.path, (new_master_key(), *known))
            progress("the new key is in the file")
        resealed = 0
        while True:
            resealed += _reseal(db, progress, batch)
            progress("everything is sealed under the new key")
            with db.write() as connection:
                hold_master_keys(connection, ending=True)
                # What was sealed under the old key before may have been stored behind the last pass.
                finished = not _any_left(connection, sealer.head())
                if finished:
                    _tell(db, event, resealed)
            if finished:
                # Whoever seals from now on does so in a transaction that began after ours, and reads the new key.
                progress("the event is in the database")
                replace_master_keys(keys.path, read_master_keys(keys.path)[:1])
                return Rotation(resealed, from_file=True)


def _tell(db: Database, event: AuditEvent | None, resealed: int) -> None:
    """Records the event, unless a rotation to the same key that died has done so."""
    if event is None:
        return
    store, key = AuditStore(db), db.sealer.head()[1:].hex()
    with db.write():
        told = store.list(AuditFilter(action=event.action))[-1:]
        if not told or (told[0].after or {}).get("key") != key:
            store.add(msgspec.structs.replace(event, after={"resealed": resealed, "key": key}))


def _any_left(connection: Connection, head: bytes) -> bool:
    return any(list_sealed(connection, table, not_under=head, limit=1) for table in TABLES)


def _reseal(db: Database, progress: Progress, batch: int) -> int:
    done, head = 0, db.sealer.head()
    for table in TABLES:
        while values := _batch(db, table, head, batch):
            changes = [_change(db, table, value) for value in values]
            # A row that has changed since it was read keeps its change; the next pass finds it if it must.
            same = [column == bindparam(f"at_{column.name}") for column in table.primary_key]
            write = update(table).where(*same, table.c.sealed == bindparam("old")).values(sealed=bindparam("new"))
            with db.write() as connection:
                connection.execute(write, changes)
            done += len(changes)
            progress(f"{table.name}: {len(changes)} sealed again")
    return done


def _batch(db: Database, table: Table, head: bytes, size: int) -> list[SealedValue]:
    with db.read() as connection:
        return list_sealed(connection, table, not_under=head, limit=size)


def _change(db: Database, table: Table, value: SealedValue) -> dict[str, str | bytes]:
    try:
        text = db.sealer.unseal(value.sealed, bound_to=value.bound_to)
    except StoreError as error:
        raise StoreError(f"{table.name} {value.bound_to}: {error}; the old keys are kept") from None
    at = {f"at_{column.name}": part for column, part in zip(table.primary_key, value.key, strict=True)}
    return {**at, "old": value.sealed, "new": db.sealer.seal(text, bound_to=value.bound_to)}
