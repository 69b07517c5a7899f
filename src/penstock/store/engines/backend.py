"""What both databases share: an engine whose errors are the store's own, and values that either of them keeps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, String, event
from sqlalchemy.engine import ExceptionContext

from penstock.domain.errors import PenstockError
from penstock.store.errors import InvalidValueError, RetryableError

# Serialization failure, deadlock, and a row that went away between being read and being referred to.
_LOST_RACES = {"40001", "40P01", "23503", "SQLITE_CONSTRAINT_FOREIGNKEY"}


class Backend:
    """One database behind an engine. This much does for any product; each adds what it needs."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        event.listen(engine, "handle_error", _told)
        event.listen(engine, "before_cursor_execute", _check_values)

    def prepare(self) -> None:
        """Makes a database of this process's choosing ready for the schema, where one is to be made or upgraded."""

    def connect(self, *, writes: bool) -> Connection:
        """A connection whose next transaction may write, or sees one state. Raises SQLAlchemy's errors, PenstockError
        store_unavailable."""
        raise NotImplementedError

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Held around a write transaction. Raises PenstockError store_unavailable."""
        yield

    def begin_write(self, connection: Connection, *, alone: bool) -> None:
        """The first step of each write transaction; one that is ``alone`` waits until all others have ended, and
        keeps new ones waiting."""

    def lock_schema(self, connection: Connection) -> None:
        """Waits, in a write transaction, until no other process upgrades, and keeps others from it until the end."""


def unavailable() -> PenstockError:
    """The database does not answer: a 503 with Retry-After."""
    return PenstockError("store_unavailable", "The database does not answer. Try again.", retry_after_s=1)


def _told(context: ExceptionContext) -> Exception | None:
    error = context.original_exception
    cause = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None)
    if cause in _LOST_RACES:
        return RetryableError()
    refused = context.dialect.dbapi.DataError if context.dialect.dbapi else UnicodeEncodeError
    if isinstance(error, (refused, UnicodeEncodeError)):
        return InvalidValueError("a value")
    return None


def _check_values(_connection: object, _cursor: object, _sql: str, _values: object, context: Any, _many: bool) -> None:
    # SQLite keeps any text in any column: what it took could not be moved to PostgreSQL, nor tested on one of them.
    if context is None or not (context.isinsert or context.isupdate):
        return
    for name, bind in context.compiled.binds.items():
        length = bind.type.length if isinstance(bind.type, String) else None
        if length is None:
            continue
        for values in context.compiled_parameters:
            value = values.get(name)
            if isinstance(value, str) and (len(value) > length or "\0" in value):
                raise InvalidValueError(name, length)
