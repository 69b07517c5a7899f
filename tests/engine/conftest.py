"""Fixtures of the engine's tests: the weights once, and one engine for all that only ask it things."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.engine.weights import LocalModel, Weights
from tests.engine.engines import MODEL, RunningEngine
from tests.server import borrow_weights, keep_weights


@pytest.fixture(scope="session")
def weights_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the built-in model in it."""
    home = tmp_path_factory.mktemp("weights-home")
    borrow_weights(home)
    Weights(home).pull(MODEL)
    keep_weights(home)
    return home


@pytest.fixture(scope="session")
def model(weights_home: Path) -> LocalModel:
    """The built-in model."""
    found = Weights(weights_home).find(MODEL)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def engine(model: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """A shared engine: tests must leave it running."""
    running = RunningEngine(model, tmp_path_factory.mktemp("engine"))
    yield running
    running.close()


@pytest.fixture
def fragile_engine(model: LocalModel, tmp_path: Path) -> Iterator[RunningEngine]:
    """An engine of the test's own, to be killed."""
    running = RunningEngine(model, tmp_path, slots=2)
    yield running
    running.close()
