"""What an operator does to the whole store of a home, from its settings: back up, restore, move, rotate the key."""

import getpass
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from penstock.app.home import Home
from penstock.app.store import master_keys, open_database, refuse_other_database
from penstock.domain.ids import new_id
from penstock.domain.platform import AuditEvent
from penstock.settings.tree import Settings
from penstock.store.database import Database
from penstock.store.engines.address import holds_password
from penstock.store.errors import StoreError
from penstock.store.nouns.audit import AuditStore
from penstock.store.sealing import MasterKeys
from penstock.store.upkeep import backup, rotate
from penstock.store.upkeep.backup import Backup
from penstock.store.upkeep.copy import Contents, check_schema, copy_database, count_rows
from penstock.store.upkeep.rotate import Progress, Rotation


def back_up(settings: Settings, path: Path) -> tuple[Contents, str | None]:
    """Writes a backup to a new file, while servers run: what is in it, and one line when the master key does not open
    that. Raises StoreError, PenstockError."""
    refuse_other_database(settings)
    with closing(open_database(settings, upkeep=True)) as db:
        contents = backup.write_backup(db, path.absolute())
    with closing(Database.open(path.absolute(), upkeep=True)) as made:
        try:
            unopened, total = backup.count_unopened(made, master_keys(settings))
        except StoreError as error:
            return contents, f"Its secrets do not open: {error}"
    return (
        contents,
        f"{unopened} of its {total} secrets do not open with the master key in place." if unopened else None,
    )


class Restoring(msgspec.Struct, frozen=True):
    """A restore that can go ahead: ``replaced`` are the rows by table that it would replace, ``unopened`` of its
    ``secrets`` are those that the master key does not open."""

    source: Backup
    target: Database
    replaced: dict[str, int]
    unopened: int
    secrets: int

    def run(self) -> Contents:
        """Does it. Raises StoreError, PenstockError; then nothing was changed."""
        return backup.restore(self.source, self.target, event=_event("database.restore", self.source.path.name))


@contextmanager
def restoring(settings: Settings, path: Path) -> Iterator[Restoring]:
    """Checks a backup and the home for a restore, and keeps servers out of the home. Raises StoreError, HomeError,
    PenstockError."""
    _lock(settings)
    keys = master_keys(settings)
    with backup.opened_backup(path.absolute()) as source:
        unopened, total = backup.count_unopened(source.database, keys)
        if total and unopened == total:
            raise StoreError(f"{path}: the master key is not the one this backup was made with; put that one in place")
        open_database(settings).close()
        with closing(open_database(settings, upkeep=True)) as target:
            with target.read() as connection:
                replaced = count_rows(connection)
            yield Restoring(source, target, replaced, unopened, total)


def copy_to(settings: Settings, to: str) -> Contents:
    """Moves everything into another, empty database; no server may write meanwhile. Raises StoreError, HomeError,
    PenstockError."""
    if holds_password(to):
        raise StoreError("--to: a secret must not stand in argv; leave the password out and set PGPASSWORD")
    _lock(settings)
    keys = master_keys(settings)
    with closing(open_database(settings, upkeep=True)) as source:
        Database.open(to, master_keys=keys).close()
        with closing(Database.open(to, master_keys=keys, upkeep=True)) as target:
            with target.write():
                contents = copy_database(source, target)
                event = _event("database.copy", Path(source.label).name)
                AuditStore(target).add(msgspec.structs.replace(event, after={"rows": contents.rows}))
            return contents


class Rotating(msgspec.Struct, frozen=True):
    """A rotation that can go ahead; ``keys`` say where the key is that earlier backups need."""

    target: Database
    keys: MasterKeys

    def run(self, progress: Progress) -> Rotation:
        """Does it. Raises StoreError, PenstockError."""
        return rotate.rotate(self.target, progress=progress, event=_event("master_key.rotate", None))


@contextmanager
def rotating(settings: Settings) -> Iterator[Rotating]:
    """Checks, for a rotation of the master key while servers run, that the database is theirs and the key fits. Raises
    StoreError, PenstockError."""
    refuse_other_database(settings)
    with closing(open_database(settings, upkeep=True)) as db:
        check_schema(db)
        _ = db.sealer
        yield Rotating(db, master_keys(settings))


def _lock(settings: Settings) -> None:
    # Held until this process ends.
    home = Home(settings.home, another="set PENSTOCK_HOME")
    home.prepare()
    home.lock()


def _event(action: str, name: str | None) -> AuditEvent:
    return AuditEvent(
        at=datetime.now(UTC),
        actor_id=None,
        actor_email=_user(),
        source="local",
        request_id=new_id(),
        action=action,
        object_type=action.partition(".")[0],
        object_name=name,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"uid {os.getuid()}"
