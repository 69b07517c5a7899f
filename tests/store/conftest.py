"""A new database file per test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.store.database import Database
from penstock.store.nouns.stores import Stores


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """An open, empty database."""
    database = Database.open(tmp_path / "penstock.db")
    yield database
    database.close()


@pytest.fixture
def stores(db: Database) -> Stores:
    """All nouns over it."""
    return Stores(db)
