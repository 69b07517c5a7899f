"""The audit log: rows are added with the change they tell of, in its transaction, and never changed or removed."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, insert, select

from penstock.domain.platform import AuditEvent
from penstock.store.database import Database
from penstock.store.schema import audit_events

_FIELDS = tuple(name for name in AuditEvent.__struct_fields__ if name != "seq")


class AuditStore:
    """Audit events in the order in which they were written."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, event: AuditEvent) -> None:
        """Appends one event; its ``seq`` is the database's to give."""
        with self._db.write() as connection:
            connection.execute(insert(audit_events).values(**{name: getattr(event, name) for name in _FIELDS}))

    def list(
        self, *, app_id: str | None = None, since: datetime | None = None, after: int = 0, limit: int = 200
    ) -> tuple[AuditEvent, ...]:
        """At most ``limit`` events with a ``seq`` above ``after``, oldest first: all, or those of one app."""
        query = select(audit_events).where(audit_events.c.seq > after).order_by(audit_events.c.seq).limit(limit)
        if app_id is not None:
            query = query.where(audit_events.c.app_id == app_id)
        if since is not None:
            query = query.where(audit_events.c.at >= since)
        with self._db.read() as connection:
            return tuple(_event(row) for row in connection.execute(query))


def _event(row: Row[Any]) -> AuditEvent:
    return AuditEvent(seq=row.seq, **{name: getattr(row, name) for name in _FIELDS})
