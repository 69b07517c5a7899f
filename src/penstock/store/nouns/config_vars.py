"""Config vars that a user has set, sealed at rest; those of attachments are derived, not stored."""

from collections.abc import Mapping

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
        self.put(app_id, {name: value})

    def put(self, app_id: str, values: Mapping[str, str]) -> None:
        """Sets values by name, in a number of statements that does not depend on how many they are."""
        if not values:
            return
        with self._db.write() as connection:
            texts = {f"{app_id}/{name}": value for name, value in values.items()}
            sealed = self._db.seal_all(connection, texts)
            self.remove(app_id, *values)
            rows = [{"app_id": app_id, "name": name, "sealed": sealed[f"{app_id}/{name}"]} for name in values]
            connection.execute(insert(config_vars), rows)

    def remove(self, app_id: str, *names: str) -> None:
        """Removes the values of those names, or without any all of an app; what is not there is no error."""
        query = delete(config_vars).where(config_vars.c.app_id == app_id)
        if names:
            query = query.where(config_vars.c.name.in_(names))
        with self._db.write() as connection:
            connection.execute(query)
