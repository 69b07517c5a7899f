"""What db:check finds in a database that is not sound, on each database."""

from pathlib import Path

import pytest

from penstock.store.database import Database
from penstock.store.errors import StoreError
from penstock.store.nouns.stores import Stores
from penstock.store.schema import REVISIONS
from penstock.store.upkeep.check import Report, check
from tests.store.nouns import add_all, add_app


@pytest.fixture
def filled(stores: Stores) -> Stores:
    """One of each: an app, an add-on, an attachment, a key and a config var."""
    attachment = add_all(stores)
    stores.keys.add(attachment.id)
    stores.config_vars.update(attachment.app_id, "A", value="1")
    return stores


def run(stores: Stores, *statements: str) -> Report:
    """The report after the statements, for which references are not looked at."""
    if stores.db.label.endswith(".db"):
        import sqlite3

        raw = sqlite3.connect(stores.db.label)
        for statement in statements:
            raw.execute(statement)
        raw.commit()
        raw.close()
    else:
        with stores.db.write() as connection:
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
            for statement in statements:
                connection.exec_driver_sql(statement)
    return check(stores.db)


def test_a_sound_database_has_no_problems_and_its_rows_counted(filled: Stores) -> None:
    report = check(filled.db)
    assert report.problems == ()
    assert report.schema == report.needs == REVISIONS[-1]
    assert {name: report.rows[name] for name in ("apps", "addons", "api_keys", "config_vars", "releases")} == {
        "apps": 1,
        "addons": 1,
        "api_keys": 1,
        "config_vars": 1,
        "releases": 0,
    }


def test_what_refers_to_nothing_is_told_with_its_number(filled: Stores) -> None:
    (problem,) = run(filled, "DELETE FROM attachments").problems
    assert problem == "1 rows of api_keys have a attachment_id that is not in attachments"


def test_a_table_that_is_missing_is_told(filled: Stores) -> None:
    report = run(filled, "DROP TABLE releases")
    assert report.problems == ("table releases is missing",)


@pytest.mark.parametrize(
    "statement", ["DELETE FROM key_changes", "DELETE FROM key_revision", "UPDATE key_revision SET revision = 7"]
)
def test_key_changes_that_do_not_add_up_are_told(filled: Stores, statement: str) -> None:
    (problem,) = run(filled, statement).problems
    assert "key_" in problem


@pytest.mark.parametrize(("version", "told"), [("0001", "db:upgrade"), ("9999", "newer")])
def test_another_schema_is_told_with_the_remedy(filled: Stores, version: str, told: str) -> None:
    report = run(filled, f"UPDATE alembic_version SET version_num = '{version}'")
    assert (report.schema, report.rows) == (version, {})
    assert told in report.problems[0]


def test_a_database_without_a_schema_is_left_alone(address: Path | str, tmp_path: Path) -> None:
    if isinstance(address, Path):
        address.touch()
    db = Database.open(address, home=tmp_path, upkeep=True)
    assert db.found is None
    assert "db:upgrade" in check(db).problems[0]
    assert check(db).schema is None
    db.close()


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        Database.open(tmp_path / "penstock.db", upkeep=True)
    assert not (tmp_path / "penstock.db").exists()


def test_a_master_key_that_does_not_open_the_secrets_is_told(filled: Stores, tmp_path: Path) -> None:
    (tmp_path / "master.key").write_text("ab" * 32)
    del filled.db.sealer
    (problem,) = check(filled.db).problems
    assert "master" in problem
    (tmp_path / "master.key").unlink()
    (problem,) = check(filled.db).problems
    assert "missing" in problem
    assert not (tmp_path / "master.key").exists()


def test_a_damaged_page_is_told(tmp_path: Path) -> None:
    path = tmp_path / "penstock.db"
    stores = Stores(Database.open(path))
    for number in range(300):
        add_app(stores, f"app-{number}")
    stores.db.close()
    content = bytearray(path.read_bytes())
    content[-8192:-4096] = b"\xaa" * 4096
    path.write_bytes(content)
    report = check(Database.open(path, upkeep=True))
    assert "damaged" in report.problems[0]


def test_an_index_that_is_not_valid_is_told(postgres_stores: Stores) -> None:
    with postgres_stores.db.write() as connection:
        connection.exec_driver_sql("ALTER TABLE apps ADD CONSTRAINT later CHECK (last_version >= 0) NOT VALID")
        connection.exec_driver_sql(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_addons_app_id'::regclass"
        )
    told = sorted(check(postgres_stores.db).problems)
    assert told == ["constraint later of apps is not valid", "index ix_addons_app_id is not valid"]
