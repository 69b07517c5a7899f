"""Transactions that meet: what each database has to promise to the noun stores, whichever it is."""

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest
from sqlalchemy import Connection, select

from penstock.domain.ids import new_id
from penstock.store.database import Database
from penstock.store.engines.postgresql import LOCK_S
from penstock.store.errors import NameTakenError, RetryableError
from penstock.store.nouns.stores import Stores
from penstock.store.schema import key_changes
from tests.store.nouns import NOW, add_addon, add_all, add_app, add_attachment, audit_event

_PROCESSES = 3
_EACH = 40


def test_key_changes_of_many_processes_are_numbered_without_a_gap_and_none_is_missed(
    address: str | Path, tmp_path: Path
) -> None:
    stores = Stores(Database.open(address, home=tmp_path))
    app = add_all(stores).app_id
    stores.keys.add(stores.attachments.list(app_id=app)[0].id)
    code = (
        "import sys; from pathlib import Path; from penstock.store.database import Database; "
        "from penstock.store.nouns.keys import KeyStore; keys = KeyStore(Database.open(sys.argv[1], "
        "home=Path(sys.argv[2]))); sys.stdin.read(); [keys.touch(sys.argv[3]) for _ in range(int(sys.argv[4]))]"
    )
    command = [sys.executable, "-c", code, str(address), str(tmp_path), app, str(_EACH)]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(_PROCESSES)]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
    seen, at = 0, 1
    while at < 1 + _PROCESSES * _EACH:
        now, hashes = stores.keys.changes_since(at)
        assert hashes is not None
        assert len(hashes) == now - at
        seen, at = seen + len(hashes), now
    assert [process.wait(60) for process in started] == [0] * _PROCESSES
    assert seen == _PROCESSES * _EACH
    with stores.db.read() as connection:
        numbers = connection.execute(select(key_changes.c.revision).order_by(key_changes.c.revision)).scalars().all()
    assert list(numbers) == list(range(1, 2 + _PROCESSES * _EACH))
    stores.db.close()


def test_a_change_is_seen_only_when_all_changes_before_it_are(stores: Stores) -> None:
    attachment = add_all(stores)
    written, let_go = Event(), Event()

    def hold(_: Connection) -> None:
        written.set()
        assert let_go.wait(30)

    def first() -> None:
        with stores.db.write():
            stores.keys.add(attachment.id)
            # Between the change's number and its commit.
            stores.db.at_commit(hold)

    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(first)
        assert written.wait(30)
        fast = pool.submit(stores.keys.add, attachment.id)
        assert stores.keys.changes_since(0) == (0, [])
        let_go.set()
        slow.result(30)
        fast.result(30)
    now, hashes = stores.keys.changes_since(0)
    assert (now, len(hashes or [])) == (2, 2)


def test_who_follows_the_audit_log_by_number_misses_no_event(stores: Stores) -> None:
    written, let_go = Event(), Event()

    def hold(_: Connection) -> None:
        written.set()
        assert let_go.wait(30)

    def first() -> None:
        with stores.db.write():
            stores.audit.add(audit_event("app.first"))
            # Between the event's number and its commit.
            stores.db.at_commit(hold)

    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(first)
        assert written.wait(30)
        fast = pool.submit(stores.audit.add, audit_event("app.second"))
        assert stores.audit.list() == ()
        let_go.set()
        slow.result(30)
        fast.result(30)
    assert [event.action for event in stores.audit.list()] == ["app.first", "app.second"]


def test_a_lost_race_is_run_again_from_its_start(postgres_stores: Stores) -> None:
    stores = postgres_stores
    apps = [add_app(stores, name) for name in ("one", "two")]
    barrier, runs = Barrier(2), []

    def cross(first: int) -> None:
        def change() -> None:
            runs.append(first)
            with stores.db.write():
                stores.apps.update(apps[first].id, updated_at=NOW)
                if len(runs) <= 2:
                    barrier.wait(30)
                stores.releases.add(apps[1 - first].id, description="x", user_email="x")

        stores.db.retrying(change)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(cross, (0, 1)))
    assert len(runs) == 3
    assert [len(stores.releases.list(app.id)) for app in apps] == [1, 1]


def test_what_refers_to_an_object_that_went_away_meanwhile_has_lost_a_race(postgres_stores: Stores) -> None:
    stores = postgres_stores
    app, other = add_app(stores), add_app(stores, "other")
    addon = add_addon(stores, app)
    removed = Event()

    def remove() -> None:
        with stores.db.write():
            stores.addons.remove(addon.id)
            removed.set()

    with ThreadPoolExecutor(1) as pool, pytest.raises(RetryableError), stores.db.write():  # noqa: PT012 - the race
        assert stores.addons.find(addon.id) is not None
        pool.submit(remove).result(30)
        add_attachment(stores, other, addon)
    assert stores.attachments.list() == ()


def losing(runs: list[int], before: Callable[[], object] = lambda: None) -> Callable[[], None]:
    """An act that always loses, and counts."""

    def act() -> None:
        runs.append(1)
        before()
        raise RetryableError

    return act


def test_who_lost_once_is_not_run_a_third_time(stores: Stores) -> None:
    runs: list[int] = []
    with pytest.raises(RetryableError):
        stores.db.retrying(losing(runs))
    assert len(runs) == 2


def test_who_lost_once_then_writes_alone(postgres_stores: Stores) -> None:
    stores = postgres_stores
    runs: list[int] = []
    with ThreadPoolExecutor(1) as pool:

        def act() -> None:
            runs.append(1)
            with stores.db.write() as connection:
                if len(runs) == 1:
                    raise RetryableError
                pool.submit(add_app, stores)
                waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                deadline = time.monotonic() + LOCK_S
                while not connection.exec_driver_sql(waiting).scalar_one():
                    assert time.monotonic() < deadline, "the other writer did not wait"
                assert stores.apps.find("shop") is None

        stores.db.retrying(act)
    assert stores.apps.find("shop") is not None


def test_nothing_is_run_again_inside_a_transaction_or_after_a_commit(stores: Stores) -> None:
    runs: list[int] = []
    with pytest.raises(RetryableError), stores.db.write():
        stores.db.retrying(losing(runs))
    assert len(runs) == 1
    with pytest.raises(RetryableError):
        stores.db.retrying(losing(runs, lambda: add_app(stores, new_id()[:30])))
    assert len(runs) == 2


def test_two_creates_of_one_name_have_one_winner(stores: Stores) -> None:
    barrier = Barrier(8)

    def create(_: int) -> bool:
        barrier.wait(30)
        try:
            add_app(stores, "contested")
        except NameTakenError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(create, range(8))) == [False] * 7 + [True]
