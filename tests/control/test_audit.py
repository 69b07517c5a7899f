"""Reading the audit log: all of it, of one app, since a time, by action, page by page."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from penstock.control.routes.audit import parse_time
from penstock.domain.access import EVERYWHERE, ON_APP, Permission
from penstock.web.api import ApiError
from tests.control.plane import EMAIL, Plane

DOCS = Path(__file__).resolve().parents[2] / "docs"


def actions(plane: Plane, query: str = "", path: str = "/audit-events") -> list[str]:
    """The actions that a call lists."""
    return [event["action"] for event in plane.ok("GET", f"{path}{query}")]


def test_an_event_says_who_did_what_from_where_in_which_request(new_plane: Plane) -> None:
    reply = new_plane.http.post("/apps", json={"name": "shop"})
    (event,) = new_plane.ok("GET", "/audit-events?action=app.")
    assert event.pop("at")[:10] == reply.json()["created_at"][:10]
    assert event == {
        "seq": 3,
        "actor": {"id": new_plane.stores.operators.get(EMAIL).id, "email": EMAIL},
        "source": "127.0.0.1",
        "request_id": reply.headers["request-id"],
        "action": "app.create",
        "object": {"type": "app", "id": reply.json()["id"], "name": "shop"},
        "app": {"id": reply.json()["id"], "name": "shop"},
        "before": None,
        "after": {"name": "shop", "region": "us"},
    }


def test_an_apps_log_has_its_own_events_only(new_plane: Plane) -> None:
    new_plane.addon(new_plane.app("shop"))
    new_plane.app("other")
    assert actions(new_plane, path="/apps/shop/audit-events") == ["app.create", "addon.create", "attachment.create"]
    assert actions(new_plane)[-1] == "app.create"


def test_events_are_chosen_by_the_beginning_of_their_action(new_plane: Plane) -> None:
    new_plane.addon(new_plane.app("shop"))
    assert actions(new_plane, "?action=addon.") == ["addon.create"]
    assert actions(new_plane, "?action=a") == ["app.create", "addon.create", "attachment.create"]
    assert actions(new_plane, "?action=_pp.create") == []
    assert new_plane.refused("GET", "/audit-events?action=A%25")[0] == 422


def test_events_are_chosen_by_time(new_plane: Plane) -> None:
    new_plane.app("shop")
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert actions(new_plane, f"?since={later.replace('+', '%2B')}") == actions(new_plane, f"?since={later}") == []
    assert actions(new_plane, "?since=5m&action=app.") == ["app.create"]
    for wrong in ("yesterday", "5", "5y", "2026-13-01", "9" * 40, ""):
        code, told = new_plane.refused("GET", f"/audit-events?since={wrong}")
        assert (code, "since" in told["message"]) == (422, True), wrong


def test_a_time_without_a_zone_is_utc() -> None:
    assert parse_time("2026-01-31T12:00:00", "since") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parse_time("2026-01-31", "since") == datetime(2026, 1, 31, tzinfo=UTC)
    assert parse_time("2026-01-31T12:00:00Z", "since") == parse_time("2026-01-31T13:00:00+01:00", "since")
    for text in ("999999w", "0001-01-01T00:00:00+23:00"):
        with pytest.raises(ApiError):
            parse_time(text, "since")


def test_pages_follow_one_another_without_gap_or_repetition(new_plane: Plane) -> None:
    for _ in range(7):
        new_plane.app()
    seen, headers, replies = list[int](), {"Range": "seq ..; max=3"}, 0
    while True:
        reply = new_plane.http.get("/audit-events", headers=headers)
        seen += [event["seq"] for event in reply.json()]
        replies += 1
        if reply.status_code != 206:
            break
        headers = {"Range": reply.headers["next-range"]}
    assert (seen, replies) == (list(range(1, 10)), 3)


def test_the_table_of_roles_in_the_page_is_the_one_in_force() -> None:
    lines = (DOCS / "operations.md").read_text().splitlines()
    shown = {line.split("`")[1]: line for line in lines if line.startswith("| `") and "yes" in line}
    tables = [EVERYWHERE[role] for role in EVERYWHERE] + [ON_APP[role] for role in ON_APP]
    for permission in Permission:
        cells = [cell.strip() for cell in shown[permission].strip("|").split("|")][2:]
        assert cells == ["yes" if permission in held else "" for held in tables], permission


def test_the_log_of_an_app_that_is_gone_is_found_by_the_name_it_had(new_plane: Plane) -> None:
    gone = new_plane.ok("POST", "/apps", name="gone")
    new_plane.app("other")
    new_plane.ok("DELETE", "/apps/gone")
    for ref in ("gone", gone["id"]):
        found = new_plane.ok("GET", f"/audit-events?app={ref}")
        assert [event["action"] for event in found] == ["app.create", "app.destroy"]
    assert new_plane.ok("GET", "/audit-events?app=never") == []
