"""Attachments: an add-on under a name on an app."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, delete, exc, insert, select

from penstock.domain.limits import Scope
from penstock.domain.platform import Attachment
from penstock.store.database import Database
from penstock.store.errors import NameTakenError, NotFoundError
from penstock.store.metering.subjects import forget
from penstock.store.nouns.apps import visible
from penstock.store.paging import Page, cut
from penstock.store.schema import addons, apps, attachments

_owners = apps.alias("owners")


class AttachmentStore:
    """Attachments by id, or by name on an app."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, ref: str, *, app_id: str | None = None) -> Attachment | None:
        """The attachment of that id, or of that name on the app, or None."""
        query = _rows().where(attachments.c.id == ref)
        if app_id is not None:
            query = _rows().where(
                attachments.c.app_id == app_id, (attachments.c.id == ref) | (attachments.c.name == ref)
            )
        with self._db.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _attachment(row)

    def get(self, ref: str, *, app_id: str | None = None) -> Attachment:
        """The attachment of that id, or of that name on the app. Raises NotFoundError."""
        found = self.find(ref, app_id=app_id)
        if found is None:
            raise NotFoundError("attachment")
        return found

    def list(
        self,
        *,
        app_id: str | None = None,
        addon_id: str | None = None,
        ref: str | None = None,
        visible_to: str | None = None,
        page: Page | None = None,
    ) -> tuple[Attachment, ...]:
        """Attachments by name on one app, else by id, or as a page has it, that match all that is given: ``ref`` is an
        id, or a name in any case, and ``visible_to`` an operator's id. ``name`` orders only the list of one app."""
        query, columns = _rows(), {"name": attachments.c.name, "id": attachments.c.id}
        if app_id is None:
            del columns["name"]
        else:
            query = query.where(attachments.c.app_id == app_id)
        if addon_id is not None:
            query = query.where(attachments.c.addon_id == addon_id)
        with self._db.read() as connection:
            seen, few = visible(connection, visible_to, attachments.c.app_id)
            few = few or app_id is not None or addon_id is not None
            if ref is not None:
                # A dash is in every id and in no name.
                name = attachments.c.name + "" if few else attachments.c.name
                query = query.where(attachments.c.id == ref if "-" in ref else name == ref.upper())
            rows = connection.execute(cut(query.where(seen), page, columns, sort=few))
            return tuple(_attachment(row) for row in rows)

    def of_addons(self, addon_ids: Sequence[str]) -> tuple[Attachment, ...]:
        """The attachments of those add-ons, by app and name."""
        query = _rows().where(attachments.c.addon_id.in_(addon_ids)).order_by(apps.c.name, attachments.c.name)
        with self._db.read() as connection:
            return tuple(_attachment(row) for row in connection.execute(query))

    def add(self, attachment: Attachment) -> None:
        """Raises NameTakenError when the app has an attachment of that name."""
        with self._db.write() as connection:
            try:
                connection.execute(
                    insert(attachments).values(
                        id=attachment.id,
                        name=attachment.name,
                        app_id=attachment.app_id,
                        addon_id=attachment.addon_id,
                        created_at=attachment.created_at,
                        updated_at=attachment.updated_at,
                    )
                )
            except exc.IntegrityError as error:
                raise NameTakenError("attachment", attachment.name) from error

    def remove(self, attachment_id: str) -> None:
        """Removes the attachment itself; its keys must be gone already. Raises NotFoundError."""
        with self._db.write() as connection:
            if connection.execute(delete(attachments).where(attachments.c.id == attachment_id)).rowcount == 0:
                raise NotFoundError("attachment")
            forget(connection, Scope.ATTACHMENT, [attachment_id])


def _rows() -> Select[Any]:
    return (
        select(
            attachments,
            apps.c.name.label("app_name"),
            addons.c.name.label("addon_name"),
            addons.c.plan,
            _owners.c.id.label("owner_app_id"),
            _owners.c.name.label("owner_app_name"),
        )
        .join(apps, apps.c.id == attachments.c.app_id)
        .join(addons, addons.c.id == attachments.c.addon_id)
        .join(_owners, _owners.c.id == addons.c.app_id)
    )


def _attachment(row: Row[Any]) -> Attachment:
    return Attachment(
        id=row.id,
        name=row.name,
        addon_id=row.addon_id,
        addon_name=row.addon_name,
        app_id=row.app_id,
        app_name=row.app_name,
        owner_app_id=row.owner_app_id,
        owner_app_name=row.owner_app_name,
        plan=row.plan,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
