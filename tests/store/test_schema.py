"""The migrations build exactly the tables that the code describes."""

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import UniqueConstraint, inspect

from penstock.store import schema
from penstock.store.database import Database
from penstock.store.migrate import MIGRATIONS, needs_upgrade


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
