"""PENSTOCK_HOME: its folders, the lock that keeps two servers out of one home, and the ready file."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Any

import msgspec

from penstock.settings.private import private_folder

# In the home: the name of the database that its last server used.
DATABASE = "database"


class HomeError(Exception):
    """The home cannot be used; the message is one line with the remedy."""


class Home:
    """The folder that holds the database, journal, weights, tokens and run files. ``another`` is how its user chooses
    another one."""

    def __init__(self, path: str, *, another: str = "use --home") -> None:
        self.path = Path(path)
        self._another = another
        self.run = self.path / "run"
        self.journal = self.path / "journal"
        self._lock = -1

    def prepare(self) -> None:
        """Create what is missing, private to the user. Raises HomeError."""
        try:
            for folder in (self.run, self.journal):
                private_folder(folder)
            probe = self.run / f".write-{os.getpid()}"
            probe.touch(mode=0o600)
            probe.unlink()
        except OSError as error:
            raise HomeError(
                f"PENSTOCK_HOME {self.path} cannot be written ({error.strerror}); {self._another} to choose another"
            ) from error

    def lock(self) -> None:
        """Take the home for this process until it ends, however it ends. Raises HomeError."""
        self._lock = os.open(self.run / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip()
            os.close(self._lock)
            raise HomeError(
                f"another penstock serve (pid {owner or 'unknown'}) runs on {self.path}; stop it, or {self._another}"
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        # What a server that was killed left behind: nobody else can be using it now.
        for left in (*self.run.glob("engine-*.sock"), self.run / "ready.json"):
            left.unlink(missing_ok=True)

    def announce(self, ready: dict[str, Any], extra: str | None) -> None:
        """Write run/ready.json, and the file that the operator named, atomically. Raises HomeError."""
        for path in self._ready_files(extra):
            try:
                _put(path, msgspec.json.encode(ready) + b"\n", mode=0o600 if path.parent == self.run else 0o666)
            except OSError as error:
                remedy = f"serve.ready_file {path}" if extra and path == Path(extra) else f"{path}"
                raise HomeError(f"{remedy} cannot be written ({error.strerror})") from error

    def note_database(self, name: str) -> None:
        """Write which database is served here, for the commands that look after it. Raises HomeError."""
        path = self.path / DATABASE
        try:
            _put(path, f"{name}\n".encode(), mode=0o600)
        except OSError as error:
            raise HomeError(f"{path} cannot be written ({error.strerror})") from error

    def withdraw(self, extra: str | None) -> None:
        """Remove the ready files."""
        for path in self._ready_files(extra):
            with contextlib.suppress(OSError):
                path.unlink()

    def _ready_files(self, extra: str | None) -> list[Path]:
        return [self.run / "ready.json", *([Path(extra)] if extra else [])]


def _put(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    draft = path.with_name(f"{path.name or 'ready'}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
