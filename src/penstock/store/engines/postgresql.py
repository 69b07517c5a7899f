"""PostgreSQL: snapshots for reads, row locks for writes, and no wait without an end, be the server even frozen."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Connection, create_engine, event, exc

from penstock.store.engines.backend import Backend, unavailable
from penstock.store.errors import StoreError

# Seconds. The server gives up first; the client's own patience is for a server that cannot even do that.
CONNECT_S = 2
LOCK_S = 3
STATEMENT_S = 4
PATIENCE_S = 5.0
# A process that hangs inside a transaction must not keep its locks.
IDLE_S = 30
POOL_WAIT_S = 5.0
# Advisory locks of the database, "PENSTOC" and a number.
_SCHEMA_LOCK = 0x50454E53544F4301
_WRITERS_LOCK = 0x50454E53544F4302


class PostgresBackend(Backend):
    """One database on a server. ``hurried`` bounds each statement; upkeep takes what it needs."""

    def __init__(self, url: URL, *, hurried: bool = True) -> None:
        ours = {"connect_timeout": CONNECT_S, "application_name": "penstock", "client_encoding": "utf8"}
        engine = create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            # Several workers share the server's 100 connections.
            pool_size=5,
            max_overflow=15,
            pool_timeout=POOL_WAIT_S,
            isolation_level="READ COMMITTED",
            connect_args={name: value for name, value in ours.items() if name not in url.query},
        )
        super().__init__(engine)
        self._hurried = hurried
        self._away = False
        self._probe = threading.Lock()
        event.listen(engine, "do_connect", self._open)
        event.listen(engine, "connect", self._set_bounds)
        event.listen(engine, "checkout", self._take)
        event.listen(engine, "checkin", _give_back)

    def connect(self, *, writes: bool) -> Connection:
        """A connection for a write, or for a read of one state. While the server is away one caller at a time tries
        it and the others fail at once, so that none queues for a time-out."""
        with self._probing():
            connection = self.engine.connect()
        if writes:
            return connection
        return connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def begin_write(self, connection: Connection, *, alone: bool) -> None:
        """Side by side with other writers, or alone: who lost a race once must not lose it again."""
        lock = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
        connection.exec_driver_sql(f"SELECT {lock}({_WRITERS_LOCK})")

    def lock_schema(self, connection: Connection) -> None:
        """Takes a lock of the whole database until the end of the transaction, and takes the time that it needs."""
        raw: Any = connection.connection.dbapi_connection
        raw.patience_s = None
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")

    @contextmanager
    def _probing(self) -> Iterator[None]:
        probes = self._away
        if probes and not self._probe.acquire(blocking=False):
            raise unavailable()
        try:
            yield
            self._away = False
        except exc.DBAPIError:
            self._away = True
            raise
        finally:
            if probes:
                self._probe.release()

    def _open(self, _dialect: object, _record: object, args: Any, fields: Any) -> "_Connection":
        connection = _Connection.connect(*args, **fields)
        # A pooler in between may not tell.
        if (encoding := connection.info.parameter_status("server_encoding")) not in (None, "UTF8"):
            connection.close()
            raise StoreError(
                f"the database has ENCODING '{encoding}'; make one with ENCODING 'UTF8' TEMPLATE template0"
            )
        connection.on_silence = self._note_silence
        return connection

    def _note_silence(self) -> None:
        self._away = True

    def _set_bounds(self, connection: "_Connection", _record: object) -> None:
        bounds = {
            "lock_timeout": LOCK_S,
            "statement_timeout": STATEMENT_S if self._hurried else 0,
            "idle_in_transaction_session_timeout": IDLE_S if self._hurried else 0,
        }
        connection.autocommit = True
        for name, seconds in bounds.items():
            connection.execute(f"SET {name} = '{seconds}s'".encode())
        connection.autocommit = False

    def _take(self, connection: "_Connection", _record: object, _proxy: object) -> None:
        connection.patience_s = PATIENCE_S if self._hurried else None


def _give_back(connection: "_Connection | None", _record: object) -> None:
    if connection is not None:
        connection.patience_s = CONNECT_S


class _Connection(psycopg.Connection[Any]):
    """A connection that is given up when the server is silent for ``patience_s`` seconds: the kernel of a machine
    whose server hangs still acknowledges, so no time-out of TCP or of the server would ever end the wait."""

    # Until it is taken from the pool: for the pool's question whether the server is there.
    patience_s: float | None = CONNECT_S
    on_silence: Callable[[], None] | None = None

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Raises psycopg.OperationalError, after which the connection is closed if the answer is still due."""
        try:
            return super().wait(gen, interval, self.patience_s if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
                if self.on_silence is not None:
                    self.on_silence()
            raise
