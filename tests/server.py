"""A real `penstock serve` in a scratch home, for the tests that look at the whole product from outside."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS_CACHE = ROOT / ".cache" / "weights"
# The first start on a machine fetches 98 MB of weights; everything later takes seconds.
READY_WITHIN_S = 300
STOPPED_WITHIN_S = 60


@dataclass(frozen=True)
class Server:
    """A ready server. ``gateway`` and ``control`` are URLs without a trailing slash."""

    home: Path
    gateway: str
    control: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment in which the CLI finds this server and nothing of the developer's own."""
        return scratch_env(self.home)

    def cli(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs one `penstock` command against this server."""
        command = [sys.executable, "-m", "penstock", *args]
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"penstock {' '.join(args)} exited {done.returncode}: {done.stderr}{done.stdout}")
        return done

    def config_var(self, app: str, name: str) -> str:
        """The value of a config var, as `penstock config:get` prints it."""
        return self.cli("config:get", name, "-a", app).stdout.strip()


def scratch_env(home: Path) -> dict[str, str]:
    """This environment without any setting of Penstock or Heroku, but with ``home``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "HEROKU_"))}
    return kept | {"PENSTOCK_HOME": str(home), "HOME": str(home.parent)}


@contextlib.contextmanager
def running(home: Path, *flags: str) -> Iterator[Server]:
    """Starts the server on free ports, waits until it is ready, stops it by SIGTERM and checks how it went.

    Raises AssertionError when it does not get ready, does not exit 0, or leaves a process behind.
    """
    borrow_weights(home)
    log = home.parent / f"{home.name}.log"
    command = [sys.executable, "-m", "penstock", "serve", "--port", "0", "--control-port", "0", *flags]
    # Threads of the engine that wait for each other spin, and the test processes share the cores.
    env = scratch_env(home) | {"PENSTOCK_ENGINE_THREADS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=home.parent)
    try:
        ready = wait_ready(process, home, log)
        yield Server(home, ready["gateway"].rstrip("/"), ready["control"].rstrip("/"), process, log)
    finally:
        keep_weights(home)
        stop(process, log)


def wait_ready(process: subprocess.Popen[bytes], home: Path, log: Path) -> dict[str, Any]:
    """The content of the ready file, once it is there."""
    ready_file = home / "run" / "ready.json"
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            ready: dict[str, Any] = json.loads(ready_file.read_text())
            return ready
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"the server is not ready (exit {process.poll()}):\n{log.read_text()[-4000:]}")


def stop(process: subprocess.Popen[bytes], log: Path) -> None:
    """Ends the server as an operator would and checks that it went cleanly."""
    family = descendants(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"SIGTERM did not end the server:\n{log.read_text()[-4000:]}") from None
    assert code == 0, f"the server exited {code}:\n{log.read_text()[-4000:]}"
    left = [pid for pid in family if is_alive(pid)]
    assert not left, f"processes left behind: {left}"


def descendants(pid: int) -> list[int]:
    """Process ids below ``pid``; empty where there is no /proc."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        # A thread, or the process, may end meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, task.read_text().split()):
                found += [child, *descendants(child)]
    return found


TEMPLATE = "penstock forks"


def title(pid: int) -> str:
    """What ``top`` calls a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def titled(pid: int, name: str) -> list[int]:
    """The processes below ``pid`` that are called so."""
    return [child for child in descendants(pid) if title(child) == name]


def children(pid: int) -> list[int]:
    """Process ids below ``pid`` without the template, of which there is one as long as it is not killed."""
    return [child for child in descendants(pid) if title(child) != TEMPLATE]


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until it holds; after a minute it is said what does not."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def borrow_weights(home: Path) -> None:
    """Puts weights that an earlier run downloaded into the home."""
    _mirror(WEIGHTS_CACHE, home / "weights")


def keep_weights(home: Path) -> None:
    """Keeps downloaded weights for later runs."""
    _mirror(home / "weights", WEIGHTS_CACHE)


def _mirror(source: Path, target: Path) -> None:
    for file in sorted(source.glob("*.gguf")):
        copy = target / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, copy)
        except FileExistsError:
            continue
        except OSError:
            # Whole or not at all: another process of the tests may be looking for it.
            draft = copy.with_name(f".{copy.name}.{os.getpid()}")
            shutil.copyfile(file, draft)
            draft.replace(copy)
