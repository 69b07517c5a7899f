"""Starts and stops the servers of a run, each in its own session, by pid; reads their CPU time from /proc."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TextIO

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench" / ".peers"


class StartFailed(Exception):
    """A server did not come up; the message is the reason, with the end of its log."""


def free_port() -> int:
    """A loopback port that is free now, for servers that cannot choose one and say so themselves."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Server:
    """A child process. Its output goes to ``log``; its standard input stays open while it should run."""

    def __init__(self, argv: list[str], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if env is None else out,
                stderr=out,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def wait_ready(self, ready: Callable[[], bool], deadline_s: float) -> None:
        """Return when ``ready`` says so; raises StartFailed when the process ends or the time is up."""
        until = time.monotonic() + deadline_s
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise StartFailed(f"ended with status {self.process.returncode}: {self.log_tail()}")
            if ready():
                return
            time.sleep(0.05)
        raise StartFailed(f"not ready after {deadline_s:.0f} s: {self.log_tail()}")

    def log_tail(self) -> str:
        """The end of what it wrote, on one line."""
        text = self.log.read_text(errors="replace").strip()
        return " / ".join(text.splitlines()[-4:])[-400:] or "it wrote nothing"

    def stop(self) -> None:
        """End it: standard input closed and SIGTERM, then SIGKILL to its session after 10 s."""
        if self.process.poll() is None:
            self.process.terminate()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class UpstreamDouble(Server):
    """The upstream double as a process; it says its port itself."""

    def __init__(self, log: Path) -> None:
        super().__init__([sys.executable, "-m", "bench.upstream"], log)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise StartFailed(f"the upstream double: {self.log_tail()}")
        self.port = int(json.loads(line)["port"])

    def served(self) -> int:
        """How many chat requests it has answered."""
        status, body = http("GET", self.port, "/stats")
        assert status == 200
        counts = json.loads(body)
        return int(counts["plain"] + counts["streamed"])


def http(
    method: str, port: int, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """One request to a server of this run, with a stock client: (status, body). Raises OSError."""
    import http.client  # noqa: PLC0415 - the function has the module's name

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body=body or None, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"not HTTP: {error!r}") from error
    finally:
        connection.close()


def answers(port: int, path: str = "/") -> bool:
    """Whether something that speaks HTTP listens there."""
    try:
        http("GET", port, path)
    except OSError:
        return False
    return True


def run_json(module: str, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """Run ``python -m module`` with a job on standard input; its JSON answer. Raises RuntimeError on an error or after
    ``timeout_s`` seconds."""
    argv = [sys.executable, "-m", module]
    text = json.dumps(job)
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=ROOT
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{module} gave no result within {timeout_s:.0f} s") from error
    if not done.stdout.strip():
        raise RuntimeError(f"{module} failed: {done.stderr.strip()[-400:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    if "error" in result:
        raise RuntimeError(str(result["error"]))
    return result


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found.extend(parents.get(member, ()))
    return found


def cpu_ns(pids: list[int]) -> int:
    """CPU time that the processes' threads have had, in nanoseconds; 0 where the kernel does not tell."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except (OSError, ValueError, IndexError):
                continue
    return total


def install(argv: list[str], marker: Path, output: TextIO = sys.stderr, *, cwd: Path | None = None) -> None:
    """Run an install command once; ``marker`` says that it is done. Raises StartFailed with its last words."""
    if marker.exists():
        return
    print(f"bench: installing: {' '.join(argv[:1] + argv[-2:])}", file=output, flush=True)
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False, cwd=cwd)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartFailed(f"install failed: {error}") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).splitlines()
        last = [line for line in lines if line.strip() and "WARN" not in line.upper()]
        raise StartFailed(f"install failed: {(last or ['no message'])[-1][:300]}")
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text("installed\n")
