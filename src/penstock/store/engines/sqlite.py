"""SQLite: a file for its owner only, in WAL, with one writer at a time."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy.dialects.sqlite  # noqa: F401 - else the first engine loads it, in each fork anew
from sqlalchemy import URL, Connection, create_engine, event

from penstock.settings.private import private_folder
from penstock.store.engines.backend import Backend, unavailable

BUSY_S = 5.0
_WRITES = "penstock_writes"


class SqliteBackend(Backend):
    """One file. ``create`` makes it, else it must be there; raises OSError."""

    def __init__(self, url: URL, *, create: bool) -> None:
        _touch(Path(str(url.database)), create=create)
        engine = create_engine(url, hide_parameters=True, pool_size=16, max_overflow=32, pool_timeout=BUSY_S)
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
        super().__init__(engine)
        # SQLite lets one writer in and makes the others poll; a lock serves this process's threads in turn instead.
        self._writer = threading.Lock()

    def prepare(self) -> None:
        """Switches to WAL, which is kept in the file."""
        # SQLite does not wait for the lock here, so several first starts try again.
        deadline = time.monotonic() + BUSY_S
        while True:
            raw = self.engine.raw_connection()
            try:
                raw.cursor().execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            finally:
                raw.close()

    def connect(self, *, writes: bool) -> Connection:
        """A connection that begins as a reader or a writer."""
        return self.engine.connect().execution_options(**{_WRITES: writes})

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One writer at a time in this process."""
        if not self._writer.acquire(timeout=BUSY_S):
            raise unavailable()
        try:
            yield
        finally:
            self._writer.release()


def _touch(path: Path, *, create: bool) -> None:
    # SQLite gives its journal files the mode of the database file.
    if create:
        private_folder(path.parent)
    os.close(os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600))


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    # No implicit BEGIN by the driver: it would come too late for reads and be deferred for writes.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")
    connection.execute("PRAGMA foreign_keys = ON")
    # What was acknowledged survives a power cut.
    connection.execute("PRAGMA synchronous = FULL")


def _begin(connection: Connection) -> None:
    # A transaction that starts as a reader cannot become a writer once another one has written.
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
