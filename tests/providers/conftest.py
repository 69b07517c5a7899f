"""Fixtures of the adapters' tests: the real engine, as the engine's own tests run it, and a lane for each vendor."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.engine.conftest import engine, fragile_engine, model, weights_home
from tests.providers.lane import Lane, doubles

__all__ = ["engine", "fragile_engine", "model", "weights_home"]


@pytest.fixture(scope="package")
def lanes() -> Iterator[dict[str, Lane]]:
    """Every vendor's adapter before its double, in one event loop."""
    with asyncio.Runner() as runner:
        made = {name: Lane(name, double, runner) for name, double in doubles().items()}
        yield made
        for lane in made.values():
            lane.close()


@pytest.fixture(params=sorted(doubles()))
def lane(request: pytest.FixtureRequest, lanes: dict[str, Lane]) -> Lane:
    """One vendor after the other."""
    return lanes[request.param]
