"""Config vars that a user has set, sealed at rest; those of attachments are derived, not stored."""

from sqlalchemy import delete, insert, select

from penstock.store.database import Database
from penstock.store.schema import config_vars


class ConfigVarStore:
    """Config vars by app and name."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def list(self, app_id: str) -> dict[str, str]:
        """All values of an app, by name in order."""
        query = select(config_vars.c.name, config_vars.c.sealed).where(config_vars.c.app_id == app_id)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(config_vars.c.name)).all()
        return {row.name: self._db.sealer.unseal(row.sealed, bound_to=f"{app_id}/{row.name}") for row in rows}

    def update(self, app_id: str, name: str, *, value: str) -> None:
        """Sets one value."""
        with self._db.write() as connection:
            sealed = self._db.seal(connection, value, bound_to=f"{app_id}/{name}")
            self.remove(app_id, name)
            connection.execute(insert(config_vars).values(app_id=app_id, name=name, sealed=sealed))

    def remove(self, app_id: str, name: str | None = None) -> None:
        """Removes one value, or all of an app; what is not there is no error."""
        query = delete(config_vars).where(config_vars.c.app_id == app_id)
        if name is not None:
            query = query.where(config_vars.c.name == name)
        with self._db.write() as connection:
            connection.execute(query)
