"""The audit log: rows are added with the change they tell of, in its transaction, and never changed or removed."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, insert, select

from penstock.domain.platform import AuditEvent
from penstock.store.database import Database
from penstock.store.paging import Page, cut
from penstock.store.schema import audit_events, key_revision

_FIELDS = tuple(name for name in AuditEvent.__struct_fields__ if name != "seq")


class AuditFilter(NamedTuple):
    """Which events: all, or those of one app, from a time on, whose action begins with a word such as ``addon``. An app
    that is gone is found by the name that it had."""

    app_id: str | None = None
    app_name: str | None = None
    since: datetime | None = None
    action: str | None = None


EVERYTHING = AuditFilter()


class AuditStore:
    """Audit events in the order in which they were written."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, event: AuditEvent) -> None:
        """Appends one event when the transaction ends; its ``seq`` is the database's to give, in the order in which
        transactions end, so that whoever follows the log by ``seq`` misses none."""
        with self._db.write():
            self._db.at_commit(lambda connection: _append(connection, event))

    def list(self, chosen: AuditFilter = EVERYTHING, *, page: Page | None = None) -> tuple[AuditEvent, ...]:
        """The events of one page by ``seq``, or all; the oldest first."""
        query = cut(select(audit_events), page, {"seq": audit_events.c.seq})
        if chosen.app_id is not None:
            query = query.where(audit_events.c.app_id == chosen.app_id)
        if chosen.app_name is not None:
            query = query.where(audit_events.c.app_name == chosen.app_name)
        if chosen.since is not None:
            query = query.where(audit_events.c.at >= chosen.since)
        if chosen.action is not None:
            query = query.where(audit_events.c.action.startswith(chosen.action, autoescape=True))
        with self._db.read() as connection:
            return tuple(_event(row) for row in connection.execute(query))


def _append(connection: Connection, event: AuditEvent) -> None:
    # The row that every change of a key takes last, too: one lock for both, so that no two can wait for each other.
    connection.execute(select(key_revision.c.id).with_for_update())
    connection.execute(insert(audit_events).values(**{name: getattr(event, name) for name in _FIELDS}))


def _event(row: Row[Any]) -> AuditEvent:
    return AuditEvent(seq=row.seq, **{name: getattr(row, name) for name in _FIELDS})
