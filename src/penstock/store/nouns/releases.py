"""Releases: the numbered history of an app's changes."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from penstock.domain.ids import new_id
from penstock.domain.platform import Release
from penstock.store.database import Database
from penstock.store.errors import NotFoundError
from penstock.store.paging import Page, cut
from penstock.store.schema import apps, releases

_DESCRIPTION_LENGTH = 1024


class ReleaseStore:
    """Releases by app and version."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def list(self, app_id: str, *, page: Page | None = None) -> tuple[Release, ...]:
        """The releases of an app in the order of their versions, or as a page has it."""
        query = cut(select(releases).where(releases.c.app_id == app_id), page, {"version": releases.c.version})
        with self._db.read() as connection:
            return tuple(_release(row) for row in connection.execute(query))

    def add(self, app_id: str, *, description: str, user_email: str) -> Release:
        """The next version. Raises NotFoundError when the app is gone."""
        bump = update(apps).where(apps.c.id == app_id).values(last_version=apps.c.last_version + 1)
        with self._db.write() as connection:
            version = connection.execute(bump.returning(apps.c.last_version)).scalar_one_or_none()
            if version is None:
                raise NotFoundError("app")
            release = Release(
                id=new_id(),
                app_id=app_id,
                version=version,
                description=description[:_DESCRIPTION_LENGTH],
                user_email=user_email,
                created_at=datetime.now(UTC),
            )
            connection.execute(
                insert(releases).values(
                    id=release.id,
                    app_id=app_id,
                    version=version,
                    description=release.description,
                    user_email=user_email,
                    created_at=release.created_at,
                )
            )
        return release

    def remove(self, app_id: str) -> None:
        """Removes the history of an app."""
        with self._db.write() as connection:
            connection.execute(delete(releases).where(releases.c.app_id == app_id))


def _release(row: Row[Any]) -> Release:
    return Release(
        id=row.id,
        app_id=row.app_id,
        version=row.version,
        description=row.description,
        user_email=row.user_email,
        created_at=row.created_at,
    )
