"""The commands on the whole database and the master key, beside a server that runs and one that does not."""

from pathlib import Path

import pytest

from penstock.app.home import master_keys
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
