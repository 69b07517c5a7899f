"""Brings a database to the schema of this code, and refuses one that is newer."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from penstock.store.errors import StoreError
from penstock.store.schema import REVISIONS

MIGRATIONS = Path(__file__).parent / "migrations"


def schema_of(connection: Connection) -> str | None:
    """The revision of the database's schema; None when it has none yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found


def needs_upgrade(connection: Connection) -> bool:
    """Whether the schema is older than this code. Raises StoreError when it is newer."""
    found = schema_of(connection)
    if found is not None and found not in REVISIONS:
        raise StoreError(
            f"the database has schema {found}, newer than this version of penstock knows (up to {REVISIONS[-1]}); "
            "install the newer penstock or restore an older backup"
        )
    return found != REVISIONS[-1]


def upgrade(connection: Connection) -> None:
    """Runs the missing migrations inside the caller's write transaction; after another process's, it does nothing."""
    if not needs_upgrade(connection):
        return
    # Imported here: an up-to-date database, the usual case, does not pay for loading Alembic.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
