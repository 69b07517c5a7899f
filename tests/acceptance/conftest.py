"""How the acceptance tests run a program as a user would: with `penstock` on PATH and an app's config vars set."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.needs import require_program
from tests.server import Server

# Several programs and answers in a row, on a machine that may be busy: a hang still ends, only later.
PATIENCE_S = 280


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives the tests of this folder the longer bound."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(PATIENCE_S))


@pytest.fixture(scope="session")
def app_vars(penstock_server: Server) -> dict[str, str]:
    """The config vars of an app on a plan of the embedded model."""
    penstock_server.cli("create", "examples")
    penstock_server.cli("ai:models:create", "-a", "examples", "smollm2-135m-instruct", "--as", "INFERENCE")
    names = ("INFERENCE_URL", "INFERENCE_KEY", "INFERENCE_MODEL_ID")
    return {name: penstock_server.config_var("examples", name) for name in names}


@pytest.fixture(scope="session")
def run(penstock_server: Server) -> Callable[..., str]:
    """Runs a command with this environment's programs first on PATH; returns what it printed on stdout."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run_command(command: list[str], cwd: Path, **env: str) -> str:
        require_program(command[0])
        done = subprocess.run(
            command,
            cwd=cwd,
            env=penstock_server.env | {"PATH": path} | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run_command
