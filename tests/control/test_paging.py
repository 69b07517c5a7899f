"""Ranges, pages, ETag: lists are read in parts, and what is known already is not sent again."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.control.paging import page_of, reply
from penstock.domain.access import Open
from penstock.store.paging import Page
from penstock.web.api import ApiError, Request
from tests.control.plane import Plane


def asking(header: str | None, *ranges: str) -> Request:
    """A request for a list with that Range header."""
    headers = {} if header is None else {"range": header}
    return Request(
        method="GET", path="/x", params={}, query={}, headers=headers, body=None, operator=None, request_id="r",
        source="s", access=Open.PUBLIC, ranges=ranges or ("name", "id"),
    )  # fmt: skip


def pages(plane: Plane, path: str, header: str) -> list[list[str]]:
    """The names on each page, following Next-Range from the first."""
    found, status = [], 206
    while status == 206:
        answer = plane.http.get(path, headers={"Range": header})
        status, header = answer.status_code, answer.headers.get("next-range", "")
        found.append([item["name"] for item in answer.json()])
    assert status == 200
    assert not header
    return found


@pytest.mark.parametrize(
    ("header", "page"),
    [
        (None, Page(by="name")),
        ("name ..", Page(by="name")),
        ("id ..; max=10;", Page(by="id", size=10)),
        ("name ]shop..; max=10, order=desc", Page(by="name", first="shop", after=True, descending=True, size=10)),
        ("name a..b; order=asc,max=99999", Page(by="name", first="a", last="b", size=1000)),
        (" id  ..b ", Page(by="id", last="b")),
    ],
)
def test_a_range_is_read_in_each_form_that_clients_send(header: str | None, page: Page) -> None:
    assert page_of(asking(header)) == page


@pytest.mark.parametrize(
    "header",
    ["", ";;;", "name", "name shop", "bytes=0-99", "version ..", "name ..; max=0", "name ..; max=x", "name ..; max=1e3",
     "name ..; order=up", "name ..; size=3", "name ..; max", "name .. b", "name ..; max=1=2", "na me .."],
)  # fmt: skip
def test_what_is_not_a_range_is_416_with_the_attributes(header: str) -> None:
    with pytest.raises(ApiError) as told:
        page_of(asking(header))
    assert (told.value.status, told.value.id) == (416, "requested_range_not_satisfiable")
    assert told.value.headers == {"Accept-Ranges": "name, id"}


@pytest.mark.parametrize("header", ["name " + "." * 60_000 + " x", "name" + " " * 60_000 + "x", "a" * 60_000])
def test_a_range_of_absurd_length_is_416_unread(header: str) -> None:
    with pytest.raises(ApiError, match="is longer than 1024 characters"):
        page_of(asking(header))


@pytest.mark.parametrize(("by", "largest"), [("version", 2**31 - 1), ("seq", 2**63 - 1)])
def test_a_number_is_one_that_every_database_takes(by: str, largest: int) -> None:
    assert page_of(asking(f"{by} {largest}..{largest}", by)).first == largest
    for bounds in (f"{largest + 1}..", f"..{largest + 1}", "9" * 300 + "..", "-1.."):
        with pytest.raises(ApiError, match="that is not a number from 0 to"):
            page_of(asking(f"{by} {bounds}", by))


@given(st.text(max_size=60) | st.from_regex(r"version \]?\d*\.\.\d*(; *(max|order)=\w*)*", fullmatch=True))
def test_any_range_is_a_page_or_416(header: str) -> None:
    with contextlib.suppress(ApiError):
        page = page_of(asking(header, "version"))
        assert 1 <= page.size <= 1000
        assert page.by == "version"
        assert all(bound is None or 0 <= int(bound) < 2**31 for bound in (page.first, page.last))


@given(st.sets(st.integers(0, 50)), st.integers(1, 7), st.booleans(), st.integers(0, 50), st.integers(0, 50))
def test_the_pages_of_a_list_hold_each_row_once_and_in_order(
    keys: set[int], size: int, descending: bool, low: int, high: int
) -> None:
    class Row:
        def __init__(self, version: int) -> None:
            self.version = version

    def store(page: Page) -> list[Row]:
        first = page.first if isinstance(page.first, int) else (high if descending else low)
        inside = [
            key for key in keys
            if (low <= key <= first if descending else first <= key <= high) and not (page.after and key == first)
        ]  # fmt: skip
        return [Row(key) for key in sorted(inside, reverse=descending)[: page.size + 1]]

    start, end = (high, low) if descending else (low, high)
    header, found, more = f"version {start}..{end}; max={size}, order={'desc' if descending else 'asc'}", [], True
    while more:
        request = asking(header, "version")
        page = page_of(request)
        assert page.last == end
        answer = reply(request, page, store(page), lambda row: row)
        found += [row.version for row in answer.json]
        more = answer.status == 206
        header = answer.headers.get("Next-Range", "")
    assert found == sorted((key for key in keys if low <= key <= high), reverse=descending)


def test_a_list_is_read_page_by_page(new_plane: Plane) -> None:
    names = sorted(new_plane.app(f"paged-{number}") for number in range(7))
    assert pages(new_plane, "/apps", "name ..; max=3") == [names[:3], names[3:6], names[6:]]
    assert pages(new_plane, "/users/~/apps", "name ..; order=desc,max=4") == [names[:2:-1], names[2::-1]]
    by_id = [name for page in pages(new_plane, "/apps", "id ..; max=2") for name in page]
    assert sorted(by_id) == names
    assert pages(new_plane, "/apps", "name paged-2..paged-4; max=2") == [names[2:4], names[4:5]]
    assert pages(new_plane, "/apps", "name ]paged-6..") == [[]]


def test_every_list_of_add_ons_and_attachments_is_read_page_by_page(new_plane: Plane) -> None:
    app = new_plane.app()
    made = [new_plane.addon(app) for _ in range(3)]
    names = sorted(addon["name"] for addon in made)
    for path in ("/addons", f"/apps/{app}/addons"):
        assert pages(new_plane, path, "name ..; max=2") == [names[:2], names[2:]]
    aliases = ["INFERENCE", "INFERENCE_CYAN", "INFERENCE_PINK"]
    assert pages(new_plane, f"/apps/{app}/addon-attachments", "name ..; max=2") == [aliases[:2], aliases[2:]]
    new_plane.attach(made[0]["name"], app)
    for path, count in (("/addon-attachments", 4), (f"/addons/{made[0]['id']}/addon-attachments", 2)):
        assert sum(map(len, pages(new_plane, path, "id ..; max=1"))) == count


def test_a_page_says_what_it_holds(new_plane: Plane) -> None:
    new_plane.app("shop"), new_plane.app("stall")
    whole = new_plane.http.get("/apps")
    assert (whole.headers["accept-ranges"], whole.headers["content-range"]) == ("name, id", "name shop..stall")
    part = new_plane.http.get("/apps", headers={"Range": "name ..stall; max=1"})
    assert (part.status_code, part.headers["content-range"]) == (206, "name shop..shop")
    assert part.headers["next-range"] == "name ]shop..stall; max=1, order=asc"
    assert new_plane.http.get("/apps", headers={"Range": "plan .."}).status_code == 416


def test_releases_are_read_newest_first_in_both_forms_that_the_cli_sends(plane: Plane) -> None:
    app = plane.app()
    plane.addon(app)
    for header in ("version ..; order=desc,max=1", "version ..; max=1, order=desc"):
        answer = plane.http.get(f"/apps/{app}/releases", headers={"Range": header})
        assert (answer.status_code, [item["version"] for item in answer.json()]) == (206, [2])
        assert answer.json()[0]["current"]


def test_what_is_known_already_is_not_sent_again(plane: Plane) -> None:
    app = plane.app()
    path = f"/apps/{app}/config-vars"
    first = plane.http.get(path)
    for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
        again = plane.http.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert again.headers["request-id"] != first.headers["request-id"]
    assert plane.http.head(path).headers["etag"] == first.headers["etag"]
    assert plane.http.head(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    plane.ok("PATCH", path, A="1")
    changed = plane.http.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (changed.status_code, changed.json()) == (200, {"A": "1"})


def test_a_change_has_no_etag(plane: Plane) -> None:
    answer = plane.http.patch(f"/apps/{plane.app()}/config-vars", json={}, headers={"If-None-Match": "*"})
    assert answer.status_code == 200
    assert "etag" not in answer.headers
