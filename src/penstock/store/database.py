"""A thread-safe handle on the database: opening, migrating, and transactions that the noun stores join."""

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, exc, func, select

from penstock.domain.errors import PenstockError
from penstock.store.engines.address import is_sqlite, label_of, parse_address
from penstock.store.engines.backend import Backend, unavailable
from penstock.store.engines.sqlite import SqliteBackend
from penstock.store.errors import RetryableError, StoreError
from penstock.store.migrate import needs_upgrade, schema_of, upgrade
from penstock.store.sealed import TABLES, SealedValue, list_sealed
from penstock.store.sealing import MasterKeys, Sealer, create_master_key

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Any number that no other program's advisory lock in the same database has.
_ROTATION_LOCK = 0x50454E53524F5441
# That many lines an outage may add to the log.
_REASONS = 8


class _Open(threading.local):
    """The transaction that a thread has open and what it does last; whether the thread's writes want to be alone, and
    how many it has committed."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.writes = self.alone = False
        self.last: list[Callable[[Connection], None]] = []
        self.commits = 0


class Database:
    """One database, shared by all threads of a process. ``label`` names it in messages, without its password;
    ``found`` is the schema that it had when it was opened, None for a new one.

    ``read`` and ``write`` open a transaction for the current thread, and what runs inside joins it, so that a change
    of many steps is one transaction. Both raise PenstockError store_unavailable when the database does not answer,
    RetryableError when the transaction lost a race, and InvalidValueError for a value that cannot be stored.
    """

    def __init__(self, backend: Backend, *, label: str, master_keys: MasterKeys | None) -> None:
        self._backend = backend
        self.master_keys = master_keys
        self._open = _Open()
        self.label = label
        self.found: str | None = None
        # Why it does not answer, as far as that was told; empty while it answers.
        self._reasons: frozenset[str] = frozenset()
        self._noting = threading.Lock()

    @classmethod
    def open(
        cls,
        url_or_path: str | Path,
        *,
        home: Path | None = None,
        master_keys: MasterKeys | None = None,
        upkeep: bool = False,
    ) -> "Database":
        """Opens and migrates. A path, or a URL such as ``sqlite:////data/penstock.db`` or
        ``postgresql://user:password@host/database``; without ``master_keys``, the master key is in ``home`` (default:
        the SQLite file's folder). ``upkeep`` opens what is there as it is, whatever its schema, and lets a statement
        take its time. Raises StoreError with one clear line."""
        url = parse_address(url_or_path)
        label = label_of(url)
        try:
            if is_sqlite(url):
                home = home or Path(str(url.database)).parent
            master_keys = master_keys or (MasterKeys(home / "master.key") if home else None)
            database = cls(_backend(url, upkeep=upkeep), label=label, master_keys=master_keys)
        except (OSError, exc.ArgumentError, ImportError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise StoreError(f"{label}: cannot be opened as a database: {reason}") from error
        try:
            database._meet_schema(upgrades=not upkeep)
        except (exc.DBAPIError, sqlite3.Error, PenstockError) as error:
            database.close()
            cause = error.__cause__ if isinstance(error, PenstockError) else error
            reason = " ".join(str(getattr(cause, "orig", cause)).split())
            raise StoreError(f"{label}: cannot be opened as a database: {reason}") from error
        except StoreError as error:
            database.close()
            raise StoreError(f"{label}: {error}") from error
        return database

    def close(self) -> None:
        """Closes all idle connections."""
        self._backend.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state; joins the thread's open one."""
        joined = self._open.connection
        if joined is not None:
            yield joined
            return
        with self._translated(), self._transaction(writes=False) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may change things, committed at the end and rolled back by an exception."""
        joined = self._open.connection
        if joined is not None:
            if not self._open.writes:
                raise RuntimeError("a write inside a read transaction")
            yield joined
            return
        with self._translated(), self._backend.turn(), self._transaction(writes=True) as connection:
            yield connection
        self._open.commits += 1

    def at_commit(self, act: Callable[[Connection], None]) -> None:
        """Leaves ``act`` to the end of the open write transaction, after all its other steps."""
        if not self._open.writes:
            raise RuntimeError("at_commit outside a write transaction")
        self._open.last.append(act)

    def retrying(self, act: Callable[[], T]) -> T:
        """What ``act`` returns. When its transaction lost against another one and nothing of it is committed yet, it
        runs once more, then with no other writer beside it; inside an open transaction it runs once, for only the
        outermost can be run again. Raises the last run's RetryableError."""
        before = self._open.commits
        try:
            return act()
        except RetryableError:
            if self._open.connection is not None or self._open.commits != before:
                raise
        self._open.alone = True
        try:
            return act()
        finally:
            self._open.alone = False

    @cached_property
    def sealer(self) -> Sealer:
        """Opens secrets with the master keys; their file is created on first use. Raises StoreError when it is missing
        or another one although the database holds sealed secrets."""
        keys = self.master_keys
        if keys is None:
            raise StoreError("the master key's folder is not set: open the database with home=")
        if keys.path is not None and not keys.path.exists():
            if self._sample() is not None:
                raise StoreError(f"{keys.path} is missing but the database holds secrets sealed with it; restore it")
            create_master_key(keys.path)
        sealer = Sealer(keys.read)
        # Sampled after the keys were read: before, it may be under an old key that a rotation has dropped since.
        sample = self._sample()
        if sample is not None:
            sealer.unseal(sample.sealed, bound_to=sample.bound_to)
        return sealer

    def seal(self, connection: Connection, text: str, *, bound_to: str) -> bytes:
        """Seals in the write transaction that stores the result, so that no rotation of the master key ends between
        the two. Raises StoreError."""
        return self.seal_all(connection, {bound_to: text})[bound_to]

    def seal_all(self, connection: Connection, texts: Mapping[str, str]) -> dict[str, bytes]:
        """As ``seal``, many at once: texts and sealed forms are by what each is bound to. Raises StoreError."""
        hold_master_keys(connection)
        return self.sealer.seal_all(texts)

    def _sample(self) -> SealedValue | None:
        with self.read() as connection:
            found = (list_sealed(connection, table, limit=1) for table in TABLES)
            return next((values[0] for values in found if values), None)

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        with self._backend.connect(writes=writes) as connection, connection.begin():
            if writes:
                self._backend.begin_write(connection, alone=self._open.alone)
            self._open.connection, self._open.writes = connection, writes
            try:
                yield connection
                for act in self._open.last:
                    act(connection)
            finally:
                self._open.connection, self._open.writes = None, False
                self._open.last.clear()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        before = self._reasons
        try:
            yield
        except (exc.IntegrityError, exc.ProgrammingError, exc.NotSupportedError):
            raise
        except (exc.DBAPIError, exc.TimeoutError) as error:
            self._note_outage(" ".join(str(getattr(error, "orig", None) or type(error).__name__).split()))
            raise unavailable() from error
        if before:
            self._note_end(before)

    def _note_outage(self, reason: str) -> None:
        """Once per reason and outage, or every request would add a line."""
        with self._noting:
            if reason not in self._reasons and len(self._reasons) < _REASONS:
                self._reasons |= {reason}
                logger.warning("database unavailable: %s", reason)

    def _note_end(self, reasons: frozenset[str]) -> None:
        # Only what began after the last reason was noticed can tell that it is over.
        with self._noting:
            if self._reasons is reasons:
                self._reasons = frozenset()
                logger.info("database available again")

    def _meet_schema(self, *, upgrades: bool) -> None:
        if upgrades:
            self._backend.prepare()
        with self.read() as connection:
            self.found = schema_of(connection)
            old = upgrades and needs_upgrade(connection)
        if old:
            with self.write() as connection:
                self._backend.lock_schema(connection)
                upgrade(connection)


def hold_master_keys(connection: Connection, *, ending: bool = False) -> None:
    """Until the transaction ends, no rotation of the master key ends, or, for the one ``ending``, nothing is sealed.

    SQLite, which lets one writer in, needs no more for it than a write transaction.
    """
    if connection.dialect.name == "postgresql":
        lock = func.pg_advisory_xact_lock if ending else func.pg_advisory_xact_lock_shared
        connection.execute(select(lock(_ROTATION_LOCK)))


def _backend(url: URL, *, upkeep: bool) -> Backend:
    if is_sqlite(url):
        return SqliteBackend(url, create=not upkeep)
    # Imported here: whoever stays with SQLite does not pay for the driver.
    from penstock.store.engines.postgresql import PostgresBackend  # noqa: PLC0415

    return PostgresBackend(url, hurried=not upkeep)
