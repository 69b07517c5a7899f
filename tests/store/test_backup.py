"""Backups, restores and moves of the whole database, from either product to either, while others write."""

import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, select
from sqlalchemy.exc import DBAPIError

from penstock.domain.access import Role
from penstock.domain.ids import new_operator_token, secret_hash
from penstock.domain.limits import Scope
from penstock.domain.platform import AuditEvent
from penstock.store.database import Database
from penstock.store.errors import InvalidValueError, StoreError
from penstock.store.migrate import MIGRATIONS
from penstock.store.nouns.stores import Stores
from penstock.store.schema import apps, key_changes, key_revision, metadata, releases
from penstock.store.sealing import MasterKeys, new_master_key
from penstock.store.upkeep.backup import count_unopened, opened_backup, restore, seal_file, write_backup
from penstock.store.upkeep.check import check
from penstock.store.upkeep.copy import Contents, copy_database, read_contents
from tests.store.nouns import add_addon, add_all, add_app, add_attachment, add_governance, audit_event, limit_of

EVENT = audit_event("database.restore")


@pytest.fixture
def other(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A second, empty database, of the other product."""
    folder = tmp_path / "other"
    if kind == "postgresql":
        with closing(Database.open(folder / "other.db", home=tmp_path)) as database:
            yield database
        return
    server = request.getfixturevalue("postgres")
    url = server.new_database()
    with closing(Database.open(url, home=tmp_path)) as database:
        yield database
    server.drop(url)


def fill(stores: Stores) -> None:
    """At least one row in every table, and every type of value."""
    owner = stores.operators.add("o@example.com", role=Role.OWNER)
    token = new_operator_token()
    stores.operators.add_token(owner.id, secret_hash(token), prefix=token, description="t")
    app = add_app(stores, owner=owner)
    attachment = add_attachment(stores, app, add_addon(stores, app))
    expires_at = datetime.now(UTC) + timedelta(days=1)
    stores.keys.add(attachment.id)
    stores.keys.add(attachment.id, extra=True, models=("a", "b"), expires_at=expires_at)
    stores.config_vars.update(app.id, "A", value="ä\n")
    stores.releases.add(app.id, description="Set A", user_email="o@example.com")
    member = stores.operators.add("m@example.com", role=Role.MEMBER)
    stores.collaborators.put(app.id, member.id, role=Role.VIEWER)
    for number in range(3):
        stores.audit.add(audit_event(f"app.{number}", app))
    stores.idempotency.claim(owner.id, "k", b"f" * 32)
    stores.idempotency.update(owner.id, "k", status=201, body="{}")
    stores.credentials.put("double", "sk-1", by="o@example.com")
    add_governance(stores, attachment)


def contents(db: Database) -> Contents:
    """What a database holds."""
    with db.read() as connection:
        return read_contents(connection)


def restored(backup: Path, db: Database, event: AuditEvent = EVENT) -> Contents:
    """Restores, as the command does."""
    with opened_backup(backup) as opened:
        return restore(opened, db, event=event)


def refusal(backup: Path) -> str:
    """Why a file is not restored: one line that names it."""
    with pytest.raises(StoreError) as caught, opened_backup(backup):
        pass
    assert "\n" not in str(caught.value)
    assert str(backup) in str(caught.value)
    return str(caught.value)


def assert_append_only(db: Database) -> None:
    """The audit log takes rows and gives none away."""
    Stores(db).audit.add(audit_event("app.later"))
    for statement in ("DELETE FROM audit_events", "UPDATE audit_events SET action = 'x'"):
        with pytest.raises(DBAPIError, match="append-only"), db.write() as connection:
            connection.exec_driver_sql(statement)


def test_a_backup_holds_every_table_for_its_owner_only(stores: Stores, tmp_path: Path) -> None:
    fill(stores)
    written = write_backup(stores.db, tmp_path / "b.db")
    assert written == contents(stores.db)
    assert set(written.rows) == set(metadata.tables)
    assert all(written.rows.values())
    assert stat.S_IMODE((tmp_path / "b.db").stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir() if "b.db" in path.name} == {"b.db"}
    with opened_backup(tmp_path / "b.db") as backup:
        assert contents(backup.database) == written
        assert backup.taken_at <= datetime.now(UTC)


def test_a_backup_opens_where_nothing_can_be_written(stores: Stores, tmp_path: Path) -> None:
    fill(stores)
    write_backup(stores.db, tmp_path / "b.db")
    with closing(sqlite3.connect(f"file:{tmp_path / 'b.db'}?immutable=1", uri=True)) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert raw.execute("SELECT name FROM apps").fetchall() == [("shop",)]


def test_a_file_that_exists_is_not_written_over(stores: Stores, tmp_path: Path) -> None:
    (tmp_path / "b.db").write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        write_backup(stores.db, tmp_path / "b.db")
    assert (tmp_path / "b.db").read_text() == "mine"
    with pytest.raises(StoreError, match="no such folder"):
        write_backup(stores.db, tmp_path / "none" / "b.db")


def test_a_restore_brings_everything_back_on_the_other_product(stores: Stores, other: Database, tmp_path: Path) -> None:
    fill(stores)
    taken = write_backup(stores.db, tmp_path / "b.db")
    assert restored(tmp_path / "b.db", other) == taken
    for table in ("apps", "api_keys", "config_vars", "operators", "operator_tokens", "collaborators", "credentials"):
        assert contents(other).rows[table] == taken.rows[table]
    there = Stores(other)
    app = there.apps.get("shop")
    assert app == stores.apps.get("shop")
    assert there.keys.list(app_id=app.id) == stores.keys.list(app_id=app.id)
    assert there.config_vars.list(app.id) == {"A": "ä\n"}
    assert there.credentials.values() == {"double": "sk-1"}
    assert_append_only(other)


def test_a_restore_replaces_what_was_there_and_says_so_in_the_audit_log(stores: Stores, tmp_path: Path) -> None:
    fill(stores)
    write_backup(stores.db, tmp_path / "b.db")
    late = add_all(stores, "late")
    stores.keys.add(late.id)
    for number in range(5):
        stores.audit.add(audit_event(f"late.{number}"))
    restored(tmp_path / "b.db", stores.db)
    assert [app.name for app in stores.apps.list()] == ["shop"]
    events = stores.audit.list()
    assert [event.action for event in events] == ["app.0", "app.1", "app.2", "database.restore"]
    # The numbers of the events that are gone are not given again.
    assert [event.seq for event in events] == [1, 2, 3, 9]
    assert events[-1].before is not None
    assert events[-1].before["rows"]["audit_events"] == 8
    assert_append_only(stores.db)
    assert stores.audit.list()[-1].seq == 10


def test_after_a_restore_every_follower_forgets_what_it_knew(stores: Stores, tmp_path: Path) -> None:
    attachment = add_all(stores)
    stores.keys.add(attachment.id)
    write_backup(stores.db, tmp_path / "b.db")
    for _ in range(5):
        stores.keys.touch(attachment.app_id)
    stores.limits.put(limit_of(Scope.MODEL, "m"))
    old, shared = stores.keys.revision(), stores.governance.revision()
    restored(tmp_path / "b.db", stores.db)
    now = stores.keys.revision()
    assert stores.governance.revision() > shared
    for revision in range(old + 1):
        assert stores.keys.changes_since(revision) == (now, None)
    assert stores.keys.changes_since(now) == (now, [])
    stores.keys.touch(attachment.app_id)
    assert stores.keys.changes_since(old) == (now + 1, None)
    assert stores.keys.changes_since(now)[1] == [secret_hash(stores.keys.list()[0].secret)]
    assert check(stores.db).problems == ()


def test_a_restore_that_fails_leaves_the_old_state(stores: Stores, tmp_path: Path) -> None:
    fill(stores)
    write_backup(stores.db, tmp_path / "b.db")
    add_app(stores, "late")
    before = contents(stores.db)
    with opened_backup(tmp_path / "b.db") as backup:
        with backup.database.write() as connection:
            connection.exec_driver_sql("UPDATE config_vars SET name = printf('%300d', 1)")
        with pytest.raises(InvalidValueError):
            restore(backup, stores.db, event=EVENT)
    assert contents(stores.db) == before
    assert_append_only(stores.db)


def test_files_that_are_no_whole_backup_are_refused(stores: Stores, tmp_path: Path) -> None:
    fill(stores)
    write_backup(stores.db, tmp_path / "b.db")
    whole = (tmp_path / "b.db").read_bytes()
    bad = tmp_path / "bad.db"
    at = whole.index(b"Set A")
    for content in (b"", b"noise" * 999, whole[: len(whole) // 2], whole[:at] + b"Set B" + whole[at + 5 :]):
        bad.write_bytes(content)
        assert "not a backup" in (said := refusal(bad)) or "damaged" in said
        assert bad.read_bytes() == content
    assert "No such file" in refusal(tmp_path / "none.db")
    plain = tmp_path / "plain.db"
    Database.open(plain).close()
    assert "not a backup" in refusal(plain)


def test_a_newer_backup_is_refused(stores: Stores, tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    write_backup(stores.db, path)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
        raw.execute("DROP TABLE penstock_backup")
        raw.commit()
    seal_file(path)
    assert "schema 9999, newer" in refusal(path)


def test_an_older_backup_is_brought_to_this_schema_and_itself_left_alone(stores: Stores, tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(f"sqlite:///{path}")
    at = "2026-11-22 12:00:00.000000"
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(f"INSERT INTO operators VALUES ('o1', 'o@example.com', '{at}')")
        values = f"'a1', 'mine', 'o@example.com', 'us', 'heroku-24', 1, '{at}', '{at}'"
        connection.exec_driver_sql(f"INSERT INTO apps VALUES ({values})")
    engine.dispose()
    seal_file(path)
    content = path.read_bytes()
    restored(path, stores.db)
    assert [(app.name, app.owner_id) for app in stores.apps.list()] == [("mine", "o1")]
    assert path.read_bytes() == content


def test_a_backup_tells_how_many_of_its_secrets_a_master_key_opens(stores: Stores, tmp_path: Path) -> None:
    fill(stores)
    write_backup(stores.db, tmp_path / "b.db")
    keys = stores.db.master_keys
    assert keys is not None
    with opened_backup(tmp_path / "b.db") as backup:
        assert count_unopened(backup.database, keys) == (0, 6)
        assert count_unopened(backup.database, MasterKeys(given=(new_master_key(),))) == (6, 6)
        with pytest.raises(StoreError, match="missing"):
            count_unopened(backup.database, MasterKeys(tmp_path / "none.key"))
    assert not (tmp_path / "none.key").exists()


def test_a_copy_holds_the_same_and_goes_on(stores: Stores, other: Database) -> None:
    fill(stores)
    before = contents(stores.db)
    assert copy_database(stores.db, other) == before == contents(other)
    assert check(other).problems == ()
    there = Stores(other)
    assert there.keys.revision() == stores.keys.revision()
    assert_append_only(other)
    assert [event.seq for event in there.audit.list()] == [1, 2, 3, 4]
    with pytest.raises(StoreError, match="not empty"):
        copy_database(stores.db, other)


def test_a_backup_under_writes_is_one_consistent_state(stores: Stores, other: Database, tmp_path: Path) -> None:
    done, made = threading.Event(), threading.Semaphore(0)

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            with stores.db.write():
                attachment = add_all(stores, f"app-{number}")
                stores.keys.add(attachment.id)
                stores.keys.add(attachment.id, extra=True)
                stores.releases.add(attachment.app_id, description="x", user_email="o@example.com")
                stores.audit.add(audit_event("app.create"))
            made.release()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        sizes = []
        for number in range(3):
            for _ in range(5):
                assert made.acquire(timeout=60)
            write_backup(stores.db, tmp_path / f"{number}.db")
            sizes.append(check_one_state(tmp_path / f"{number}.db"))
    finally:
        done.set()
        writer.join(60)
    assert sizes == sorted(set(sizes))
    restored(tmp_path / "2.db", other)
    assert len(Stores(other).apps.list()) == sizes[-1]


def check_one_state(path: Path) -> int:
    """Every app of the backup is whole, and the counters say what the rows say. How many there are."""
    with opened_backup(path) as backup, backup.database.read() as connection:
        found = contents(backup.database).rows
        versions = connection.execute(select(apps.c.last_version)).scalars().all()
        numbers = connection.execute(select(releases.c.version)).scalars().all()
        changes = connection.execute(select(key_changes.c.revision).order_by(key_changes.c.revision)).scalars().all()
        now, pruned_to = connection.execute(select(key_revision.c.revision, key_revision.c.pruned_to)).one()
    assert versions == numbers == [1] * found["apps"]
    assert changes == list(range(pruned_to + 1, now + 1))
    assert found["api_keys"] == now == 2 * found["apps"]
    assert found["apps"] == found["addons"] == found["attachments"] == found["audit_events"]
    return found["apps"]
