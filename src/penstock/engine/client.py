"""Runs one package client at a time, and can end it from another thread."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator

from penstock.engine.registry import Progress, PullError
from penstock.engine.tether import tethered


class PackageClient:
    """Runs commands one after another in one thread. ``aborted``, once set, stays so and fails every later run."""

    def __init__(self, aborted: threading.Event) -> None:
        self._aborted = aborted
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def run(self, command: list[str], progress: Progress) -> str | None:
        """None when the command succeeded, else the last line that it said. Raises PullError when aborted, OSError."""
        last = ""
        with self._started(command) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("Progress "):
                    done, _, total = line[9:].partition(" of ")
                    if done.strip().isdigit() and total.strip().isdigit():
                        progress(int(done), int(total), "download")
                elif line.strip():
                    last = line.strip()
        self._check()
        return None if process.returncode == 0 else last[:300] or f"exit status {process.returncode}"

    def abort(self) -> None:
        """End the command that runs, with what it started, and let no other begin. From any thread."""
        with self._lock:
            self._aborted.set()
            if self._process is not None:
                _kill(self._process)

    @contextlib.contextmanager
    def _started(self, command: list[str]) -> Iterator[subprocess.Popen[str]]:
        pipe = subprocess.PIPE
        with self._lock:
            self._check()
            process = self._process = subprocess.Popen(
                tethered(command),
                stdin=subprocess.DEVNULL,
                stdout=pipe,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                process_group=0,
            )
        try:
            with process:
                try:
                    yield process
                except BaseException:
                    _kill(process)
                    raise
        finally:
            with self._lock:
                self._process = None

    def _check(self) -> None:
        if self._aborted.is_set():
            raise PullError("the fetch of the weights was aborted")


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
