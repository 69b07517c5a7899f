"""Rotating the master key: whatever is interrupted or goes on at the same time, every secret opens."""

import contextlib
import queue
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import insert, select, update

from penstock.domain.errors import PenstockError
from penstock.store.database import Database, hold_master_keys
from penstock.store.errors import StoreError
from penstock.store.governance import content_keys
from penstock.store.nouns.audit import AuditFilter
from penstock.store.nouns.stores import Stores
from penstock.store.schema import config_vars
from penstock.store.sealed import TABLES, list_sealed
from penstock.store.sealing import MasterKeys, new_master_key, read_master_keys, rotating
from penstock.store.upkeep.rotate import Rotation, rotate
from tests.store.nouns import NOW, add_all, add_app, audit_event

# A process of its own that rotates, and kills itself at the step that it is told.
KILLED = """
import os, signal, sys
from pathlib import Path
from penstock.store.database import Database
from penstock.store.upkeep.rotate import rotate

left = int(sys.argv[3])

def step(_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

rotate(Database.open(sys.argv[1], home=Path(sys.argv[2])), progress=step, batch=2)
"""


class Secrets:
    """Secrets of every kind in one database, and what they are."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.app = add_app(stores)
        attachment = add_all(stores, "cart")
        self.made = [stores.keys.add(attachment.id) for _ in range(3)]
        for number in range(4):
            stores.config_vars.update(self.app.id, f"V{number}", value=f"v{number}")
        stores.idempotency.claim("o", "k", b"f" * 32)
        stores.idempotency.update("o", "k", status=201, body='{"token": "t"}')
        stores.credentials.put("double", "sk-1", by="o@example.com")
        with stores.db.write() as connection:
            sealed = stores.db.seal(connection, "private", bound_to="c1")
            key = {"id": "c1", "public": b"p" * 32, "sealed": sealed, "created_at": NOW}
            connection.execute(insert(content_keys).values(key))

    def check(self, db: Database) -> None:
        """All of them open through ``db``."""
        stores = Stores(db)
        found = {made.key.id: made.secret for made in stores.keys.list()}
        assert found == {made.key.id: made.secret for made in self.made}
        assert stores.config_vars.list(self.app.id) == {f"V{number}": f"v{number}" for number in range(4)}
        assert stores.credentials.values() == {"double": "sk-1"}
        again = stores.idempotency.claim("o", "k", b"f" * 32)
        assert again is not None
        assert again.body == '{"token": "t"}'
        with db.read() as connection:
            (row,) = connection.execute(select(content_keys)).all()
        assert db.sealer.unseal(row.sealed, bound_to=row.id) == "private"


Open = Callable[..., Database]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "master.key"


@pytest.fixture
def another(address: str | Path, tmp_path: Path) -> Iterator[Open]:
    """Opens the database once more, as another process would; with keys of its own, if wanted."""
    with contextlib.ExitStack() as scope:

        def opened(*keys: bytes) -> Database:
            given = MasterKeys(given=keys) if keys else None
            return scope.enter_context(contextlib.closing(Database.open(address, home=tmp_path, master_keys=given)))

        yield opened


@pytest.fixture
def db(another: Open) -> Database:
    return another()


@pytest.fixture
def secrets(stores: Stores) -> Secrets:
    return Secrets(stores)


def quiet(_step: str) -> None:
    """Progress that nobody looks at."""


def sealed_of(db: Database) -> list[bytes]:
    """Every sealed value."""
    with db.read() as connection:
        return [value.sealed for table in TABLES for value in list_sealed(connection, table)]


def version_1(key: bytes, text: str, bound_to: str) -> bytes:
    """A value as the first release sealed it."""
    nonce = b"n" * 12
    return b"\x01" + nonce + AESGCM(key).encrypt(nonce, text.encode(), bound_to.encode())


def store_version_1(db: Database, key: bytes, app_id: str, name: str, text: str) -> None:
    """Makes a config var one that the first release has stored."""
    at = (config_vars.c.app_id == app_id, config_vars.c.name == name)
    with db.write() as connection:
        connection.execute(update(config_vars).where(*at).values(sealed=version_1(key, text, f"{app_id}/{name}")))


def test_every_kind_of_secret_is_found_with_what_it_is_bound_to(stores: Stores, secrets: Secrets) -> None:
    with stores.db.read() as connection:
        found = {table.name: list_sealed(connection, table) for table in TABLES}
    sizes = {name: len(values) for name, values in found.items()}
    assert sizes == {"api_keys": 3, "config_vars": 4, "content_keys": 1, "credentials": 1, "idempotency_keys": 1}
    for value in chain.from_iterable(found.values()):
        assert stores.db.sealer.unseal(value.sealed, bound_to=value.bound_to)


def test_a_rotation_seals_everything_anew_and_drops_the_old_key(
    stores: Stores, secrets: Secrets, key_file: Path, another: Open
) -> None:
    before, (old,) = set(sealed_of(stores.db)), read_master_keys(key_file)
    assert rotate(stores.db, progress=quiet, batch=2) == Rotation(resealed=10, from_file=True)
    (new,) = read_master_keys(key_file)
    assert new != old
    assert not before & set(sealed_of(stores.db))
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert {file.name for file in key_file.parent.iterdir() if "key" in file.name} == {"master.key"}
    secrets.check(another())
    key_file.write_text(old.hex())
    with pytest.raises(StoreError, match="does not open"):
        _ = another().sealer


def test_secrets_of_the_first_release_open_and_are_sealed_anew(
    stores: Stores, secrets: Secrets, key_file: Path, another: Open
) -> None:
    (key,) = read_master_keys(key_file)
    for number in range(4):
        store_version_1(stores.db, key, secrets.app.id, f"V{number}", f"v{number}")
    secrets.check(stores.db)
    rotate(stores.db, progress=quiet)
    assert {value[:1] for value in sealed_of(stores.db)} == {b"\x02"}
    secrets.check(another())


def test_a_server_that_runs_meanwhile_reads_and_seals_on(stores: Stores, secrets: Secrets, another: Open) -> None:
    server = another()
    secrets.check(server)
    rotate(stores.db, progress=quiet)
    Stores(server).config_vars.update(secrets.app.id, "V0", value="v0")
    secrets.check(server)
    secrets.check(another())


def test_a_read_that_began_before_the_rotation_opens_what_it_saw(
    stores: Stores, secrets: Secrets, another: Open
) -> None:
    server = another()
    server.sealer.head()
    with ThreadPoolExecutor(1) as other, server.read():
        saw = sealed_of(server)
        other.submit(rotate, stores.db, progress=quiet).result(60)
        server.sealer.head()  # The process knows the new key, and the file has lost the old one.
        assert sealed_of(server) == saw
        assert Stores(server).config_vars.list(secrets.app.id)["V1"] == "v1"


def test_what_is_being_stored_under_the_old_key_is_not_left_behind(stores: Stores, another: Open) -> None:
    app, last_pass = add_app(stores), threading.Event()
    server = Stores(another())

    def step(text: str) -> None:
        if text.startswith("everything"):
            last_pass.set()

    with ThreadPoolExecutor(1) as other:
        with server.db.write():
            server.config_vars.update(app.id, "LATE", value="late")
            running = other.submit(rotate, stores.db, progress=step)
            assert last_pass.wait(60)
        assert running.result(60).resealed == 1
    assert Stores(another()).config_vars.list(app.id) == {"LATE": "late"}


@pytest.mark.parametrize("kind", ["postgresql"], indirect=False)
def test_postgresql_ends_no_rotation_while_a_sealed_value_is_not_yet_committed(stores: Stores, another: Open) -> None:
    app, rotator = add_app(stores), another()
    with stores.db.write():
        stores.config_vars.update(app.id, "LATE", value="late")
        with pytest.raises(PenstockError), rotator.write() as connection:  # noqa: PT012 - the block is the transaction
            connection.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
            hold_master_keys(connection, ending=True)
    with rotator.write() as connection:
        hold_master_keys(connection, ending=True)


def test_a_rotation_killed_at_each_step_leaves_everything_readable_and_is_finished_by_the_next(
    stores: Stores, secrets: Secrets, key_file: Path, another: Open, address: str | Path
) -> None:

    def run(steps: int) -> int:
        command = [sys.executable, "-c", KILLED, str(address), str(key_file.parent), str(steps)]
        return subprocess.run(command, timeout=60, check=False).returncode

    # The key, two batches of keys and of config vars, one answer, and the end again and again.
    for _ in range(8):
        assert run(0) == -signal.SIGKILL
        assert len(read_master_keys(key_file)) == 2
        secrets.check(another())
    assert run(99) == 0
    assert len(read_master_keys(key_file)) == 1
    secrets.check(another())


@pytest.mark.parametrize("dies_at", ["everything", "the event", "never"])
def test_a_finished_rotation_has_one_event_that_is_committed_before_the_old_key_goes(
    stores: Stores, secrets: Secrets, key_file: Path, dies_at: str
) -> None:
    def events() -> int:
        return len(stores.audit.list(AuditFilter(action="master_key.rotate")))

    def step(text: str) -> None:
        if text.startswith(dies_at):
            raise Aborted

    told = audit_event("master_key.rotate")
    with contextlib.suppress(Aborted):
        rotate(stores.db, progress=step, event=told)
    died = dies_at != "never"
    assert (events(), len(read_master_keys(key_file))) == (dies_at != "everything", 2 if died else 1)
    if died:
        rotate(stores.db, progress=quiet, event=told)
    assert (events(), len(read_master_keys(key_file))) == (1, 1)
    rotate(stores.db, progress=quiet, event=told)
    first, second = (event.after or {} for event in stores.audit.list())
    assert (second["resealed"], len({first["key"], second["key"]})) == (10, 2)
    secrets.check(stores.db)


def test_the_draft_of_a_killed_rotation_is_no_obstacle_and_goes(
    stores: Stores, secrets: Secrets, key_file: Path
) -> None:
    key_file.with_name(".master.key.rotating").write_text("ab")
    rotate(stores.db, progress=quiet)
    assert not key_file.with_name(".master.key.rotating").exists()
    secrets.check(stores.db)


class Meddling(MasterKeys):
    """Keys that do something, once, when they are read next: between a row's being read and being sealed again."""

    todo: ClassVar[list[Callable[[], None]]] = []

    def read(self) -> tuple[bytes, ...]:
        if self.todo:
            self.todo.pop()()
        return super().read()


def test_a_row_changed_behind_the_rotation_keeps_its_change(
    stores: Stores, secrets: Secrets, key_file: Path, address: str | Path
) -> None:
    keys = Meddling(key_file)

    def step(text: str) -> None:
        if text.startswith("idempotency_keys"):
            keys.todo.append(lambda: stores.config_vars.update(secrets.app.id, "V2", value="changed"))

    with contextlib.closing(Database.open(address, master_keys=keys)) as rotator:
        assert rotate(rotator, progress=step).from_file
    assert not keys.todo
    assert stores.config_vars.list(secrets.app.id)["V2"] == "changed"


def test_two_rotations_of_one_file_do_not_meet(stores: Stores, secrets: Secrets, key_file: Path) -> None:
    with rotating(key_file), pytest.raises(StoreError, match="another secrets:rotate"):
        rotate(stores.db, progress=quiet)
    secrets.check(stores.db)


def test_a_key_file_that_cannot_be_written_changes_nothing(stores: Stores, secrets: Secrets, key_file: Path) -> None:
    before = sealed_of(stores.db)
    # A folder in the draft's place: no user, not even root, writes it.
    key_file.with_name(".master.key.rotating").mkdir()
    with pytest.raises(StoreError, match=r"master\.key: cannot be written"):
        rotate(stores.db, progress=quiet)
    assert sealed_of(stores.db) == before
    secrets.check(stores.db)


def test_a_secret_that_does_not_open_stops_the_rotation_and_keeps_the_old_key(
    stores: Stores, secrets: Secrets, key_file: Path
) -> None:
    store_version_1(stores.db, b"x" * 32, secrets.app.id, "V3", "lost")
    with pytest.raises(StoreError, match=rf"config_vars {secrets.app.id}/V3: .*old keys are kept"):
        rotate(stores.db, progress=quiet)
    assert len(read_master_keys(key_file)) == 2


def test_keys_that_the_settings_give_are_rotated_by_giving_both(
    stores: Stores, secrets: Secrets, key_file: Path, another: Open
) -> None:
    (old,), new = read_master_keys(key_file), new_master_key()
    both = another(new, old)
    secrets.check(both)
    assert rotate(both, progress=quiet) == Rotation(resealed=10, from_file=False)
    secrets.check(another(new))
    with pytest.raises(StoreError):
        _ = another(old).sealer


class Aborted(Exception):
    """The rotation dies here."""


class Interleaving(RuleBasedStateMachine):
    """Processes that set and read config vars, while rotations begin, go on step by step, die and begin again."""

    def __init__(self) -> None:
        super().__init__()
        self.scope = contextlib.ExitStack()
        folder = Path(self.scope.enter_context(tempfile.TemporaryDirectory()))
        self.path, self.key_file = folder / "penstock.db", folder / "master.key"
        self.pool = self.scope.enter_context(ThreadPoolExecutor(1))
        self.go: queue.Queue[bool] = queue.Queue()
        self.paused: queue.Queue[None] = queue.Queue()
        self.running: Future[Rotation] | None = None
        self.values: dict[str, str] = {}

    @initialize()
    def start(self) -> None:
        """Two processes, and a rotator that has yet to look at the key."""
        self.processes = [Stores(self.open()) for _ in range(2)]
        self.app_id = add_app(self.processes[0]).id
        self.rotator = self.open()
        _ = self.rotator.sealer

    def open(self) -> Database:
        return self.scope.enter_context(contextlib.closing(Database.open(self.path)))

    def step(self, _text: str) -> None:
        """Waits, in the rotation's thread, for what comes next."""
        self.paused.put(None)
        if not self.go.get():
            raise Aborted

    def until_paused(self) -> None:
        """Until the rotation waits again or has ended."""
        assert self.running is not None
        while True:
            with contextlib.suppress(queue.Empty):
                self.paused.get(timeout=0.01)
                return
            if self.running.done() and self.paused.empty():
                with contextlib.suppress(Aborted):
                    self.running.result()
                self.running = None
                return

    @rule(who=st.integers(0, 1), name=st.sampled_from("AB"), value=st.text(max_size=3))
    def set(self, who: int, name: str, value: str) -> None:
        """A process sets a config var."""
        self.processes[who].config_vars.update(self.app_id, name, value=value)
        self.values[name] = value

    @rule(name=st.sampled_from("AB"))
    def come_late(self, name: str) -> None:
        """A value that was sealed under the oldest key in use is stored now."""
        if name in self.values:
            key = read_master_keys(self.key_file)[-1]
            store_version_1(self.processes[0].db, key, self.app_id, name, self.values[name])

    @rule(who=st.integers(0, 1))
    def restart(self, who: int) -> None:
        """A process starts again and knows what the file says now."""
        self.processes[who] = Stores(self.open())

    @precondition(lambda self: self.running is None)
    @rule()
    def begin(self) -> None:
        """A rotation begins, or the one that died goes on."""
        self.running = self.pool.submit(rotate, self.rotator, progress=self.step, batch=1)
        self.until_paused()

    @precondition(lambda self: self.running is not None)
    @rule(lives=st.sampled_from([True, True, True, False]))
    def go_on(self, lives: bool) -> None:
        """The rotation makes its next step, or dies."""
        self.go.put(lives)
        self.until_paused()

    @invariant()
    def every_process_reads_every_secret(self) -> None:
        """What the whole is about."""
        for stores in getattr(self, "processes", []):
            assert stores.config_vars.list(self.app_id) == self.values

    def teardown(self) -> None:
        """Ends what is under way."""
        if self.running is not None:
            self.go.put(False)
        self.scope.close()


TestInterleaving = Interleaving.TestCase
TestInterleaving.settings = settings(
    max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
