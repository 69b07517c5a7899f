"""The choice of the engine's driver, through the whole server."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from penstock.engine.drivers import DRIVERS, LLAMACPP, OPENVINO, Driver, chosen
from tests.app.test_engine_crash import ask, key_of
from tests.engine.engines import eventually, required
from tests.server import Server, descendants, running, scratch_env

# An engine loads in up to half a minute on a busy machine, and compiles grammars.
pytestmark = pytest.mark.timeout(600)


def child_of(server: Server, driver: Driver) -> int | None:
    """The process id of the driver's child, once it is that."""
    for pid in descendants(server.process.pid):
        with contextlib.suppress(OSError):
            if driver.module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
    return None


@pytest.mark.parametrize("name", sorted(DRIVERS))
def test_the_driver_that_is_set_runs_and_is_named_and_comes_back(name: str, tmp_path: Path) -> None:
    driver = required(DRIVERS[name])
    with running(tmp_path / "home", "--set", f"engine.driver={name}", "--set", "engine.context=512") as server:
        assert f"  engine         {name}\n" in server.log.read_text()
        key = key_of(server)
        assert ask(server, key).json()["choices"][0]["message"]["content"]
        refused = ask(server, key, logit_bias={"5": 1})
        if driver is OPENVINO:
            error = refused.json()["error"]
            assert (refused.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", "logit_bias")
        else:
            assert refused.status_code == 200
        killed = child_of(server, driver)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: child_of(server, driver) not in (None, killed))
        eventually(lambda: httpx.get(f"{server.gateway}/readyz").status_code == 200)
        assert ask(server, key).status_code == 200


def test_a_driver_without_its_package_ends_the_start_with_the_remedy(tmp_path: Path) -> None:
    hidden = "import sys\nsys.modules['openvino_genai'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hidden)
    env = scratch_env(tmp_path / "home")
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), env.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "penstock", "serve", "--port", "0", "--control-port", "0"]
    flags = ["--set", "engine.driver=openvino"]
    done = subprocess.run([*command, *flags], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert "engine.driver is 'openvino'" in line
    assert line.endswith("install penstock[openvino]")


def test_auto_is_the_first_driver() -> None:
    assert chosen("auto") is LLAMACPP
