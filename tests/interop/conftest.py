"""The real CLI with its plugin, in a home of its own, led to a real server by `penstock heroku`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.needs import require, require_program
from tests.server import ROOT, Server

FOLDER = ROOT / "tests" / "interop"


@dataclass(frozen=True)
class Heroku:
    """The real CLI at ``program``, run by `penstock heroku` in the environment ``env``."""

    program: Path
    env: dict[str, str]

    def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run one command line; no terminal."""
        command = [sys.executable, "-m", "penstock", "heroku", *arguments]
        return subprocess.run(
            command, env=self.env, input=stdin, capture_output=True, text=True, timeout=120, check=False, cwd=self.home
        )

    @property
    def home(self) -> Path:
        """The scratch HOME."""
        return Path(self.env["HOME"])


@pytest.fixture(scope="session")
def heroku_cli() -> Path:
    """The pinned CLI, from its lock file; `make test` has installed it already."""
    node, npm = require_program("node"), require_program("npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    require(int(version.strip("v\n").split(".")[0]) >= 20, f"the Heroku CLI needs Node 20, this is {version.strip()}")
    if not (FOLDER / "node_modules" / "heroku").is_dir():
        command = [npm, "ci", "--omit=optional", "--ignore-scripts", "--no-fund", "--no-audit"]
        subprocess.run(command, cwd=FOLDER, check=True, stdin=subprocess.DEVNULL)
    return FOLDER / "node_modules" / ".bin" / "heroku"


@pytest.fixture(scope="session")
def heroku(heroku_cli: Path, penstock_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Heroku:
    """The real CLI with the plugin linked."""
    home = tmp_path_factory.mktemp("heroku")
    kept = {name: item for name, item in os.environ.items() if not name.startswith(("HEROKU_", "PENSTOCK_", "XDG_"))}
    env = {"HOME": str(home), "PENSTOCK_HOME": str(penstock_server.home), "PENSTOCK_HEROKU_CLI": str(heroku_cli)}
    found = Heroku(heroku_cli, kept | env)
    plugin = FOLDER / "node_modules" / "@heroku" / "plugin-ai"
    linked = found("plugins:link", str(plugin), "--no-install")
    assert linked.returncode == 0, linked.stderr
    return found


@pytest.fixture(scope="session")
def api(penstock_server: Server) -> Iterator[httpx.Client]:
    """The Platform API, as the operator."""
    token = (penstock_server.home / "tokens" / "operator").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=penstock_server.control, headers=headers, trust_env=False) as client:
        yield client
