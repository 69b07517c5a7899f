"""The migrations build exactly the tables that the code describes."""

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import UniqueConstraint, create_engine, inspect

from penstock.store import schema
from penstock.store.database import Database
from penstock.store.migrate import MIGRATIONS, needs_upgrade
from penstock.store.nouns.stores import Stores


def test_the_code_names_every_migration_in_order() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    found = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == schema.REVISIONS


def test_a_migrated_database_has_the_tables_of_the_code(db: Database) -> None:
    with db.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
        found = inspect(connection)
        for table in schema.metadata.tables.values():
            wanted = {item.name for item in table.constraints if isinstance(item, UniqueConstraint)}
            assert {item["name"] for item in found.get_unique_constraints(table.name)} == wanted, table.name


def test_an_opened_database_needs_no_upgrade(db: Database) -> None:
    with db.read() as connection:
        assert not needs_upgrade(connection)


def test_a_key_is_found_through_the_unique_index(db: Database) -> None:
    with db.read() as connection:
        query = "EXPLAIN QUERY PLAN SELECT id FROM api_keys WHERE hash = x'00'"
        assert "USING INDEX" in str(connection.exec_driver_sql(query).all())


def test_a_database_of_the_first_release_keeps_its_rows_and_gets_owners(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with create_engine(url).begin() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        at = "2026-11-22 12:00:00"
        for statement in (
            f"INSERT INTO operators VALUES ('o1', 'o@example.com', '{at}')",
            f"INSERT INTO operator_tokens VALUES ('t1', 'o1', x'{'00' * 32}', '{at}')",
            f"INSERT INTO apps VALUES ('a1', 'mine', 'o@example.com', 'us', 'heroku-24', 1, '{at}', '{at}')",
            f"INSERT INTO apps VALUES ('a2', 'lost', 'gone@example.com', 'us', 'heroku-24', 1, '{at}', '{at}')",
            f"INSERT INTO addons VALUES ('d1', 'i', 'a1', 'standard', 'provisioned', '{{}}', '{at}', '{at}')",
            f"INSERT INTO attachments VALUES ('c1', 'INFERENCE', 'a1', 'd1', '{at}', '{at}')",
            f"INSERT INTO api_keys VALUES ('k1', 'inf-x', x'{'01' * 32}', x'00', 'c1', '{at}')",
        ):
            connection.exec_driver_sql(statement)
    stores = Stores(Database.open(tmp_path / "old.db"))
    assert [(app.name, app.owner_id) for app in stores.apps.list()] == [("lost", None), ("mine", "o1")]
    found = stores.operators.find_by_token(bytes(32))
    assert found is not None
    assert (found[0].role, found[1].expires_at) == ("owner", None)
    principal = stores.keys.find_principal(b"\x01" * 32)
    assert principal is not None
    assert (principal.models, principal.expires_at) == (None, None)
