"""The supervised children: a start that the system refuses, and what stands in their environment."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from penstock.app.boot import Boot, Serving, Upstream
from penstock.app.home import Home, HomeError
from penstock.app.nursery.processes import ChildProcess
from penstock.app.serving.prepare import prepare_store
from penstock.providers.spec import ProviderSpec
from penstock.settings.tree import Settings
from tests.server import TEMPLATE, Server, borrow_weights, descendants, is_alive, scratch_env, titled, until, wait_ready
from tests.server import children as below

SECRET = "LAB_KEY"


def interpreter(folder: Path) -> Path:
    """This Python under a name of the test's own, which can be taken away."""
    prefix = Path(sys.prefix)
    (folder / "bin").mkdir(parents=True)
    if (prefix / "pyvenv.cfg").exists():
        (folder / "pyvenv.cfg").write_text((prefix / "pyvenv.cfg").read_text())
        (folder / "lib").symlink_to(prefix / "lib")
    python = folder / "bin" / "python"
    python.symlink_to(Path(sys.executable).resolve())
    return python


@contextlib.contextmanager
def serving(folder: Path, python: Path, *flags: str, **env: str) -> Iterator[Server]:
    """A serve under that interpreter; killed when the test has not ended it."""
    home, log = folder / "home", folder / "log"
    borrow_weights(home)
    command = [str(python), "-m", "penstock", "serve", "--port", "0", "--control-port", "0", *flags]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=scratch_env(home) | env, stdout=out, stderr=out)
    try:
        ready = wait_ready(process, home, log)
        yield Server(home, ready["gateway"], ready["control"], process, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(30)


def children(server: Server) -> set[int]:
    return set(below(server.process.pid))


def refuse_starts(server: Server, python: Path) -> None:
    """Take template and interpreter away, end one child and wait until the supervisor could not start another."""
    python.rename(python.with_name("away"))
    for pid in titled(server.process.pid, TEMPLATE):
        os.kill(pid, signal.SIGKILL)
    os.kill(max(children(server)), signal.SIGKILL)
    until(lambda: "cannot be started" in server.log.read_text(), "the failed start is not logged")


def test_a_child_that_the_system_refuses_to_start_is_started_later(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "own")
    with serving(tmp_path, python, "--set", "engine.enabled=false") as server:
        before = children(server)
        refuse_starts(server, python)
        python.with_name("away").rename(python)
        until(lambda: len(children(server) - before) == 1, "no new child")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


def test_a_drain_while_a_child_cannot_be_started_still_ends_all_others(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "own")
    with serving(tmp_path, python, "--set", "engine.enabled=false", "--workers", "2") as server:
        family = children(server)
        refuse_starts(server, python)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert not [pid for pid in family if is_alive(pid)]
        assert "Traceback" not in server.log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_child_holds_the_secret_of_a_provider_in_its_environment(tmp_path: Path) -> None:
    config = tmp_path / "penstock.toml"
    config.write_text(
        f'[[provider]]\nname = "lab"\nbase_url = "http://127.0.0.1:9"\napi_key_env = "{SECRET}"\n'
        '[[model]]\nid = "m"\ntargets = [{ provider = "lab", model = "m" }]\n'
    )
    with serving(tmp_path, Path(sys.executable), "--config", str(config), **{SECRET: "s3cret"}) as server:
        family = descendants(server.process.pid)
        holders = [pid for pid in family if b"s3cret" in Path(f"/proc/{pid}/environ").read_bytes()]
        assert (len(family), holders) == (5, [])
        assert b"HOME=" in Path(f"/proc/{max(family)}/environ").read_bytes()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_child_that_is_started_again_holds_a_secret_that_a_reload_has_named(tmp_path: Path) -> None:
    config = tmp_path / "penstock.toml"
    config.write_text("[engine]\nenabled = false\n")
    with serving(tmp_path, Path(sys.executable), "--config", str(config), **{SECRET: "s3cret"}) as server:
        config.write_text(
            "[engine]\nenabled = false\n"
            f'[[provider]]\nname = "lab"\nbase_url = "http://127.0.0.1:9"\napi_key_env = "{SECRET}"\n'
            '[[model]]\nid = "m"\ntargets = [{ provider = "lab", model = "m" }]\n'
        )
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "configuration reloaded" in server.log.read_text(), "not reloaded")
        before = children(server)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(children(server) - before) == len(before), "no new children")
        until(lambda: not _holders(server), "a new child holds the secret")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


def _holders(server: Server) -> list[int]:
    return [pid for pid in children(server) if b"s3cret" in Path(f"/proc/{pid}/environ").read_bytes()]


def test_a_hang_up_of_the_terminal_ends_no_child(tmp_path: Path) -> None:
    with serving(tmp_path, Path(sys.executable), "--set", "engine.enabled=false") as server:
        family = children(server)
        for pid in family:
            os.kill(pid, signal.SIGHUP)
        for url in (server.gateway, server.control):
            assert httpx.get(f"{url}/available-models").status_code == 200
        assert children(server) == family


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(tmp_path: Path) -> None:
    unfit = Serving(upstreams=(Upstream(spec=ProviderSpec(name="a", kind="openai", base_url="nonsense://")),))
    settings = Settings(home=str(tmp_path / "home"))
    Home(settings.home).prepare()
    prepare_store(settings)

    async def test(listener: socket.socket) -> None:
        listener.set_inheritable(True)
        boot = Boot(role="gateway", settings=settings, listener=listener.fileno(), gateway_url="", control_url="")
        child = ChildProcess(boot, name="worker")
        await child.start()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGSTOP)
        child.patience_s = 0.05
        assert await child.tell(Serving()) == "no answer"
        os.kill(child.pid, signal.SIGCONT)
        child.patience_s = 60.0
        assert await child.tell(unfit) is not None
        assert await child.tell(Serving()) is None
        await child.drain(10)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        asyncio.run(test(listener))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_master_key_from_the_environment_reaches_no_child_through_it(tmp_path: Path) -> None:
    key = "5e" * 32
    flags = ("--set", "engine.enabled=false")
    with serving(tmp_path, Path(sys.executable), *flags, PENSTOCK_SECRETS_MASTER_KEY=key) as server:
        family = descendants(server.process.pid)
        assert len(family) == 4
        assert not [pid for pid in family if key.encode() in Path(f"/proc/{pid}/environ").read_bytes()]
        assert not (server.home / "master.key").exists()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert key not in server.log.read_text()


def test_a_ready_file_in_a_missing_folder_names_its_setting(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    home.prepare()
    with pytest.raises(HomeError, match=r"serve\.ready_file .*/missing/ready\.json cannot be written"):
        home.announce({}, str(tmp_path / "missing" / "ready.json"))


def test_a_ready_file_that_is_a_folder_leaves_no_draft(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    home.prepare()
    (tmp_path / "ready").mkdir()
    with pytest.raises(HomeError, match=r"serve\.ready_file"):
        home.announce({}, str(tmp_path / "ready"))
    assert {path.name for path in tmp_path.iterdir()} == {"home", "ready"}
