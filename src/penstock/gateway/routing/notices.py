"""What the workers of one home tell each other about resting targets: a small file of each, merged for /readyz.

A worker holds its file locked while it lives; a file that nobody holds was left by one that was killed.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

_PATTERN = "targets-*.json"
_MAX_BYTES = 1024 * 1024
_STATES = ("closed", "resting", "half_open", "open")  # the worst last


class Notice(msgspec.Struct, frozen=True, omit_defaults=True):
    """A target that a worker does not call as usual: ``open`` or ``resting`` until this Unix time, and why."""

    target: str
    state: str
    until: float
    error: str | None = None


class Notices:
    """One worker's own file, and the way to all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f"targets-{os.getpid()}.json"
        self._fd = -1
        self._size = 0

    def write(self, notices: Iterable[Notice]) -> None:
        """Replace what this worker says. Raises OSError."""
        data = msgspec.json.encode(list(notices))
        if self._fd < 0:
            # Under a name that no reader looks for until it is locked: else it would be taken for a dead worker's.
            draft = self._path.with_name(f".{self._path.name}")
            self._fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.replace(self._path)
        # One write over the old text, filled up with blanks: a reader never meets a half of each.
        self._size = max(self._size, len(data))
        os.pwrite(self._fd, data.ljust(self._size), 0)

    def read(self) -> list[Notice]:
        """What all live workers say; the files of dead ones are removed."""
        return [notice for path in self._folder.glob(_PATTERN) for notice in _read(path)]

    def close(self) -> None:
        """Take this worker's file away."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def merged(names: Iterable[str], notices: Iterable[Notice]) -> list[dict[str, object]]:
    """The body of /readyz's ``targets``: for each the least healthy word of any worker, and how many say such a word.
    Where a rest is over and no probe has come yet, the word is ``half_open``."""
    now = time.time()
    said: dict[str, list[tuple[int, float, Notice]]] = {name: [] for name in names}
    for notice in notices:
        over = notice.until <= now
        if notice.target in said and not (over and notice.state == "resting"):
            rank = _STATES.index("half_open" if over else notice.state)
            said[notice.target].append((rank, notice.until, notice))
    return [_row(name, words, now) for name, words in said.items()]


def _row(name: str, words: list[tuple[int, float, Notice]], now: float) -> dict[str, object]:
    if not words:
        return {"target": name, "state": _STATES[0]}
    rank, until, notice = max(words, key=lambda word: word[:2])
    left = max(0, round(until - now))
    return {
        "target": name,
        "state": _STATES[rank],
        "retry_in_s": left,
        "error": notice.error,
        "workers": len(words),
    }


def _read(path: Path) -> list[Notice]:
    try:
        with path.open("rb") as file:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)  # nobody held it
                return []
            return msgspec.json.decode(file.read(_MAX_BYTES), type=list[Notice])
    except (OSError, msgspec.DecodeError):
        return []
