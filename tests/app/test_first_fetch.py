"""Stopping `penstock serve` while the first weights are on their way, from an index that never answers."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server import children, is_alive, scratch_env

CLIENTS = ("PIP_", "UV_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture
def index() -> Iterator[socket.socket]:
    """A package index that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        yield listener


@pytest.fixture
def serving(index: socket.socket, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A serve on an empty home whose package client hangs on the index."""
    home = tmp_path / "home"
    url = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
    env = {name: value for name, value in scratch_env(home).items() if not name.upper().startswith(CLIENTS)}
    env |= {"PIP_INDEX_URL": url, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    env |= {"UV_DEFAULT_INDEX": url, "UV_NO_CONFIG": "1", "UV_NO_CACHE": "1"}
    command = [sys.executable, "-m", "penstock", "serve", "--port", "0", "--control-port", "0"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    connection, _ = index.accept()
    with connection:
        yield process
    if process.poll() is None:
        process.kill()
        process.wait(30)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_first_fetch_ends_the_server_and_its_package_client(
    serving: subprocess.Popen[bytes], tmp_path: Path, number: signal.Signals
) -> None:
    clients = children(serving.pid)
    assert clients
    serving.send_signal(number)
    assert serving.wait(10) == 0
    assert not [pid for pid in clients if is_alive(pid)]
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert not list((tmp_path / "home" / "weights" / ".tmp").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
def test_a_killed_server_leaves_no_package_client(serving: subprocess.Popen[bytes]) -> None:
    clients = children(serving.pid)
    assert clients
    serving.kill()
    serving.wait(30)
    until(lambda: not [pid for pid in clients if is_alive(pid)], "the package client outlives the server")
