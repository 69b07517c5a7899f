"""The migrations build exactly the tables that the code describes."""

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, UniqueConstraint, create_engine, inspect

from penstock.store import schema
from penstock.store.database import Database
from penstock.store.engines.address import parse_address
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
        if connection.dialect.name == "sqlite":
            explain, digest = "EXPLAIN QUERY PLAN", "x'00'"
        else:
            explain, digest = "EXPLAIN", r"'\x00'"
            # Else it reads a table this small from end to end.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plan = str(connection.exec_driver_sql(f"{explain} SELECT id FROM api_keys WHERE hash = {digest}").all())
    assert "USING INDEX" in plan or "uq_api_keys_hash" in plan


def at_schema(revision: str, address: str | Path) -> Engine:
    """An engine on a database with the schema of an earlier release."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(parse_address(address))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return engine


def test_a_database_of_the_first_release_keeps_its_rows_and_gets_owners(address: str | Path, tmp_path: Path) -> None:
    at, blob = "2026-11-22 12:00:00+00", "x'{}'" if isinstance(address, Path) else r"'\x{}'"
    engine = at_schema("0001", address)
    with engine.begin() as connection:
        for statement in (
            f"INSERT INTO operators VALUES ('o1', 'o@example.com', '{at}')",
            f"INSERT INTO operator_tokens VALUES ('t1', 'o1', {blob.format('00' * 32)}, '{at}')",
            f"INSERT INTO apps VALUES ('a1', 'mine', 'o@example.com', 'us', 'heroku-24', 1, '{at}', '{at}')",
            f"INSERT INTO apps VALUES ('a2', 'lost', 'gone@example.com', 'us', 'heroku-24', 1, '{at}', '{at}')",
            f"INSERT INTO addons VALUES ('d1', 'i', 'a1', 'standard', 'provisioned', '{{}}', '{at}', '{at}')",
            f"INSERT INTO attachments VALUES ('c1', 'INFERENCE', 'a1', 'd1', '{at}', '{at}')",
            f"INSERT INTO api_keys VALUES ('k1', 'inf-x', {blob.format('01' * 32)}, {blob.format('00')}, 'c1', '{at}')",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    db = Database.open(address, home=tmp_path)
    stores = Stores(db)
    assert db.found == "0001"
    assert [(app.name, app.owner_id) for app in stores.apps.list()] == [("lost", None), ("mine", "o1")]
    found = stores.operators.find_by_token(bytes(32))
    assert found is not None
    assert (found[0].role, found[1].expires_at) == ("owner", None)
    principal = stores.keys.find_principal(b"\x01" * 32)
    assert principal is not None
    assert (principal.models, principal.expires_at) == (None, None)
    db.close()


@pytest.mark.parametrize("revision", schema.REVISIONS)
def test_every_released_schema_becomes_the_tables_of_the_code(
    revision: str, address: str | Path, tmp_path: Path
) -> None:
    at_schema(revision, address).dispose()
    db = Database.open(address, home=tmp_path)
    test_a_migrated_database_has_the_tables_of_the_code(db)
    assert db.found == revision
    db.close()
