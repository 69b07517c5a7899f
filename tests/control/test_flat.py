"""No call gets slower with the number of apps: what the database does for each of them is looked at."""

import re
from collections.abc import Iterator

import pytest

from bench.listing import SINGLE, Call, Installation, every_plan, pages
from penstock.store.nouns.stores import Stores
from penstock.store.paging import Page

APPS = 2_200


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """2,200 apps, of which one operator owns more than are sorted for a page."""
    home = tmp_path_factory.mktemp("flat")
    found = Installation(home / "penstock.db", home, apps=APPS)
    yield found
    found.db.close()


def scans(name: str, statement: str, how: list[str]) -> list[str]:
    """What of a plan goes through a whole table. In the order of a list, up to its page's end, is no such thing, when
    all rows count, or at least those of somebody to whom a good part of them belongs."""
    walks = " LIMIT " in statement and "ORDER BY" in statement and not any("TEMP B-TREE" in line for line in how)
    counts = " WHERE 1 = 1" in statement or "busy" in name
    found = []
    for line in how:
        scan = re.match(r"SCAN (\w+)(.*)", line)
        if scan is None or scan[1] in SINGLE or scan[1].startswith("anon_"):
            continue
        if not (walks and counts and "USING" in scan[2]):
            found.append(f"{name}: {line}: {statement}")
    return found


def test_no_call_goes_through_a_table(installation: Installation) -> None:
    told = list(every_plan(installation))
    assert len({name for name, _, _ in told}) > 40
    assert not [scan for name, statement, how in told for scan in scans(name, statement, how)]


def test_a_page_without_an_index_would_be_seen(installation: Installation) -> None:
    statement = "SELECT * FROM apps WHERE region = 'us' ORDER BY name LIMIT 3"
    how = ["SCAN apps USING INDEX sqlite_autoindex_apps_2"]
    assert scans("apps", statement, how)
    assert scans("apps", "SELECT * FROM apps WHERE 1 = 1 ORDER BY stack LIMIT 3", ["SCAN apps", "USE TEMP B-TREE"])
    assert pages(installation)


@pytest.mark.parametrize("who", ["member", "busy"])
def test_an_operator_sees_exactly_their_own_however_many(installation: Installation, who: str) -> None:
    stores, operator = installation.stores, installation.people[who]
    numbers = [n for n in range(APPS) if installation.owner_of(n).id == operator.id]
    numbers += range(20, 40) if who == "member" else []
    numbers.sort()
    assert names(stores, operator.id) == [installation.name(number) for number in numbers]
    assert [addon.app_id for addon in stores.addons.list(visible_to=operator.id)] == [
        f"app-id-{n:06d}" for n in numbers
    ]
    attached = {attachment.app_name for attachment in stores.attachments.list(visible_to=operator.id)}
    assert attached == {installation.name(number) for number in numbers}


def names(stores: Stores, operator_id: str) -> list[str]:
    """The names of all apps that an operator sees, read in pages of 300."""
    found: list[str] = []
    while True:
        page = Page(by="name", first=found[-1] if found else None, after=bool(found), size=300)
        rows = stores.apps.list(visible_to=operator_id, page=page)
        found += [app.name for app in rows[:300]]
        if len(rows) <= 300:
            return found


def test_a_search_gives_a_page_and_not_the_installation(installation: Installation) -> None:
    for body in ({"addon": "heroku-inference"}, {"addon": "heroku-inference:chat"}):
        assert count(installation, "POST /actions/addons/resolve", body) == 50
    assert count(installation, "POST /actions/addon-attachments/resolve", {"addon_attachment": "inference"}) == 50


def count(installation: Installation, route: str, body: dict[str, str]) -> int:
    """How many matches a search gives."""
    return len(installation.call(Call("search", route, body=body)))
