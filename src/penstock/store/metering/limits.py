"""Limits that operators set, each on one object, of one model or of all together."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, and_, delete, exc, insert, select, update

from penstock.domain.ids import new_id
from penstock.domain.limits import LimitRow, Limits, Scope
from penstock.store.database import Database
from penstock.store.errors import NotFoundError, RetryableError
from penstock.store.governance import limits
from penstock.store.metering.revisions import touch
from penstock.store.metering.subjects import hold, of_app
from penstock.store.paging import Page, cut

FIELDS = Limits.__struct_fields__


class LimitStore:
    """Rows by scope, id of the object, and model. A change makes gateway workers read again what it concerns."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, scope: Scope, subject_id: str, model: str = "", *, held: bool = False) -> LimitRow | None:
        """That row, or None; ``held`` keeps others from changing it until the transaction ends."""
        query = select(limits).where(_is(scope, subject_id, model))
        with self._db.read() as connection:
            row = connection.execute(query.with_for_update() if held else query).one_or_none()
        return None if row is None else limit_row(row)

    def get(self, scope: Scope, subject_id: str, model: str = "") -> LimitRow:
        """That row. Raises NotFoundError."""
        found = self.find(scope, subject_id, model)
        if found is None:
            raise NotFoundError("limit")
        return found

    def list(self, *, app_id: str | None = None, page: Page | None = None) -> tuple[LimitRow, ...]:
        """Rows by ``id``: all, or those that are about an app (store/metering/subjects.py)."""
        query = cut(select(limits), page, {"id": limits.c.id})
        if app_id is not None:
            query = query.where(of_app(limits, app_id))
        with self._db.read() as connection:
            return tuple(limit_row(row) for row in connection.execute(query))

    def put(self, row: LimitRow, *, new: bool = False) -> LimitRow:
        """Sets the row of that scope, object and model; its ``id`` and time are given here. ``new``: there was none,
        and one that somebody has made since must not be overwritten unread. Raises NotFoundError when the object is
        gone, RetryableError when the row is not new."""
        key, now = _is(row.scope, row.subject_id, row.model), datetime.now(UTC)
        values = msgspec.structs.asdict(row.limits) | {"updated_by": row.updated_by, "updated_at": now}
        with self._db.write() as connection:
            hold(connection, row.scope, row.subject_id)
            if new or connection.execute(update(limits).where(key).values(values)).rowcount == 0:
                names = {"scope": row.scope.value, "subject_id": row.subject_id, "model": row.model}
                try:
                    connection.execute(insert(limits).values({"id": new_id(), **names, **values}))
                except exc.IntegrityError as error:
                    raise RetryableError from error
            touch(self._db, row.scope, row.subject_id)
            return self.get(row.scope, row.subject_id, row.model)

    def remove(self, scope: Scope, subject_id: str, model: str = "") -> LimitRow:
        """Removes that row; what it was. Raises NotFoundError."""
        with self._db.write() as connection:
            gone = connection.execute(delete(limits).where(_is(scope, subject_id, model)).returning(limits)).first()
            if gone is None:
                raise NotFoundError("limit")
            touch(self._db, scope, subject_id)
        return limit_row(gone)


def limit_row(row: Row[Any]) -> LimitRow:
    """A row of the table."""
    return LimitRow(
        id=row.id,
        scope=Scope(row.scope),
        subject_id=row.subject_id,
        model=row.model,
        limits=Limits(**{name: getattr(row, name) for name in FIELDS}),
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )


def _is(scope: Scope, subject_id: str, model: str) -> ColumnElement[bool]:
    return and_(limits.c.scope == scope.value, limits.c.subject_id == subject_id, limits.c.model == model)
