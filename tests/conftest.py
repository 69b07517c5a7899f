"""Fixtures of the whole suite: the real server, and the folders that stand beside the repository."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from penstock.providers.catalogue.credentials import secret_variables
from tests.needs import require, require_program
from tests.postgres import Postgres, running_postgres
from tests.server import ROOT, Server, running

# What is meant for the tests themselves.
FOR_TESTS = ("PENSTOCK_NATIVE", "PENSTOCK_REQUIRE_ALL", "PENSTOCK_SOAK")


def pytest_configure(config: pytest.Config) -> None:
    """Keeps a developer's own settings out of the tests, and the property tests to fixed examples."""
    divided = getattr(config.option, "numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ
    if not divided and (native := os.environ.pop("PENSTOCK_NATIVE", None)):
        # For the servers and commands that tests start; the test processes themselves run the source.
        os.environ["PYTHONPATH"] = str((ROOT / native).resolve())
    for name in list(os.environ):
        if name.startswith(("PENSTOCK_", "HEROKU_")) and name not in FOR_TESTS:
            del os.environ[name]
    # A developer's own accounts must not serve, nor pay for, what the tests ask.
    for name in secret_variables(()) | {"AWS_REGION", "AWS_DEFAULT_REGION", "AZURE_OPENAI_ENDPOINT"}:
        os.environ.pop(name, None)
    # Whoever runs the tests, in one process or in several, has a terminal of some width: what is piped has none.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    # The same examples in every run: what a random one finds in CI has nothing to do with the change that it stops.
    # HYPOTHESIS_PROFILE=search looks for new ones.
    settings.register_profile("fixed", derandomize=True)
    settings.register_profile("search", derandomize=False)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the published quick-starts that stands beside a checkout."""
    folder = ROOT.parent / "shared"
    require(folder.is_dir(), "../shared (the published quick-starts) is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def penstock_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One real server for every test that only reads from it or adds apps of its own."""
    with running(tmp_path_factory.mktemp("penstock") / "home") as server:
        yield server


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The npm packages of the tests, from their lock file; `make test` has them installed already."""
    require_program("node")
    npm = require_program("npm")
    folder = ROOT / "tests" / "sdk" / "node"
    if not (folder / "node_modules" / "openai").is_dir():
        subprocess.run([npm, "ci", "--no-fund", "--no-audit"], cwd=folder, check=True, stdin=subprocess.DEVNULL)
    return folder / "node_modules"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for all tests that take a database of their own in it and leave the server alone."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def _spare_postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def own_postgres(_spare_postgres: Postgres) -> Iterator[Postgres]:
    """A PostgreSQL that the test may stop, start, freeze and thaw."""
    yield _spare_postgres
    _spare_postgres.thaw()
    _spare_postgres.start()
