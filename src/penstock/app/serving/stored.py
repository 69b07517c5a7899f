"""The credentials of providers that the store keeps, for who resolves them, and whether they have changed."""

from contextlib import closing
from pathlib import Path

from penstock.app.home import database_url, open_database
from penstock.domain.errors import PenstockError
from penstock.providers.catalogue.credentials import Stored, nothing_stored
from penstock.settings.tree import Settings
from penstock.store.database import Database
from penstock.store.engines.address import is_sqlite, parse_address
from penstock.store.errors import StoreError
from penstock.store.nouns.credentials import CredentialStore
from penstock.store.schema import REVISIONS

# Before this schema, or without a database, nobody can have stored one.
_SINCE = REVISIONS[REVISIONS.index("0003") :]


def stored_secrets(settings: Settings) -> Stored:
    """Secrets by the name of their provider, where a row asks for one. Raises StoreError."""
    if (db := _opened(settings)) is None:
        return nothing_stored
    with closing(db):
        try:
            return CredentialStore(db).values().get
        except PenstockError as error:
            raise StoreError(error.message) from error


class StoredRevision:
    """Follows the stored credentials of one supervisor. Asked from one thread at a time."""

    def __init__(self) -> None:
        self._db: Database | None = None
        self._known = ""

    def look(self, settings: Settings) -> str:
        """Another text after every change; the same while the database does not answer."""
        try:
            self._db = self._db or _opened(settings)
            if self._db is not None:
                self._known = CredentialStore(self._db).revision()
        except (StoreError, PenstockError):
            return self._known
        return self._known


def _opened(settings: Settings) -> Database | None:
    url = parse_address(database_url(settings))
    if not any(row.api_key_stored for row in settings.provider) or (
        is_sqlite(url) and not Path(str(url.database)).exists()
    ):
        return None
    db = open_database(settings, upkeep=True)
    if db.found in _SINCE:
        return db
    db.close()
    return None
