"""The commands on the whole database and the master key, beside a server that runs and one that does not."""

from pathlib import Path

import pytest

from penstock.app.home import Home
from penstock.app.store import database_name, master_keys, other_database
from penstock.settings.load import load_settings
from penstock.store.database import Database
from penstock.store.errors import StoreError
from penstock.store.nouns.stores import Stores
from penstock.store.sealing import MasterKeys, new_master_key, read_master_keys
from tests.cli.program import Penstock
from tests.postgres import Postgres
from tests.server import running
from tests.store.nouns import add_all, add_app


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def stores(home: Path) -> Stores:
    """What the home of ``offline`` holds: one app with a key and a config var."""
    stores = Stores(Database.open(home / "penstock.db"))
    attachment = add_all(stores)
    stores.keys.add(attachment.id)
    stores.config_vars.update(attachment.app_id, "A", value="1")
    return stores


def apps_of(database: Path, home: Path) -> list[tuple[str, dict[str, str]]]:
    """The apps and their config vars that a database holds."""
    stores = Stores(Database.open(database, home=home))
    return [(app.name, stores.config_vars.list(app.id)) for app in stores.apps.list()]


def test_a_running_server_is_backed_up_and_its_key_rotated_but_nothing_is_put_under_it(tmp_path: Path) -> None:
    home, backup = tmp_path / "home", tmp_path / "b.db"
    with running(home, "--set", "engine.enabled=false") as server:
        server.cli("config:set", "A=1", "-a", "hello")
        assert "verified" in server.cli("backup", str(backup)).stderr
        old = (home / "master.key").read_text()
        key = server.config_var("hello", "INFERENCE_KEY")
        assert "sealed again" in server.cli("secrets:rotate").stderr
        assert (home / "master.key").read_text() != old
        assert server.config_var("hello", "INFERENCE_KEY") == key
        server.cli("config:set", "A=2", "-a", "hello")
        assert server.config_var("hello", "A") == "2"
        for command in (["restore", str(backup), "--force"], ["db:copy", "--to", str(tmp_path / "to.db")]):
            refused = server.cli(*command, check=False)
            assert (refused.returncode, refused.stdout) == (1, "")
            assert "another penstock serve" in refused.stderr
            assert "--home" not in refused.stderr
    assert "master key is not the one" in server.cli("restore", str(backup), "--force", check=False).stderr
    (home / "master.key").write_text(old)
    server.cli("restore", str(backup), "--force", "--confirm", "penstock.db")
    assert ("hello", {"A": "1"}) in apps_of(home / "penstock.db", home)


def test_a_restore_over_something_wants_force_and_the_name(offline: Penstock, stores: Stores, tmp_path: Path) -> None:
    backup = str(tmp_path / "b.db")
    offline.ok("backup", backup)
    add_app(stores, "late")
    assert "add --force" in offline.refused("restore", backup)
    assert "--confirm penstock.db" in offline.refused("restore", backup, "--force")
    assert "did not match" in offline.refused("restore", backup, "--force", "--confirm", "other.db")
    assert [app.name for app in stores.apps.list()] == ["late", "shop"]
    offline.ok("restore", backup, "--force", "--confirm", "penstock.db")
    assert [app.name for app in stores.apps.list()] == ["shop"]
    assert [event.action for event in stores.audit.list()] == ["database.restore"]


def test_a_restore_on_a_new_machine_wants_the_master_key_and_makes_none(
    offline: Penstock, stores: Stores, home: Path, tmp_path: Path
) -> None:
    offline.ok("backup", str(tmp_path / "b.db"))
    new = tmp_path / "new"
    elsewhere = offline.within(PENSTOCK_HOME=str(new))
    assert f"{new}/master.key is missing" in elsewhere.refused("restore", str(tmp_path / "b.db"))
    assert not (new / "master.key").exists()
    key = (home / "master.key").read_text().strip()
    elsewhere.within(PENSTOCK_SECRETS_MASTER_KEY=key).ok("restore", str(tmp_path / "b.db"))
    assert apps_of(new / "penstock.db", home) == [("shop", {"A": "1"})]


def test_a_restore_says_how_many_secrets_stay_shut(
    offline: Penstock, stores: Stores, home: Path, tmp_path: Path
) -> None:
    old = (home / "master.key").read_text()
    stores.config_vars.update(stores.apps.get("shop").id, "A", value="1")
    (home / "master.key").write_text(f"{new_master_key().hex()}\n{old}")
    stores.config_vars.update(stores.apps.get("shop").id, "B", value="2")
    offline.ok("backup", str(tmp_path / "b.db"))
    (home / "master.key").write_text(old)
    done = offline("restore", str(tmp_path / "b.db"), "--force", "--confirm", "penstock.db")
    assert done.returncode == 0
    assert "1 of 3 secrets do not open" in done.stderr


def test_a_move_prints_the_setting_and_takes_no_password(
    offline: Penstock, stores: Stores, home: Path, tmp_path: Path
) -> None:
    to = f"sqlite:///{tmp_path / 'moved.db'}"
    assert offline.ok("db:copy", "--to", to) == f"PENSTOCK_DATABASE_URL={to}"
    assert apps_of(tmp_path / "moved.db", home) == [("shop", {"A": "1"})]
    [event] = Stores(Database.open(tmp_path / "moved.db", home=home)).audit.list()
    assert (event.action, event.object_name, event.source) == ("database.copy", "penstock.db", "local")
    assert event.after
    assert event.after["rows"]["apps"] == 1
    assert stores.audit.list() == ()
    assert "not empty" in offline.refused("db:copy", "--to", to)
    for url in ("postgresql://me:hunter2@db.test/x", "postgresql://db.test/x?password=hunter2"):
        told = offline.refused("db:copy", "--to", url)
        assert "PGPASSWORD" in told
        assert "hunter2" not in told


def test_a_home_moves_to_postgresql_and_is_kept_there(
    offline: Penstock, stores: Stores, postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database(migrated=False).replace(":not-asked", "")
    offline.ok("db:copy", "--to", url)
    moved = offline.within(PENSTOCK_DATABASE_URL=url)
    backup = str(tmp_path / "b.db")
    moved.ok("secrets:rotate")
    moved.ok("backup", backup)
    name = moved.refused("restore", backup, "--force").rpartition("--confirm ")[2].strip()
    moved.ok("restore", backup, "--force", "--confirm", name)
    moved.ok("db:check")
    moved.ok("db:copy", "--to", f"sqlite:///{tmp_path / 'back.db'}")
    assert apps_of(tmp_path / "back.db", tmp_path / "home") == [("shop", {"A": "1"})]
    postgres.drop(url)


def test_where_the_server_has_another_database_its_key_is_not_rotated_and_nothing_else_backed_up(
    offline: Penstock, stores: Stores, home: Path, postgres: Postgres, tmp_path: Path
) -> None:
    url, config = postgres.new_database(migrated=False), tmp_path / "penstock.toml"
    offline.within(PGPASSWORD="not-asked").ok("db:copy", "--to", url.replace(":not-asked", ""))
    config.write_text(f'[database]\nurl = "{url}"\n')
    key = (home / "master.key").read_text()
    with running(home, "--config", str(config), "--set", "engine.enabled=false"):
        for command in (["secrets:rotate"], ["backup", str(tmp_path / "b.db")]):
            told = offline.refused(*command)
            assert "set PENSTOCK_DATABASE_URL" in told
            assert f"the settings here name {home}/penstock.db" in told
            assert told.count("\n") <= 2
            assert "not-asked" not in told
        assert (home / "master.key").read_text() == key
        assert not (tmp_path / "b.db").exists()
        there = offline.within(PENSTOCK_DATABASE_URL=url)
        assert f"Backing up postgresql://{url.partition('host=')[2]}" in there("backup", str(tmp_path / "b.db")).stderr
        there.ok("secrets:rotate")
    assert (home / "master.key").read_text() != key
    note = home / "database"
    assert note.stat().st_mode & 0o777 == 0o600
    assert "not-asked" not in note.read_text()
    assert "Warning: The server of this home uses postgresql://" in offline("restore", str(tmp_path / "b.db")).stderr
    config.write_text(f'[database]\nurl = "sqlite:///{tmp_path / "new.db"}"\n')
    with running(home, "--config", str(config), "--set", "engine.enabled=false"):
        offline.within(PENSTOCK_DATABASE_URL=str(tmp_path / "new.db")).ok("secrets:rotate")
    postgres.drop(url)


def test_the_commands_that_only_look_warn_and_go_on(offline: Penstock, stores: Stores, home: Path) -> None:
    for command in ("db:check", "db:upgrade"):
        assert "Warning" not in offline(command).stderr
    Home(str(home)).note_database("/elsewhere.db")
    for command in ("db:check", "db:upgrade"):
        done = offline(command)
        assert done.returncode == 0
        assert str(home / "penstock.db") in done.stdout
        assert f"uses /elsewhere.db, and the settings here name {home}/penstock.db" in done.stderr
    assert "uses /elsewhere.db" in offline("db:copy", "--to", f"sqlite:///{home / 'copy.db'}").stderr


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("", "sqlite:///{home}/penstock.db", True),
        ("postgres://me:pw@db.test/x", "postgresql://you@db.test:5432/x?sslmode=require", True),
        ("postgresql:///x?host=/run/pg&port=5433", "postgresql:///x?host=/run/pg&port=5433", True),
        ("postgresql:///x?host=/run/pg&port=5433", "postgresql:///x?host=/run/pg", False),
        ("postgresql://db.test/x", "postgresql://db.test:5433/x", False),
        ("postgresql://db.test/x", "postgresql://db.test/y", False),
        ("postgresql://db.test/x", "", False),
    ],
)
def test_a_database_is_known_by_host_port_and_name(one: str, other: str, same: bool, tmp_path: Path) -> None:
    served, configured = (
        load_settings(environ={"PENSTOCK_HOME": str(tmp_path), "PENSTOCK_DATABASE_URL": url.format(home=tmp_path)})
        for url in (one, other)
    )
    assert other_database(configured) is None
    Home(str(tmp_path)).note_database(database_name(served))
    assert (other_database(configured) is None) is same
    assert other_database(served) is None


def test_a_home_that_was_moved_still_has_its_database(offline: Penstock, stores: Stores, home: Path) -> None:
    Home(str(home)).note_database(database_name(load_settings(environ={"PENSTOCK_HOME": str(home)})))
    stores.db.close()
    moved = home.rename(home.with_name("moved"))
    offline.within(PENSTOCK_HOME=str(moved)).ok("secrets:rotate")


def test_a_rotation_names_the_file_to_keep_before_it_begins(offline: Penstock, stores: Stores, home: Path) -> None:
    told = offline("secrets:rotate").stderr
    assert "Keep a copy" in told
    assert 0 < told.index(str(home / "master.key")) < told.index("Rotating")


def test_a_backup_whose_secrets_the_master_key_does_not_open_says_so(
    offline: Penstock, stores: Stores, home: Path, tmp_path: Path
) -> None:
    done = offline("backup", str(tmp_path / "b0.db"))
    assert f"Backing up {home}/penstock.db to" in done.stderr
    assert "Warning" not in done.stderr
    (home / "master.key").write_text(new_master_key().hex())
    done = offline("backup", str(tmp_path / "b1.db"))
    assert done.returncode == 0
    assert "2 of its 2 secrets do not open" in done.stderr
    (home / "master.key").unlink()
    assert "master.key is missing" in offline("backup", str(tmp_path / "b2.db")).stderr
    assert not (home / "master.key").exists()


def test_a_key_moves_from_the_file_to_the_environment_by_a_rotation(
    offline: Penstock, stores: Stores, home: Path, tmp_path: Path
) -> None:
    new, old = new_master_key(), read_master_keys(home / "master.key")[0]
    given = offline.within(PENSTOCK_SECRETS_MASTER_KEY=new.hex())
    assert "does not open" in given.refused("secrets:rotate")
    given.within(PENSTOCK_SECRETS_OLD_MASTER_KEY=old.hex()).ok("secrets:rotate")
    (home / "master.key").write_text(new.hex())
    assert apps_of(home / "penstock.db", home) == [("shop", {"A": "1"})]


def test_the_settings_say_where_the_master_keys_are(tmp_path: Path) -> None:
    key, environ = "5e" * 32, {"PENSTOCK_HOME": str(tmp_path)}

    def keys(**more: str) -> MasterKeys:
        return master_keys(load_settings(environ=environ | {f"PENSTOCK_SECRETS_{name}": v for name, v in more.items()}))

    assert keys().path == tmp_path / "master.key"
    assert keys(MASTER_KEY_FILE="/run/secrets/key").path == Path("/run/secrets/key")
    assert keys(MASTER_KEY=key, OLD_MASTER_KEY="01" * 32).given == (b"\x5e" * 32, b"\x01" * 32)
    for wrong in (
        {"MASTER_KEY": "5e"},
        {"MASTER_KEY": key, "OLD_MASTER_KEY": "5e"},
        {"OLD_MASTER_KEY": key},
        {"MASTER_KEY": key, "MASTER_KEY_FILE": "/run/secrets/key"},
    ):
        with pytest.raises(StoreError, match=r"secrets\.") as caught:
            keys(**wrong)
        assert "5e" not in str(caught.value)
