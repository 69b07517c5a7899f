"""The credentials of providers that the store keeps, for who resolves them, and whether they have changed."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.domain.errors import PenstockError
from penstock.providers.catalogue.credentials import Stored, nothing_stored
from penstock.settings.tree import Settings
from penstock.store.errors import StoreError

if TYPE_CHECKING:
    from penstock.store.database import Database
    from penstock.store.nouns.credentials import CredentialStore

# Before this schema, or without a database, nobody can have stored one.
_SINCE = "0003"


def stored_secrets(settings: Settings) -> Stored:
    """Secrets by the name of their provider, where a row asks for one. Raises StoreError."""
    if (opened := _opened(settings)) is None:
        return nothing_stored
    db, store = opened
    with closing(db):
        try:
            return store.values().get
        except PenstockError as error:
            raise StoreError(error.message) from error


class StoredRevision:
    """Follows the stored credentials of one supervisor. Asked from one thread at a time."""

    def __init__(self) -> None:
        self._opened: tuple[Database, CredentialStore] | None = None
        self._known = ""

    def look(self, settings: Settings) -> str:
        """Another text after every change; the same while the database does not answer."""
        try:
            self._opened = self._opened or _opened(settings)
            if self._opened is not None:
                self._known = self._opened[1].revision()
        except (StoreError, PenstockError):
            return self._known
        return self._known


def _opened(settings: Settings) -> "tuple[Database, CredentialStore] | None":
    if not any(row.api_key_stored for row in settings.provider):
        return None
    # Most servers keep none here, and their supervisor does without SQL.
    from penstock.app.store import database_url, open_database  # noqa: PLC0415 - as said
    from penstock.store.engines.address import is_sqlite, parse_address  # noqa: PLC0415 - as said
    from penstock.store.nouns.credentials import CredentialStore  # noqa: PLC0415 - as said
    from penstock.store.schema import REVISIONS  # noqa: PLC0415 - as said

    url = parse_address(database_url(settings))
    if is_sqlite(url) and not Path(str(url.database)).exists():
        return None
    db = open_database(settings, upkeep=True)
    if db.found in REVISIONS[REVISIONS.index(_SINCE) :]:
        return db, CredentialStore(db)
    db.close()
    return None
