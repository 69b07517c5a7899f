"""How a driver's child begins and ends: one JSON line (``Bootstrap``) on stdin, one (``Ready``) on stdout, then stdin
stays open as the lifeline. Native code may abort or crash in such a child without harm to the gateway."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec

from penstock.engine.tether import die_with

T = TypeVar("T")


class Bootstrap(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is told. ``context`` is tokens per slot; ``threads`` 0 means every usable CPU."""

    model: str
    socket: str
    key: str
    parent: int
    slots: int
    context: int
    batch: int
    threads: int = 0

    @property
    def thread_count(self) -> int:
        """The threads to use, at least 1."""
        return self.threads or len(os.sched_getaffinity(0))


class Ready(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the child says: listening after ``load_s`` seconds, or ``error`` in one line and exit status 1."""

    load_s: float = 0.0
    error: str | None = None


class Birth:
    """The beginning of a child: takes the bootstrap line, and says once how loading went."""

    def __init__(self) -> None:
        # Signals sent to the whole group are for the supervisor: open answers drain before it closes our lifeline.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        # Native code may print to descriptor 1, which carries our line: keep a private copy, send the rest to stderr.
        self._answer = os.dup(1)
        os.dup2(2, 1)
        line = sys.stdin.buffer.readline()
        if not line:
            os._exit(0)
        try:
            self.boot = msgspec.json.decode(line, type=Bootstrap)
        except msgspec.DecodeError as error:
            self._fail(f"bad bootstrap: {error}")
        # Loading holds the GIL, so the end of stdin would be seen too late then.
        die_with(self.boot.parent)
        self._started = time.monotonic()

    def load(self, work: Callable[[Bootstrap], T]) -> T:
        """What ``work`` loads. What it raises becomes one line for the operator and the end of the child."""
        try:
            if not Path(self.boot.model).is_file():
                raise FileNotFoundError(f"no weights at {self.boot.model}")
            # A listener fails on a socket file that an earlier child left behind.
            Path(self.boot.socket).unlink(missing_ok=True)
            return work(self.boot)
        except Exception as error:  # noqa: BLE001 - native engines raise what they like
            text = " ".join(str(error).split()) or type(error).__name__
            self._fail(f"the weights could not be loaded: {text[:500]}")

    def listens(self) -> None:
        """Say that the socket takes calls."""
        Path(self.boot.socket).chmod(0o600)
        self._say(Ready(load_s=round(time.monotonic() - self._started, 3)))

    def _fail(self, error: str) -> NoReturn:
        self._say(Ready(error=error))
        os._exit(1)

    def _say(self, ready: Ready) -> None:
        os.write(self._answer, msgspec.json.encode(ready) + b"\n")
