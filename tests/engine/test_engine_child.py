"""The child process itself: who may talk to its listener, and when it ends."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.engine.drivers import DRIVERS
from penstock.engine.weights import LocalModel
from tests.engine.engines import RunningEngine, eventually, required
from tests.server import is_alive


@pytest.fixture(params=sorted(DRIVERS))
def child(request: pytest.FixtureRequest) -> list[str]:
    """The command of each driver's child."""
    return [sys.executable, "-P", "-m", required(DRIVERS[request.param]).module]


def bootstrap(model: LocalModel, socket: Path, *, parent: int) -> bytes:
    """The line that a child takes."""
    boot = {"model": model.path, "socket": str(socket), "key": "k", "parent": parent}
    return json.dumps({**boot, "slots": 1, "context": 256, "batch": 64}).encode() + b"\n"


def start(child: list[str], model: LocalModel, socket: Path) -> subprocess.Popen[bytes]:
    """A child that has said that it is ready."""
    process = subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(bootstrap(model, socket, parent=os.getpid()))
    process.stdin.flush()
    assert "error" not in json.loads(process.stdout.readline())
    return process


@pytest.mark.parametrize("key", [None, "guess"])
@pytest.mark.parametrize(
    "path", ["/completion", "/apply-template", "/v1/chat/completions", "/slots", "/props", "/tokenize"]
)
def test_a_request_without_the_key_is_refused(engine: RunningEngine, key: str | None, path: str) -> None:
    with engine.http(key=key) as client:
        method = "GET" if path in ("/slots", "/props") else "POST"
        answer = client.request(method, path, json=None if method == "GET" else {"prompt": "a", "content": "a"})
    assert answer.status_code == 401


def test_no_origin_is_granted_access(engine: RunningEngine) -> None:
    with engine.http(key=engine.process.spec.key) as client:
        headers = {"origin": "https://example.com", "access-control-request-method": "POST"}
        answers = [client.options("/completion", headers=headers), client.get("/slots", headers=headers)]
    assert all(answer.headers.get("access-control-allow-origin", "") == "" for answer in answers)


def test_the_socket_is_the_owners_alone(engine: RunningEngine) -> None:
    assert stat.S_IMODE(Path(engine.process.spec.socket_path).stat().st_mode) == 0o600


def test_the_end_of_stdin_ends_the_child(child: list[str], model: LocalModel, tmp_path: Path) -> None:
    process = start(child, model, tmp_path / "e.sock")
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0
    assert not (tmp_path / "e.sock").exists()


def test_ctrl_c_at_the_terminal_does_not_end_the_child(child: list[str], model: LocalModel, tmp_path: Path) -> None:
    process = start(child, model, tmp_path / "e.sock")
    process.send_signal(signal.SIGINT)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0


def test_the_child_ends_when_its_parent_is_killed_while_it_loads(
    child: list[str], model: LocalModel, tmp_path: Path
) -> None:
    # The parent prints its child's id and is killed at once; the child is then loading, or has not begun to.
    code = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen({child!r}, stdin=subprocess.PIPE)\n"
        "boot = sys.stdin.buffer.readline().replace(b'\"parent\": 0', b'\"parent\": %d' % os.getpid())\n"
        "child.stdin.write(boot); child.stdin.flush()\n"
        "print(child.pid, flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write(bootstrap(model, tmp_path / "e.sock", parent=0))
    parent.stdin.flush()
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    eventually(lambda: not is_alive(pid))


@pytest.mark.parametrize("content", [b"", b"not weights", b"GGUF\x03\x00\x00\x00" + b"\xff" * 64])
def test_bad_weights_are_one_line_and_status_1(
    child: list[str], content: bytes, tmp_path: Path, model: LocalModel
) -> None:
    (tmp_path / "bad.gguf").write_bytes(content)
    boot = json.loads(bootstrap(model, tmp_path / "e.sock", parent=os.getpid()))
    line = json.dumps({**boot, "model": str(tmp_path / "bad.gguf")}).encode() + b"\n"
    done = subprocess.run(child, input=line, capture_output=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"].startswith("the weights could not be loaded")
    assert done.stdout.count(b"\n") == 1
