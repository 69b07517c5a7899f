"""The choice of the engine's driver, through the whole server."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.engine.drivers import DRIVERS, LLAMACPP, OPENVINO, Driver, chosen
from tests.app.test_engine_crash import ask, key_of
from tests.engine.engines import required
from tests.server import descendants, running, scratch_env


def child_of(server_pid: int, driver: Driver) -> int:
    """The process id of the driver's child."""
    for pid in descendants(server_pid):
        if driver.module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return pid
    raise AssertionError(f"no child of {driver.name}")


@pytest.mark.parametrize("name", sorted(DRIVERS))
def test_the_driver_that_is_set_runs_and_is_named_and_comes_back(name: str, tmp_path: Path) -> None:
    driver = required(DRIVERS[name])
    with running(tmp_path / "home", "--set", f"engine.driver={name}", "--set", "engine.context=512") as server:
        assert f"  engine         {name}\n" in server.log.read_text()
        key = key_of(server)
        assert ask(server, key).json()["choices"][0]["message"]["content"]
        os.kill(child_of(server.process.pid, driver), signal.SIGKILL)
        deadline = time.monotonic() + 100
        while (answer := ask(server, key)).status_code != 200:
            assert answer.json()["error"]["code"] in ("engine_not_ready", "upstream_closed")
            assert time.monotonic() < deadline


def test_a_parameter_that_the_driver_refuses_is_a_400_with_its_name(tmp_path: Path) -> None:
    required(OPENVINO)
    with running(tmp_path / "home", "--set", "engine.driver=openvino", "--set", "engine.context=512") as server:
        answer = ask(server, key_of(server), logit_bias={"5": 1})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", "logit_bias")


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
