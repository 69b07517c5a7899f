"""Apps."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, exc, func, insert, or_, select, true, update

from penstock.domain.limits import Scope
from penstock.domain.platform import App, Operator
from penstock.store.database import Database
from penstock.store.errors import NameTakenError, NotFoundError
from penstock.store.governance import answers
from penstock.store.metering.subjects import forget
from penstock.store.paging import Page, cut
from penstock.store.schema import apps, collaborators

_owned = apps.alias("owned")
# Apps of one operator that are sorted for a page.
_FEW = 1000


class AppStore:
    """Apps by id or name."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, ref: str) -> App | None:
        """The app of that id or name, or None."""
        with self._db.read() as connection:
            row = connection.execute(select(apps).where(or_(apps.c.id == ref, apps.c.name == ref))).one_or_none()
        return None if row is None else _app(row)

    def get(self, ref: str) -> App:
        """The app of that id or name. Raises NotFoundError."""
        found = self.find(ref)
        if found is None:
            raise NotFoundError("app")
        return found

    def list(self, *, visible_to: str | None = None, page: Page | None = None) -> tuple[App, ...]:
        """Apps by name, or by ``name`` or ``id`` as a page has it: all, or those that an operator (by id) owns or
        shares."""
        with self._db.read() as connection:
            seen, few = visible(connection, visible_to, apps.c.id)
            query = cut(select(apps).where(seen), page, {"name": apps.c.name, "id": apps.c.id}, sort=few)
            return tuple(_app(row) for row in connection.execute(query))

    def add(self, app: App) -> None:
        """Raises NameTakenError."""
        with self._db.write() as connection:
            try:
                connection.execute(
                    insert(apps).values(
                        id=app.id,
                        name=app.name,
                        owner_email=app.owner_email,
                        owner_id=app.owner_id,
                        region=app.region,
                        stack=app.stack,
                        last_version=0,
                        created_at=app.created_at,
                        updated_at=app.updated_at,
                    )
                )
            except exc.IntegrityError as error:
                raise NameTakenError("app", app.name) from error

    def update(self, app_id: str, *, updated_at: datetime, name: str | None = None) -> None:
        """Renames, or only notes a change; either way it locks the app's row until the transaction ends, so that
        changes of one app come one after the other. Raises NotFoundError, NameTakenError."""
        values: dict[str, Any] = {"updated_at": updated_at}
        if name is not None:
            values["name"] = name
        with self._db.write() as connection:
            try:
                changed = connection.execute(update(apps).where(apps.c.id == app_id).values(**values))
            except exc.IntegrityError as error:
                raise NameTakenError("app", str(name)) from error
            if changed.rowcount == 0:
                raise NotFoundError("app")

    def pass_on(self, app_id: str, owner: Operator) -> None:
        """Makes an operator the app's owner. Raises NotFoundError."""
        values = {"owner_id": owner.id, "owner_email": owner.email}
        with self._db.write() as connection:
            if connection.execute(update(apps).where(apps.c.id == app_id).values(**values)).rowcount == 0:
                raise NotFoundError("app")

    def remove(self, app_id: str) -> None:
        """Removes the app itself, with the answers that are kept for it; what refers to it must be gone already. Raises
        NotFoundError."""
        with self._db.write() as connection:
            if connection.execute(delete(apps).where(apps.c.id == app_id)).rowcount == 0:
                raise NotFoundError("app")
            forget(connection, Scope.APP, [app_id])
            connection.execute(delete(answers).where(answers.c.app_id == app_id))


def visible(
    connection: Connection, operator_id: str | None, app_id: ColumnElement[str]
) -> tuple[ColumnElement[bool], bool]:
    """Whether that operator, None for one who sees them all, owns or shares an app; and whether those are so few that
    a list had better begin with them and sort, instead of going through all there is in its order."""
    if operator_id is None:
        return true(), False
    owned = select(_owned.c.id).where(_owned.c.owner_id == operator_id)
    shared = select(collaborators.c.app_id).where(collaborators.c.operator_id == operator_id)
    theirs = owned.union_all(shared)
    count = select(func.count()).select_from(theirs.limit(_FEW + 1).subquery())
    if connection.execute(count).scalar_one() <= _FEW:
        return app_id.in_(theirs), True
    return or_(
        owned.where(_owned.c.id == app_id).exists(), shared.where(collaborators.c.app_id == app_id).exists()
    ), False


def _app(row: Row[Any]) -> App:
    return App(
        id=row.id,
        name=row.name,
        owner_email=row.owner_email,
        owner_id=row.owner_id,
        region=row.region,
        stack=row.stack,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
