"""Fixtures of the engine's tests: the weights once, and one engine for all that only ask it things."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.engine.drivers import DRIVERS, LLAMACPP, OPENVINO
from penstock.engine.weights import LocalModel, Weights
from tests.engine.engines import MODEL, SOAK, RunningEngine, required
from tests.server import borrow_weights, keep_weights

# Over the second driver these run with PENSTOCK_SOAK=1 alone: each of its engines and grammars takes seconds to make.
SOAKED = ("test_embedded_failures.py", "test_embedded_grammar.py", "test_engine_child.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what only ``make soak`` runs."""
    left_out = [] if SOAK else [item for item in items if item.path.name in SOAKED and OPENVINO.name in item.name]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


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


@pytest.fixture(scope="session", params=sorted(DRIVERS))
def engine(
    model: LocalModel, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[RunningEngine]:
    """A shared engine of each driver, one after the other: tests must leave it running."""
    running = RunningEngine(model, tmp_path_factory.mktemp("engine"), driver=required(DRIVERS[request.param]))
    yield running
    running.close()


@pytest.fixture(params=sorted(DRIVERS) if SOAK else [LLAMACPP.name])
def fragile_engine(model: LocalModel, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunningEngine]:
    """An engine of the test's own, to be killed; with PENSTOCK_SOAK=1 of each driver, also the slow one."""
    running = RunningEngine(model, tmp_path, driver=required(DRIVERS[request.param]), slots=2)
    yield running
    running.close()
