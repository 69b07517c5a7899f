"""Fixtures of the ledger's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.store.database import Database
from tests.ledger.lease_workers import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Workers over a SQLite database."""
    db = Database.open(tmp_path / "penstock.db")
    made = World(db, at=1_800_000_000.0, mark="w")
    yield made
    made.close()
    db.close()
