"""Opening a database, its transactions, and what happens when it cannot be used."""

import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from penstock.domain.errors import PenstockError
from penstock.store.database import Database
from penstock.store.errors import StoreError
from penstock.store.nouns.stores import Stores
from tests.postgres import Postgres
from tests.store.nouns import add_app


def refusal(path: Path | str) -> str:
    """The message of a database that cannot be opened: one line that names it."""
    with pytest.raises(StoreError) as caught:
        Database.open(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pragma(db: Database, name: str) -> object:
    """A setting of a pooled connection."""
    with db.read() as connection:
        return connection.execute(text(f"PRAGMA {name}")).scalar_one()


def test_a_new_database_is_for_its_owner_only(tmp_path: Path) -> None:
    add_app(Stores(Database.open(tmp_path / "penstock.db")))
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("penstock.db*")} == {0o600}


def test_connections_use_wal_foreign_keys_and_full_sync(tmp_path: Path) -> None:
    db = Database.open(tmp_path / "penstock.db")
    found = [pragma(db, name) for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")]
    assert found == ["wal", 1, 2, 5000]


def test_a_url_and_a_path_open_the_same_file(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "a%20 b.db"
    add_app(Stores(Database.open(file)))
    assert Stores(Database.open(str(file))).apps.find("shop") is not None
    plain = tmp_path / "plain.db"
    add_app(Stores(Database.open(f"sqlite:///{plain}")))
    assert Stores(Database.open(plain)).apps.find("shop") is not None


def test_a_newer_schema_is_refused_and_left_alone(address: Path | str, tmp_path: Path) -> None:
    db = Database.open(address, home=tmp_path)
    with db.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    message = refusal(address)
    assert db.label in message
    assert "9999" in message
    assert "newer" in message
    with db.read() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all() == ["9999"]
    db.close()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "penstock.db"
    path.write_bytes(b"something else " * 1000)
    assert str(path) in refusal(path)
    assert path.read_bytes() == b"something else " * 1000


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "penstock.db"
    Database.open(path).close()
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xaa" * 3996
    path.write_bytes(content)
    assert str(path) in refusal(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "directory" in refusal(tmp_path)


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "://", "nosuch://host/db", "postgresql+other://host/db", "postgresql://h:x/db"],
)
def test_a_url_that_cannot_work_is_refused(url: str) -> None:
    assert "database.url" in refusal(url)


@pytest.mark.parametrize(
    "url",
    [
        "nosuch://me:hunter2@host/db",
        "postgresql://me:hunter2@127.0.0.1:1/db",
        "postgres://me:hunter2@127.0.0.1:1/db?sslmode=require",
        "postgresql://127.0.0.1:1/db?user=me&password=hunter2",
        "postgresql://me:hunter2@127.0.0.1:1/db?sslmode=sometimes",
        "postgresql://me:hunter2@127.0.0.1:1/db?no_such_option=1",
        "postgresql://me:hunter2@127.0.0.1:port/db",
    ],
)
def test_a_refused_url_does_not_show_its_password(url: str) -> None:
    assert "hunter2" not in refusal(url)


@pytest.mark.parametrize("url", ["sqlite:///tmp/x.db", "sqlite+pysqlite:///x.db", "x.db"])
def test_a_relative_path_is_refused_with_the_way_to_write_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    assert "four slashes: sqlite:////" in refusal(url)
    assert [*tmp_path.rglob("*.db")] == []


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_does_not_hold_all_characters_is_refused(postgres: Postgres, encoding: str) -> None:
    url = postgres.new_database(migrated=False, encoding=encoding)
    message = refusal(url)
    assert f"ENCODING '{encoding}'" in message
    assert "ENCODING 'UTF8'" in message
    postgres.drop(url)


def test_a_client_encoding_from_elsewhere_changes_nothing(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_database()
    monkeypatch.setenv("PGCLIENTENCODING", "SQL_ASCII")
    assert add_app(Stores(Database.open(url, home=tmp_path)), "caf").name == "caf"


def test_several_processes_can_open_a_new_database_at_once(address: Path | str, tmp_path: Path) -> None:
    code = (
        "import sys; from penstock.store.database import Database; from penstock.store.nouns.keys import KeyStore; "
        "from pathlib import Path; db = Database.open(sys.argv[1], home=Path(sys.argv[2])); db.sealer; "
        "print(KeyStore(db).revision())"
    )
    command = [sys.executable, "-c", code, str(address), str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    results = [(*process.communicate(timeout=60), process.returncode) for process in started]
    assert results == [(b"0\n", b"", 0)] * 4


def test_an_exception_rolls_all_of_a_write_back(stores: Stores) -> None:
    with pytest.raises(KeyError), stores.db.write():  # noqa: PT012 - the block is the transaction
        add_app(stores)
        raise KeyError
    assert stores.apps.list() == ()


def test_nested_transactions_are_one(stores: Stores) -> None:
    with pytest.raises(KeyError), stores.db.write():  # noqa: PT012 - the block is the transaction
        with stores.db.write():
            add_app(stores)
        with stores.db.read():
            assert stores.apps.find("shop") is not None
        raise KeyError
    assert stores.apps.list() == ()


def test_a_write_inside_a_read_is_a_mistake_that_shows(stores: Stores) -> None:
    with pytest.raises(RuntimeError), stores.db.read():
        add_app(stores)


def test_a_read_sees_one_state_while_others_write(stores: Stores) -> None:
    with ThreadPoolExecutor(1) as other, stores.db.read():
        assert stores.apps.list() == ()
        other.submit(add_app, stores).result(30)
        assert stores.apps.list() == ()
    assert len(stores.apps.list()) == 1


def test_many_threads_write_one_after_the_other(stores: Stores) -> None:
    app = add_app(stores)
    with ThreadPoolExecutor(32) as pool:
        made = list(
            pool.map(lambda _: stores.releases.add(app.id, description="x", user_email="o@example.com"), range(100))
        )
    assert sorted(release.version for release in made) == list(range(1, 101))


def test_a_locked_file_is_unavailable_not_stuck(tmp_path: Path) -> None:
    stores = Stores(Database.open(tmp_path / "penstock.db"))
    other = sqlite3.connect(tmp_path / "penstock.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(PenstockError) as caught:
        add_app(stores)
    other.execute("ROLLBACK")
    assert (caught.value.code, caught.value.retry_after_s) == ("store_unavailable", 1)
    assert add_app(stores)


def test_what_is_left_to_the_commit_runs_last_once_and_with_its_transaction(stores: Stores) -> None:
    done: list[str] = []
    with stores.db.write():
        stores.db.at_commit(lambda _: done.append("last"))
        with stores.db.write():
            add_app(stores)
        done.append("first")
    add_app(stores, "other")
    assert done == ["first", "last"]
    with pytest.raises(KeyError), stores.db.write():  # noqa: PT012 - the block is the transaction
        stores.db.at_commit(lambda _: done.append("never"))
        raise KeyError
    add_app(stores, "third")
    assert done == ["first", "last"]


def test_only_a_write_has_something_left_to_its_commit(stores: Stores) -> None:
    with pytest.raises(RuntimeError), stores.db.read():
        stores.db.at_commit(lambda _: None)
