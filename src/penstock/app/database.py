"""What the commands do to the database of the settings while no server, or any number of them, runs on it."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

from penstock.app.store import open_database
from penstock.domain.catalogue import Rate
from penstock.settings.tree import Settings
from penstock.store.database import Database
from penstock.store.metering.rerate import PriceVersion, Rerated, price_versions_of, rerate
from penstock.store.metering.usage import UsageStore
from penstock.store.metering.verify import Verified, read_head, verify
from penstock.store.schema import REVISIONS
from penstock.store.upkeep import check
from penstock.store.upkeep.check import Report
from penstock.store.upkeep.copy import check_schema


def upgrade_database(settings: Settings) -> tuple[str, str | None, str]:
    """Brings the database to the schema of this code: its name, the schema before (None when it was new) and after.
    Raises StoreError."""
    with closing(open_database(settings)) as db:
        return db.label, db.found, REVISIONS[-1]


def check_database(settings: Settings) -> Report:
    """What is wrong with the database, if anything. Raises StoreError, PenstockError."""
    with closing(open_database(settings, upkeep=True)) as db:
        return check.check(db)


def verify_ledger(settings: Settings, known: str | None = None) -> Verified:
    """Whether the ledger is whole, and still has in it what was its head once. Raises ValueError for what is no head,
    StoreError, PenstockError."""
    head = None if known is None else read_head(known)
    with _as_it_is(settings) as db:
        return verify(db, head)


def list_prices(settings: Settings) -> list[PriceVersion]:
    """The versions of prices that were seen, oldest first. Raises StoreError, PenstockError."""
    with _as_it_is(settings) as db:
        return price_versions_of(db)


def models_at(settings: Settings, version: str) -> list[str]:
    """The models that were ever charged at a version of prices. Raises StoreError, PenstockError."""
    with _as_it_is(settings) as db:
        return UsageStore(db).models_at(version)


def rerate_ledger(settings: Settings, since_us: int, until_us: int, rates: Mapping[str, Rate]) -> list[Rerated]:
    """What a period would have cost with other prices by model. Raises StoreError, PenstockError."""
    with _as_it_is(settings) as db:
        return rerate(db, since_us, until_us, rates)


@contextmanager
def _as_it_is(settings: Settings) -> Iterator[Database]:
    with closing(open_database(settings, upkeep=True)) as db:
        check_schema(db)
        yield db
