"""The snippets of README.md and docs/ work: every fenced block whose info string ends in `test` or `postgres` is run.

The blocks of a page run in order in one shell, in an empty folder, beside a running server; a python, js or ruby block
becomes a file and runs there. `penstock`, `curl`, `python` and `node` are those that a user would have. A `postgres`
block runs in a shell of its own, on a home without a server, with a PostgreSQL in the place of `db.example`.
"""

import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.postgres import Postgres
from tests.server import ROOT, Server

BLOCK = re.compile(r"^```(\w+) test\n(.*?)^```", re.MULTILINE | re.DOTALL)
ON_POSTGRES = re.compile(r"^```(\w+) postgres\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAMS = {"python": ("python", "py"), "js": ("node", "mjs"), "ruby": ("ruby", "rb")}
PAGES = [
    str(path.relative_to(ROOT))
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if BLOCK.search(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("page", PAGES)
def test_the_snippets_of_a_page_run(
    page: str, run: Callable[..., str], tmp_path: Path, penstock_server: Server, node_modules: Path
) -> None:
    (tmp_path / "node_modules").symlink_to(node_modules)
    script = ["set -euo pipefail", "shopt -s expand_aliases"]
    for number, (language, text) in enumerate(BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))):
        if language in ("sh", "bash"):
            script.append(at_home(text, penstock_server))
        else:
            program, suffix = PROGRAMS[language]
            (tmp_path / f"snippet{number}.{suffix}").write_text(at_home(text, penstock_server))
            script.append(f"{program} snippet{number}.{suffix}")
    run(["bash", "-c", "\n".join(script)], tmp_path)


def test_the_snippets_on_postgresql_run(run: Callable[..., str], tmp_path: Path, own_postgres: Postgres) -> None:
    server = own_postgres.url().partition("?")[2]
    home = str(tmp_path / "home")
    run(["bash", "-c", "penstock db:upgrade"], tmp_path, PENSTOCK_HOME=home)
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    printed = ""
    for language, text in ON_POSTGRES.findall(page):
        there, changed = re.subn(r"@db\.example/penstock\?[^']*", f"@/penstock?{server}", text)
        assert changed == (language == "sh"), text
        if language == "sql":
            with psycopg.connect(own_postgres.url(), autocommit=True) as connection:
                for statement in text.split(";\n"):
                    connection.execute(statement.encode())
        else:
            printed += run(["bash", "-euc", there], tmp_path, PENSTOCK_HOME=home)
    assert "from an empty database to schema" in printed
    assert "No problems found." in printed
    assert "PENSTOCK_DATABASE_URL=postgresql://penstock@" in printed


def test_the_first_page_has_snippets_that_run() -> None:
    assert "README.md" in PAGES


def at_home(text: str, server: Server) -> str:
    """The snippet with the documented default addresses replaced by those of the test's server."""
    return text.replace("http://127.0.0.1:8400", server.gateway).replace("http://127.0.0.1:8401", server.control)
