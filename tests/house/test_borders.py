"""Who may import whom, and what importing costs."""

import json
import statistics
import subprocess
import sys
import tomllib

from tests.house.rooms import ROOT, SOURCE

IMPORT_BOUND_MS = 300
# What the CLI must not pull in: each belongs to one room that a command line client never enters.
HEAVY = {"sqlalchemy", "alembic", "starlette", "xllamacpp", "huggingface_hub"}


def test_the_import_contracts_hold() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_room_stands_on_a_floor_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["type"] == "layers")
    placed = {room.strip() for floor in layers["layers"] for room in floor.split("|")}
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")} | {"__main__"}
    assert layers["exhaustive"]
    assert placed == rooms


def test_importing_the_command_line_is_quick() -> None:
    # The door and what stands behind it: the framework is loaded by the first command, not by the door itself.
    probe = "import time; t = time.perf_counter(); import penstock.cli.main, penstock.cli.root; "
    times = [float(python(f"{probe} print((time.perf_counter() - t) * 1000)")) for _ in range(7)]
    assert statistics.median(times) < IMPORT_BOUND_MS


def test_importing_the_command_line_leaves_the_server_out() -> None:
    probe = "import json, sys, penstock.cli.main, penstock.cli.root; print(json.dumps(list(sys.modules)))"
    assert not {name.partition(".")[0] for name in json.loads(python(probe))} & HEAVY


def python(code: str) -> str:
    """What a fresh interpreter prints for the code."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
