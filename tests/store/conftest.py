"""A new database per test, once on SQLite and once on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.store.database import Database
from penstock.store.metering.ledger import LedgerStore
from penstock.store.nouns.stores import Stores
from tests.postgres import Postgres
from tests.sqlite import new_sqlite


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on."""
    return str(request.param)


@pytest.fixture
def address(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | Path]:
    """Where a database can be opened that is empty, without a schema."""
    if kind == "sqlite":
        yield tmp_path / "penstock.db"
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.new_database(migrated=False)
    yield url
    server.drop(url)


@pytest.fixture
def db(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An open database with the schema of this code and nothing else."""
    if kind == "sqlite":
        database = new_sqlite(tmp_path / "penstock.db")
        yield database
        database.close()
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.new_database()
    database = Database.open(url, home=tmp_path)
    yield database
    database.close()
    server.drop(url)


@pytest.fixture
def stores(db: Database) -> Stores:
    """All nouns over it."""
    return Stores(db)


@pytest.fixture
def ledger(db: Database) -> LedgerStore:
    """Its ledger, beside which no budgets are kept."""
    return LedgerStore(db)


@pytest.fixture
def postgres_stores(postgres: Postgres, tmp_path: Path) -> Iterator[Stores]:
    """All nouns over a new database on PostgreSQL, where transactions that write run side by side."""
    url = postgres.new_database()
    db = Database.open(url, home=tmp_path)
    yield Stores(db)
    db.close()
    postgres.drop(url)
