"""Children are forked from a template that has imported everything; without it they are started afresh."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.server import TEMPLATE, Server, children, descendants, is_alive, running, scratch_env, title, titled, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no template")
NO_ENGINE = ("--set", "engine.enabled=false")
WORKER = "penstock worker"


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid), "it lives")


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")


def replaced(server: Server, worker: int) -> int:
    """The worker after one that has been killed, once it serves."""

    def new() -> list[int]:
        return [pid for pid in titled(server.process.pid, WORKER) if pid != worker]

    until(lambda: bool(new()), "no new worker")
    assert httpx.get(f"{server.gateway}/healthz", timeout=60).status_code == 200
    (pid,) = new()
    return pid


def test_every_child_is_a_fork_with_a_title_and_the_supervisor_its_parent(tmp_path: Path) -> None:
    with running(tmp_path / "home", *NO_ENGINE, "--workers", "2") as server:
        family = descendants(server.process.pid)
        titles = sorted(title(pid) for pid in family)
        parents = {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] for pid in family}
        commands = {command_line(pid) for pid in family}
    assert titles == ["penstock ctrl", TEMPLATE, "penstock ledger", WORKER, WORKER]
    assert parents == {str(server.process.pid)}
    assert len(commands) == 1


def test_the_template_has_one_thread_and_none_of_the_files_of_a_child(tmp_path: Path) -> None:
    with running(tmp_path / "home", *NO_ENGINE) as server:
        (template,) = titled(server.process.pid, TEMPLATE)
        assert len(list(Path(f"/proc/{template}/task").iterdir())) == 1
        opened = {path.name for path in Path(f"/proc/{template}/fd").iterdir()}
        (worker,) = titled(server.process.pid, WORKER)
        theirs = Path(f"/proc/{template}/fd/0").readlink()
        held = {path.readlink() for path in Path(f"/proc/{worker}/fd").iterdir()}
    assert opened == {"0", "1", "2"}
    assert theirs not in held


def test_a_killed_worker_is_forked_again_and_its_end_is_told(tmp_path: Path) -> None:
    with running(tmp_path / "home", *NO_ENGINE) as server:
        (worker,) = titled(server.process.pid, WORKER)
        others = set(descendants(server.process.pid)) - {worker}
        kill(worker)
        new = replaced(server, worker)
        assert "app.nursery.template" in command_line(new)
        assert others < set(descendants(server.process.pid))
        assert "gateway worker 1 ended with status -9" in server.log.read_text()


def test_after_the_end_of_the_template_nothing_stops_and_a_killed_worker_is_started_afresh(tmp_path: Path) -> None:
    with running(tmp_path / "home", *NO_ENGINE) as server:
        family = children(server.process.pid)
        (template,) = titled(server.process.pid, TEMPLATE)
        kill(template)
        assert httpx.get(f"{server.gateway}/healthz").status_code == 200
        assert children(server.process.pid) == family
        (worker,) = titled(server.process.pid, WORKER)
        kill(worker)
        new = replaced(server, worker)
        assert "penstock.app.child" in command_line(new)
        assert not is_alive(template)
        kill(new)
        assert replaced(server, new) not in (worker, new)
        assert server.log.read_text().count("the template of the children is gone") == 1


def test_a_start_that_is_refused_leaves_no_template(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "penstock", "serve", "--port", "0", "--workers", "0"]
    process = subprocess.Popen(command, env=scratch_env(tmp_path / "home"), stderr=subprocess.PIPE)
    assert process.stderr is not None
    with process.stderr:
        # Whoever still ran would keep the pipe open.
        assert b"gateway.workers" in process.stderr.read()
    assert process.wait(30) == 1
