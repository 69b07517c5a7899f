"""`penstock serve` as an operator meets it: start, refusal to start, drain, crash."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from penstock.domain.ledger import LedgerEntry
from penstock.ledger.records import Progress
from penstock.store.database import Database
from penstock.store.metering.ledger import LedgerStore
from tests.gateway.conftest import DONE, Gateway, control, delta
from tests.server import (
    TEMPLATE,
    Server,
    borrow_weights,
    descendants,
    is_alive,
    running,
    scratch_env,
    title,
    titled,
    wait_ready,
)
from tests.upstream import Exchange, ScriptedUpstream

NO_ENGINE = ("--set", "engine.enabled=false")


def until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def failed_start(home: Path, *flags: str) -> str:
    """Run a serve that must not start: its one line on stderr."""
    command = [sys.executable, "-m", "penstock", "serve", "--port", "0", *NO_ENGINE, *flags]
    done = subprocess.run(command, env=scratch_env(home), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert done.stdout == ""
    [line] = done.stderr.strip().splitlines()
    return line


def test_the_first_start_prints_a_curl_line_that_answers(penstock_server: Server) -> None:
    banner = penstock_server.log.read_text()
    [curl] = [line for line in banner.splitlines() if line.startswith("curl ")]
    assert "inf-" not in banner
    env = penstock_server.env | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    answer = subprocess.run(["sh", "-c", curl], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(answer.stdout)["choices"][0]["message"]["content"]
    assert "claude-4-5-sonnet" in banner
    assert "stand-ins" in banner
    assert f"ready gateway={penstock_server.gateway} control={penstock_server.control}" in banner


def test_a_person_at_a_terminal_is_shown_the_key_once(tmp_path: Path) -> None:
    home, (ours, theirs) = tmp_path / "home", os.openpty()
    command = [sys.executable, "-m", "penstock", "serve", "--port", "0", "--control-port", "0", *NO_ENGINE]
    process = subprocess.Popen(command, env=scratch_env(home), stdin=theirs, stdout=theirs, stderr=theirs)
    shown = b""
    try:
        while b"ready gateway=" not in shown:
            shown += os.read(ours, 4096)
    finally:
        process.send_signal(signal.SIGTERM)
        threading.Thread(target=drain_terminal, args=(ours,), daemon=True).start()
        assert process.wait(60) == 0
        os.close(theirs)
    assert re.search(rb"Authorization: Bearer inf-[A-Za-z0-9_-]{43}\"", shown)


def drain_terminal(descriptor: int) -> None:
    """Reads until the terminal is closed, so that nobody waits for room in it."""
    with contextlib.suppress(OSError):
        while os.read(descriptor, 4096):
            pass


def test_the_home_is_private(penstock_server: Server) -> None:
    for name in ("penstock.db", "tokens/operator", "master.key", "database"):
        assert (penstock_server.home / name).stat().st_mode & 0o077 == 0


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = failed_start(tmp_path / "home", "--port", str(port))
    assert str(port) in line
    assert "already in use" in line


def test_a_home_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "--home" in failed_start(tmp_path / "file" / "home")


def test_a_newer_database_is_one_clear_line(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(home, *NO_ENGINE):
        pass
    with sqlite3.connect(home / "penstock.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999_from_the_future'")
    database.close()
    assert "newer" in failed_start(home)


def test_a_bad_setting_is_one_clear_line(tmp_path: Path) -> None:
    assert "gateway.workers" in failed_start(tmp_path / "home", "--workers", "0")


def test_a_second_server_on_one_home_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(home, *NO_ENGINE) as server:
        assert f"pid {server.process.pid}" in failed_start(home)


def test_hello_is_made_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(home, *NO_ENGINE) as server:
        assert "Made the app 'hello'" in server.log.read_text()
        first = control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]
    with running(home, *NO_ENGINE) as server:
        assert "Made the app" not in server.log.read_text()
        assert control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"] == first


def test_production_has_no_stand_ins(tmp_path: Path) -> None:
    with running(tmp_path / "home", *NO_ENGINE, "--mode", "production") as server:
        assert "stand-ins" not in server.log.read_text()


def test_the_ready_files_are_removed_at_the_end(tmp_path: Path) -> None:
    named = tmp_path / "ready.json"
    with running(tmp_path / "home", *NO_ENGINE, "--ready-file", str(named)) as server:
        assert json.loads(named.read_text())["gateway"] == server.gateway
    assert not named.exists()
    assert not (tmp_path / "home" / "run" / "ready.json").exists()


class OpenStream:
    """A server with one answer under way, whose upstream waits for ``go``."""

    def __init__(self, folder: Path) -> None:
        self.go = threading.Event()
        self.folder = folder

    async def script(self, exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("first"))
        await asyncio.to_thread(self.go.wait, 60)
        await exchange.chunk(delta("last") + DONE)
        await exchange.chunk(b"")

    def config(self, base: str) -> Path:
        file = self.folder / "penstock.toml"
        file.write_text(
            f'[engine]\nenabled = false\n[[provider]]\nname = "double"\nbase_url = "{base}"\n'
            '[[model]]\nid = "m"\ntargets = [{ provider = "double", model = "m" }]\n'
        )
        return file

    def read(self, server: Server, began: threading.Event, out: list[str]) -> None:
        key = control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
        url, headers = f"{server.gateway}/v1/chat/completions", {"authorization": f"Bearer {key}"}
        with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
            for text in answer.iter_text():
                out.append(text)
                began.set()


def test_sigterm_lets_an_open_answer_finish_and_accepts_no_new_one(tmp_path: Path) -> None:
    case, began, out = OpenStream(tmp_path), threading.Event(), list[str]()
    with (
        ScriptedUpstream(case.script) as upstream,
        running(tmp_path / "home", "--config", str(case.config(upstream.base))) as server,
    ):
        reader = threading.Thread(target=case.read, args=(server, began, out))
        reader.start()
        assert began.wait(30)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: refused(server), "new connections are still accepted")
        case.go.set()
        reader.join(30)
        assert server.process.wait(30) == 0
    assert "last" in "".join(out)
    assert "[DONE]" in "".join(out)


def refused(server: Server) -> bool:
    try:
        httpx.get(f"{server.gateway}/healthz", timeout=5)
    except httpx.ConnectError:
        return True
    except httpx.HTTPError:
        return False
    return False


def test_an_answer_that_outlasts_the_drain_bound_is_cut_with_a_typed_error(tmp_path: Path) -> None:
    case, began, out = OpenStream(tmp_path), threading.Event(), list[str]()
    with ScriptedUpstream(case.script) as upstream:
        flags = ("--config", str(case.config(upstream.base)), "--drain", "1")
        with running(tmp_path / "home", *flags) as server:
            reader = threading.Thread(target=case.read, args=(server, began, out))
            reader.start()
            assert began.wait(30)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(30) == 0
            reader.join(30)
        case.go.set()
    assert '"code":"shutting_down"' in "".join(out)
    assert "[DONE]" not in "".join(out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_drains_and_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    """A terminal sends ctrl-C, and a service manager SIGTERM, to every process of the group at once."""
    home, log = tmp_path / "home", tmp_path / "log"
    borrow_weights(home)
    command = [sys.executable, "-m", "penstock", "serve", "--port", "0"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=scratch_env(home), stdout=out, stderr=out, start_new_session=True)
    wait_ready(process, home, log)
    family = descendants(process.pid)
    os.killpg(process.pid, number)
    assert process.wait(30) == 0
    assert not [pid for pid in family if is_alive(pid)]
    assert "Traceback" not in log.read_text()
    assert "ended with status" not in log.read_text()


def test_children_end_by_themselves_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "log"
    borrow_weights(home)
    with log.open("wb") as out:
        command = [sys.executable, "-m", "penstock", "serve", "--port", "0"]
        process = subprocess.Popen(command, env=scratch_env(home), stdout=out, stderr=out)
    wait_ready(process, home, log)
    family = descendants(process.pid)
    assert len(family) >= 4
    assert title(family[0]) == TEMPLATE
    process.kill()
    process.wait(30)
    until(lambda: not [pid for pid in family if is_alive(pid)], "children outlive the supervisor")


def test_a_start_while_the_port_is_free_again_is_not_hindered_by_old_connections(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(home, *NO_ENGINE) as server:
        port = int(re.sub(r".*:", "", server.gateway))
        client = httpx.Client()
        client.get(f"{server.gateway}/healthz")
    with running(home, *NO_ENGINE, "--port", str(port)) as server:
        assert server.gateway.endswith(f":{port}")
    client.close()


def read_until_cut(case: OpenStream, server: Server, began: threading.Event, out: list[str]) -> None:
    with contextlib.suppress(httpx.HTTPError):
        case.read(server, began, out)


def test_what_a_killed_worker_had_produced_is_in_the_ledger(tmp_path: Path) -> None:
    case, began, out = OpenStream(tmp_path), threading.Event(), list[str]()
    with (
        ScriptedUpstream(case.script) as upstream,
        running(tmp_path / "home", "--config", str(case.config(upstream.base))) as server,
    ):
        gateway = Gateway(server, upstream, "")
        reader = threading.Thread(target=read_until_cut, args=(case, server, began, out))
        reader.start()
        assert began.wait(30)
        until(lambda: any(isinstance(record, Progress) for record in gateway.records()), "nothing is noted of it")
        (worker,) = titled(server.process.pid, "penstock worker")
        os.kill(worker, signal.SIGKILL)
        reader.join(30)
        case.go.set()
        until(lambda: len(ledger(server.home)) == 1, "it is not in the ledger")
    (entry,) = ledger(tmp_path / "home")
    assert (entry.outcome, entry.usage.output_tokens, entry.usage.estimated) == ("interrupted", 1, True)


def ledger(home: Path) -> list[LedgerEntry]:
    """The entries of a home."""
    db = Database.open(home / "penstock.db", upkeep=True)
    try:
        return LedgerStore(db).entries()
    finally:
        db.close()
