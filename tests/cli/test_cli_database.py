"""db:upgrade and db:check, on the database that the settings name."""

import sqlite3
from pathlib import Path

import pytest

from penstock.store.schema import REVISIONS
from tests.cli.program import Penstock
from tests.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, offline: Penstock, tmp_path: Path) -> Penstock:
    """The program with a home and an empty database."""
    if request.param == "sqlite":
        return offline.within(PENSTOCK_HOME=str(tmp_path))
    server: Postgres = request.getfixturevalue("postgres")
    url = server.new_database(migrated=False)
    return offline.within(PENSTOCK_HOME=str(tmp_path), PENSTOCK_DATABASE_URL=url)


def test_an_upgrade_says_from_where_to_where_and_then_the_check_is_content(where: Penstock) -> None:
    assert f"from an empty database to schema {REVISIONS[-1]}" in where.ok("db:upgrade")
    assert "is up to date" in where.ok("db:upgrade")
    shown = where.ok("db:check")
    assert "No problems found." in shown
    assert "not-asked" not in shown
    report = where.json("db:check", "--json")
    assert (report["schema"], report["rows"]["apps"], report["problems"]) == (REVISIONS[-1], 0, [])


def test_a_problem_is_an_error_and_exit_status_1(offline: Penstock, tmp_path: Path) -> None:
    here = offline.within(PENSTOCK_HOME=str(tmp_path))
    assert "No such file" in here.refused("db:check")
    here.ok("db:upgrade")
    with sqlite3.connect(tmp_path / "penstock.db") as database:
        database.execute("DELETE FROM key_revision")
    done = here("db:check")
    assert done.returncode == 1
    assert "key_revision has 0 rows" in done.stderr
    assert "No problems" not in done.stdout


def test_an_older_database_is_told_apart_from_a_newer_one(offline: Penstock, tmp_path: Path) -> None:
    here = offline.within(PENSTOCK_HOME=str(tmp_path))
    here.ok("db:upgrade")
    with sqlite3.connect(tmp_path / "penstock.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "newer" in here.refused("db:upgrade")
    assert "newer" in here("db:check").stderr


def test_a_server_that_is_not_there_is_one_clear_line_without_the_password(offline: Penstock) -> None:
    url = "postgres://me:hunter2@127.0.0.1:1/penstock?sslmode=disable"
    for command in ("db:check", "db:upgrade"):
        told = offline.within(PENSTOCK_DATABASE_URL=url).refused(command)
        assert "127.0.0.1:1/penstock" in told
        assert "hunter2" not in told
        assert len(told.strip().splitlines()) == 1
