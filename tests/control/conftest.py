"""One control plane for the tests that only add apps of their own, and a new one for those that look at all of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.plane import Plane, running_plane


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
