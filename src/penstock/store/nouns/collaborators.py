"""Collaborators: which operators share an app that is not theirs, and in which role."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, Select, delete, insert, select, update

from penstock.domain.access import Role
from penstock.domain.ids import new_id
from penstock.domain.platform import Collaborator
from penstock.store.database import Database
from penstock.store.errors import NotFoundError
from penstock.store.schema import apps, collaborators, operators


class CollaboratorStore:
    """Collaborators by app and operator."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, app_id: str, operator_id: str) -> Collaborator | None:
        """That operator's collaboration on the app, or None."""
        query = _rows().where(collaborators.c.app_id == app_id, collaborators.c.operator_id == operator_id)
        with self._db.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _collaborator(row)

    def list(self, *, app_id: str | None = None, operator_id: str | None = None) -> tuple[Collaborator, ...]:
        """Collaborations of an app, or of an operator, by email and app."""
        query = _rows().order_by(operators.c.email, apps.c.name)
        if app_id is not None:
            query = query.where(collaborators.c.app_id == app_id)
        if operator_id is not None:
            query = query.where(collaborators.c.operator_id == operator_id)
        with self._db.read() as connection:
            return tuple(_collaborator(row) for row in connection.execute(query))

    def put(self, app_id: str, operator_id: str, *, role: Role) -> Collaborator:
        """Shares the app with the operator, or changes their role on it."""
        now = datetime.now(UTC)
        known = (collaborators.c.app_id == app_id, collaborators.c.operator_id == operator_id)
        with self._db.write() as connection:
            change = update(collaborators).where(*known).values(role=role.value, updated_at=now)
            if connection.execute(change).rowcount == 0:
                row = {"id": new_id(), "app_id": app_id, "operator_id": operator_id, "role": role.value}
                connection.execute(insert(collaborators).values(**row, created_at=now, updated_at=now))
            return _collaborator(connection.execute(_rows().where(*known)).one())

    def remove(self, app_id: str, operator_id: str | None = None) -> None:
        """Ends one collaboration (raises NotFoundError when there is none), or all of an app."""
        query = delete(collaborators).where(collaborators.c.app_id == app_id)
        if operator_id is not None:
            query = query.where(collaborators.c.operator_id == operator_id)
        with self._db.write() as connection:
            if connection.execute(query).rowcount == 0 and operator_id is not None:
                raise NotFoundError("collaborator")


def _rows() -> Select[Any]:
    return (
        select(collaborators, apps.c.name.label("app_name"), operators.c.email)
        .join(apps, apps.c.id == collaborators.c.app_id)
        .join(operators, operators.c.id == collaborators.c.operator_id)
    )


def _collaborator(row: Row[Any]) -> Collaborator:
    return Collaborator(
        id=row.id,
        app_id=row.app_id,
        app_name=row.app_name,
        operator_id=row.operator_id,
        email=row.email,
        role=Role(row.role),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
