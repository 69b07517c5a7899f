"""The routes' page keeps up with the table."""

from pathlib import Path

from penstock.control.api import routes
from penstock.control.context import ControlContext
from penstock.domain.catalogue import Catalogue
from penstock.store.database import Database
from penstock.store.nouns.stores import Stores

PAGE = Path(__file__).resolve().parents[2] / "docs" / "platform-api.md"


def test_the_page_has_every_route_and_no_other(tmp_path: Path) -> None:
    context = ControlContext(gateway_url="http://gateway", catalogue=Catalogue(()), version="0")
    table = routes(Stores(Database.open(tmp_path / "penstock.db")), context)
    rows = [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(f"{route.method} {route.path}" for route in table)
