"""The credentials of upstreams, sealed at rest, each under the name of its provider."""

import hashlib
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, delete, exc, insert, select, update

from penstock.domain.platform import StoredCredential
from penstock.store.database import Database
from penstock.store.errors import NotFoundError, RetryableError
from penstock.store.schema import credentials


class CredentialStore:
    """Credentials by name."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def revision(self) -> str:
        """A text that is another one after every change, empty while there are none, read without opening a secret:
        what follows ``values`` asks for this first."""
        query = select(credentials.c.name, credentials.c.updated_at).order_by(credentials.c.name)
        with self._db.read() as connection:
            rows = connection.execute(query).all()
        return hashlib.sha256(repr([tuple(row) for row in rows]).encode()).hexdigest() if rows else ""

    def values(self) -> dict[str, str]:
        """All secrets by name, for who calls the upstreams. Raises StoreError when the master key does not fit."""
        with self._db.read() as connection:
            rows = connection.execute(select(credentials.c.name, credentials.c.sealed)).all()
        return {row.name: self._db.sealer.unseal(row.sealed, bound_to=row.name) for row in rows}

    def list(self) -> tuple[StoredCredential, ...]:
        """All of them by name, without their secrets."""
        with self._db.read() as connection:
            rows = connection.execute(select(credentials).order_by(credentials.c.name)).all()
        return tuple(self._shown(row) for row in rows)

    def find(self, name: str) -> StoredCredential | None:
        """The one of that name, or None."""
        with self._db.read() as connection:
            row = connection.execute(select(credentials).where(credentials.c.name == name)).one_or_none()
        return None if row is None else self._shown(row)

    def put(self, name: str, secret: str, *, by: str) -> None:
        """Sets the secret of a name on the word of ``by``, an email."""
        now, same = datetime.now(UTC), credentials.c.name == name
        with self._db.write() as connection:
            sealed = self._db.seal(connection, secret, bound_to=name)
            values = {"sealed": sealed, "updated_by": by, "updated_at": now}
            if connection.execute(update(credentials).where(same).values(values)).rowcount:
                return
            try:
                connection.execute(insert(credentials).values({**values, "name": name, "created_at": now}))
            except exc.IntegrityError as error:
                raise RetryableError from error

    def remove(self, name: str) -> None:
        """Forgets it. Raises NotFoundError."""
        with self._db.write() as connection:
            if connection.execute(delete(credentials).where(credentials.c.name == name)).rowcount == 0:
                raise NotFoundError("credential")

    def _shown(self, row: Row[Any]) -> StoredCredential:
        secret = self._db.sealer.unseal(row.sealed, bound_to=row.name)
        return StoredCredential(
            name=row.name,
            fingerprint=hashlib.sha256(secret.encode()).hexdigest()[:8],
            updated_by=row.updated_by,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )
