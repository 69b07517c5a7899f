"""One control plane for the tests that only add apps of their own, and a new one for those that look at all of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.plane import Plane, running_plane
from tests.postgres import Postgres


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A control plane that is shared: tests take apps with names of their own."""
    with running_plane(tmp_path_factory.mktemp("plane")) as running:
        yield running


@pytest.fixture
def new_plane(tmp_path: Path) -> Iterator[Plane]:
    """A control plane that has nothing yet."""
    with running_plane(tmp_path) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def each_plane(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Plane]:
    """A control plane that has nothing yet, on each database."""
    if request.param == "sqlite":
        with running_plane(tmp_path) as running:
            yield running
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.new_database()
    with running_plane(tmp_path, database=url) as running:
        yield running
    server.drop(url)
