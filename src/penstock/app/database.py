"""What the commands do to the database of the settings while no server, or any number of them, runs on it."""

from contextlib import closing

from penstock.app.home import open_database
from penstock.settings.tree import Settings
from penstock.store.schema import REVISIONS
from penstock.store.upkeep import check
from penstock.store.upkeep.check import Report


def upgrade_database(settings: Settings) -> tuple[str, str | None, str]:
    """Brings the database to the schema of this code: its name, the schema before (None when it was new) and after.
    Raises StoreError."""
    with closing(open_database(settings)) as db:
        return db.label, db.found, REVISIONS[-1]


def check_database(settings: Settings) -> Report:
    """What is wrong with the database, if anything. Raises StoreError, PenstockError."""
    with closing(open_database(settings, upkeep=True)) as db:
        return check.check(db)
