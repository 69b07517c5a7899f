"""PENSTOCK_HOME: its folders, the lock that keeps two servers out of one home, and the ready file."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Any

import msgspec

from penstock.settings.tree import Settings
from penstock.store.database import Database
from penstock.store.errors import StoreError
from penstock.store.sealing import MasterKeys, parse_master_key


class HomeError(Exception):
    """The home cannot be used; the message is one line with the remedy."""


class Home:
    """The folder that holds the database, journal, weights, tokens and run files."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.run = self.path / "run"
        self.journal = self.path / "journal"
        self._lock = -1

    def prepare(self) -> None:
        """Create what is missing, private to the user. Raises HomeError."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.run, self.journal):
                folder.mkdir(mode=0o700, exist_ok=True)
            probe = self.run / f".write-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise HomeError(
                f"PENSTOCK_HOME {self.path} cannot be written ({error.strerror}); choose another with --home"
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
                f"another penstock serve (pid {owner or 'unknown'}) runs on {self.path}; stop it, or use --home"
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        # What a server that was killed left behind: nobody else can be using it now.
        for left in (*self.run.glob("engine-*.sock"), self.run / "ready.json"):
            left.unlink(missing_ok=True)

    def announce(self, ready: dict[str, Any], extra: str | None) -> None:
        """Write run/ready.json, and the file that the operator named, atomically. Raises HomeError."""
        for path in self._ready_files(extra):
            draft = path.with_name(f"{path.name or 'ready'}.{os.getpid()}")
            try:
                draft.write_bytes(msgspec.json.encode(ready) + b"\n")
                draft.replace(path)
            except OSError as error:
                with contextlib.suppress(OSError):
                    draft.unlink()
                remedy = f"serve.ready_file {path}" if extra and path == Path(extra) else f"{path}"
                raise HomeError(f"{remedy} cannot be written ({error.strerror})") from error

    def withdraw(self, extra: str | None) -> None:
        """Remove the ready files."""
        for path in self._ready_files(extra):
            with contextlib.suppress(OSError):
                path.unlink()

    def _ready_files(self, extra: str | None) -> list[Path]:
        return [self.run / "ready.json", *([Path(extra)] if extra else [])]


def database_url(settings: Settings) -> str | Path:
    """Where the store lives."""
    return settings.database.url or Path(settings.home) / "penstock.db"


def open_database(settings: Settings, *, upkeep: bool = False) -> Database:
    """The store, open and migrated or, for ``upkeep``, as it is, with the master keys that the settings name. Raises
    StoreError."""
    return Database.open(database_url(settings), master_keys=master_keys(settings), upkeep=upkeep)


def master_keys(settings: Settings) -> MasterKeys:
    """Where the settings say that the master keys are. Raises StoreError."""
    given = settings.secrets
    if given.master_key is None:
        if given.old_master_key is not None:
            raise StoreError("secrets.old_master_key needs secrets.master_key; in a file, put it on the second line")
        return MasterKeys(Path(given.master_key_file or Path(settings.home) / "master.key").expanduser().absolute())
    if given.master_key_file is not None:
        raise StoreError("secrets.master_key and secrets.master_key_file are both set; keep one")
    texts = {"secrets.master_key": given.master_key, "secrets.old_master_key": given.old_master_key}
    return MasterKeys(given=tuple(parse_master_key(text, name) for name, text in texts.items() if text is not None))
