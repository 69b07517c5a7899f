"""A thread-safe handle on the database: opening, migrating, and transactions that the noun stores join."""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url, select

from penstock.domain.errors import PenstockError
from penstock.store.errors import StoreError
from penstock.store.migrate import needs_upgrade, upgrade
from penstock.store.schema import api_keys, config_vars
from penstock.store.sealing import Sealer, create_master_key, read_master_key

logger = logging.getLogger(__name__)

BUSY_S = 5.0
_WRITES = "penstock_writes"


class Database:
    """One database, shared by all threads of a process.

    ``read`` and ``write`` open a transaction for the current thread, and what runs inside joins it, so that a change
    of many steps is one transaction. Both raise PenstockError store_unavailable when the database does not answer.
    """

    def __init__(self, engine: Engine, *, home: Path | None) -> None:
        self._engine = engine
        self._home = home
        self._open = threading.local()
        # SQLite lets one writer in and makes the others poll; a lock serves this process's threads in turn instead.
        self._writer = threading.Lock() if engine.dialect.name == "sqlite" else None

    @classmethod
    def open(cls, url_or_path: str | Path, *, home: Path | None = None) -> "Database":
        """Opens and migrates. A path, or a URL such as ``sqlite:////data/penstock.db``; ``home`` holds ``master.key``
        (default: the folder of the SQLite file). Raises StoreError with one clear line."""
        url = _url(url_or_path)
        name = url.database if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)
        try:
            if url.get_backend_name() == "sqlite":
                _create_private(Path(str(url.database)))
                home = home or Path(str(url.database)).parent
            database = cls(_engine(url), home=home)
        except (OSError, exc.ArgumentError, ImportError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise StoreError(f"{name}: cannot be opened as a database: {reason}") from error
        try:
            database._migrate()
        except (exc.DBAPIError, sqlite3.Error, PenstockError) as error:
            database.close()
            cause = error.__cause__ if isinstance(error, PenstockError) else error
            raise StoreError(f"{name}: cannot be opened as a database: {getattr(cause, 'orig', cause)}") from error
        except StoreError as error:
            database.close()
            raise StoreError(f"{name}: {error}") from error
        return database

    def close(self) -> None:
        """Closes all idle connections."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state; joins the thread's open one."""
        joined: Connection | None = getattr(self._open, "connection", None)
        if joined is not None:
            yield joined
            return
        with _translated(), self._transaction(writes=False) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may change things, committed at the end and rolled back by an exception."""
        joined: Connection | None = getattr(self._open, "connection", None)
        if joined is not None:
            if not joined.get_execution_options().get(_WRITES):
                raise RuntimeError("a write inside a read transaction")
            yield joined
            return
        with _translated(), self._turn(), self._transaction(writes=True) as connection:
            yield connection

    @cached_property
    def sealer(self) -> Sealer:
        """Seals and opens secrets with HOME/master.key, created on first use. Raises StoreError when it is missing
        or another one although the database holds sealed secrets."""
        if self._home is None:
            raise StoreError("the master key's folder is not set: open the database with home=")
        path = self._home / "master.key"
        sample = self._sample()
        try:
            key = read_master_key(path)
        except FileNotFoundError:
            if sample is not None:
                message = f"{path} is missing but the database holds secrets sealed with it; restore it"
                raise StoreError(message) from None
            key = create_master_key(path)
        sealer = Sealer(key)
        if sample is not None:
            sealer.unseal(sample[1], bound_to=sample[0])
        return sealer

    def _sample(self) -> tuple[str, bytes] | None:
        with self.read() as connection:
            key = connection.execute(select(api_keys.c.id, api_keys.c.sealed).limit(1)).one_or_none()
            if key is not None:
                return key.id, key.sealed
            var = connection.execute(select(config_vars).limit(1)).one_or_none()
            return None if var is None else (f"{var.app_id}/{var.name}", var.sealed)

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        with self._engine.connect().execution_options(**{_WRITES: writes}) as connection, connection.begin():
            self._open.connection = connection
            try:
                yield connection
            finally:
                self._open.connection = None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._writer is None:
            yield
            return
        if not self._writer.acquire(timeout=BUSY_S):
            raise _unavailable()
        try:
            yield
        finally:
            self._writer.release()

    def _migrate(self) -> None:
        if self._engine.dialect.name == "sqlite":
            self._use_wal()
        with self.read() as connection:
            old = needs_upgrade(connection)
        if old:
            with self.write() as connection:
                upgrade(connection)

    def _use_wal(self) -> None:
        # The switch is kept in the file. SQLite does not wait for the lock here, so several first starts try again.
        deadline = time.monotonic() + BUSY_S
        while True:
            raw = self._engine.raw_connection()
            try:
                raw.cursor().execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            finally:
                raw.close()


def _url(url_or_path: str | Path) -> URL:
    if isinstance(url_or_path, str) and "://" in url_or_path:
        try:
            url = make_url(url_or_path)
        except exc.ArgumentError:
            raise StoreError("database.url: not a database URL, such as sqlite:////data/penstock.db") from None
    else:
        url = URL.create("sqlite", database=str(Path(url_or_path).absolute()))
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise StoreError("database.url: name a file; a database in memory cannot be shared by several processes")
    return url


def _create_private(path: Path) -> None:
    # SQLite gives its journal files the mode of the database file.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _engine(url: URL) -> Engine:
    options: dict[str, Any] = {"pool_size": 16, "max_overflow": 32, "pool_timeout": BUSY_S}
    if url.get_backend_name() != "sqlite":
        return create_engine(url, hide_parameters=True, pool_pre_ping=True, **options)
    engine = create_engine(url, hide_parameters=True, **options)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # No implicit BEGIN by the driver: it would come too late for reads and be deferred for writes.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")
    connection.execute("PRAGMA foreign_keys = ON")
    # What was acknowledged survives a power cut.
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that starts as a reader cannot become a writer once another one has written.
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (exc.IntegrityError, exc.ProgrammingError, exc.DataError, exc.NotSupportedError):
        raise
    except (exc.DBAPIError, exc.TimeoutError) as error:
        logger.warning("database unavailable: %s", getattr(error, "orig", None) or type(error).__name__)
        raise _unavailable() from error


def _unavailable() -> PenstockError:
    return PenstockError("store_unavailable", "The database does not answer. Try again.", retry_after_s=1)
