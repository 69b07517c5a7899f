"""Add-ons: provisioned plans, each owned by one app."""

from typing import Any

from sqlalchemy import Row, Select, delete, exc, insert, or_, select

from penstock.domain.limits import Scope
from penstock.domain.platform import AddOn
from penstock.store.database import Database
from penstock.store.errors import NameTakenError, NotFoundError
from penstock.store.metering.subjects import forget
from penstock.store.nouns.apps import visible
from penstock.store.paging import Page, cut
from penstock.store.schema import addons, apps, attachments


class AddOnStore:
    """Add-ons by id or by their globally unique name."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, ref: str) -> AddOn | None:
        """The add-on of that id or name, or None."""
        with self._db.read() as connection:
            row = connection.execute(_rows().where(or_(addons.c.id == ref, addons.c.name == ref))).one_or_none()
        return None if row is None else _addon(row)

    def get(self, ref: str) -> AddOn:
        """The add-on of that id or name. Raises NotFoundError."""
        found = self.find(ref)
        if found is None:
            raise NotFoundError("addon")
        return found

    def list(
        self,
        *,
        app_id: str | None = None,
        attached_to: str | None = None,
        ref: str | None = None,
        plan: str | None = None,
        visible_to: str | None = None,
        page: Page | None = None,
    ) -> tuple[AddOn, ...]:
        """Add-ons by name, or by ``name`` or ``id`` as a page has it, that match all that is given: owned by an app,
        attached to one, of an id or name, of a plan, of the apps that an operator (by id) owns or shares."""
        query, columns = _rows(), {"name": addons.c.name, "id": addons.c.id}
        if app_id is not None:
            query = query.where(addons.c.app_id == app_id)
        if attached_to is not None:
            attached = select(attachments.c.addon_id).where(attachments.c.app_id == attached_to)
            query = query.where(addons.c.id.in_(attached))
        if ref is not None:
            query = query.where(or_(addons.c.id == ref, addons.c.name == ref))
        with self._db.read() as connection:
            seen, few = visible(connection, visible_to, addons.c.app_id)
            if plan is not None:
                query = query.where((addons.c.plan + "" if few else addons.c.plan) == plan)
            # What one app owns or has attached is few as well.
            sort = few or app_id is not None or attached_to is not None or ref is not None
            rows = connection.execute(cut(query.where(seen), page, columns, sort=sort))
            return tuple(_addon(row) for row in rows)

    def add(self, addon: AddOn) -> None:
        """Raises NameTakenError."""
        with self._db.write() as connection:
            try:
                connection.execute(
                    insert(addons).values(
                        id=addon.id,
                        name=addon.name,
                        app_id=addon.app_id,
                        plan=addon.plan,
                        state=addon.state,
                        config=addon.config,
                        created_at=addon.created_at,
                        updated_at=addon.updated_at,
                    )
                )
            except exc.IntegrityError as error:
                raise NameTakenError("addon", addon.name) from error

    def remove(self, addon_id: str) -> None:
        """Removes the add-on itself; its attachments must be gone already. Raises NotFoundError."""
        with self._db.write() as connection:
            if connection.execute(delete(addons).where(addons.c.id == addon_id)).rowcount == 0:
                raise NotFoundError("addon")
            forget(connection, Scope.ADDON, [addon_id])


def _rows() -> Select[Any]:
    return select(addons, apps.c.name.label("app_name")).join(apps, apps.c.id == addons.c.app_id)


def _addon(row: Row[Any]) -> AddOn:
    return AddOn(
        id=row.id,
        name=row.name,
        app_id=row.app_id,
        app_name=row.app_name,
        plan=row.plan,
        state=row.state,
        config=row.config,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
