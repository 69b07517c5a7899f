"""How apps are treated, who may say so, and who reads what is kept of their prompts."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.domain.access import Role
from penstock.domain.content import Content
from penstock.domain.limits import Policy
from tests.control.plane import Plane, call, status

DEFAULT = {"weight": 1, "reserve_percent": 0, "cache_ttl_s": None, "content_days": None}


def kept(plane: Plane, app: str, *numbers: int) -> str:
    """Keeps requests of those numbers for an app; its id."""
    app_id = plane.stores.apps.get(app).id
    plane.stores.contents.add(
        [
            Content(
                request_id=f"req_{number:02}", app_id=app_id, at_us=int(time.time() * 1_000_000), key_prefix="inf-1",
                model="chat-large", outcome="completed", request=f"prompt {number}", answer="fine", answer_cut=True,
            )
            for number in numbers
        ]
    )  # fmt: skip
    return app_id


def test_a_policy_is_shown_and_changed_field_by_field(each_plane: Plane) -> None:
    plane = each_plane
    app = plane.app("shop")
    plane.addon(app)
    key = plane.config(app)["INFERENCE_KEY"]
    shown = plane.ok("GET", "/apps/shop/policy")
    assert shown.pop("app")["name"] == "shop"
    assert shown == DEFAULT
    for change in ({"weight": 7}, {"reserve_percent": 20, "cache_ttl_s": 60}, {"content_days": 30}, {"weight": 8}):
        shown |= change
        told = plane.http.put("/apps/shop/policy", json=change).json()
        assert told.pop("app")["name"] == "shop"
        assert told == shown
    principal = plane.principal(key)
    assert principal is not None
    assert principal.policy == Policy(weight=8, reserve_percent=20, cache_ttl_s=60, content_days=30)
    ended = plane.http.put("/apps/shop/policy", json={"cache_ttl_s": None, "content_days": None}).json()
    assert (ended["weight"], ended["cache_ttl_s"], ended["content_days"]) == (8, None, None)


@pytest.mark.parametrize(
    "change",
    [
        {"weight": 0}, {"weight": 101}, {"weight": None}, {"weight": "2"}, {"weight": 1.5}, {"reserve_percent": -1},
        {"reserve_percent": 101}, {"cache_ttl_s": 0}, {"content_days": 0}, {"content_days": 4000},
        {"content_days": "7"}, {}, {"wait": 5},
    ],
)  # fmt: skip
def test_what_is_no_policy_is_refused_with_its_field_and_changes_nothing(
    plane: Plane, change: dict[str, object]
) -> None:
    app = plane.app()
    code, body = plane.refused("PUT", f"/apps/{app}/policy", **change)
    assert (code, body["id"]) == (422, "invalid_params")
    assert next((name for name in change if name != "wait"), "Name at least one of weight") in body["message"]
    assert plane.stores.policies.find(plane.stores.apps.get(app).id) == Policy()


def test_what_an_app_does_to_others_needs_a_manager_of_limits(new_plane: Plane) -> None:
    member = new_plane.operator("m@example.com", Role.MEMBER)
    app = call(new_plane, member, "POST", "/apps").json()["name"]
    path = f"/apps/{app}/policy"
    for change in ({"weight": 2}, {"reserve_percent": 5}, {"weight": 2, "content_days": 1}):
        reply = call(new_plane, member, "PUT", path, **change)
        assert reply.status_code == 403
        assert "limits:manage" in reply.json()["message"]
    assert status(new_plane, member, "PUT", path, content_days=3, cache_ttl_s=10) == 200
    viewer = new_plane.operator("v@example.com", Role.VIEWER)
    assert status(new_plane, viewer, "PUT", path, content_days=3) == 403
    assert "limits:manage" in call(new_plane, viewer, "PUT", path, weight=3).json()["message"]
    assert status(new_plane, viewer, "GET", path) == 200
    new_plane.ok("PUT", path, weight=2, reserve_percent=5)


def test_a_change_of_the_policy_is_told_and_what_changes_nothing_is_not(new_plane: Plane) -> None:
    new_plane.app("shop")
    for _ in range(2):
        new_plane.ok("PUT", "/apps/shop/policy", weight=3, content_days=7)
    (event,) = new_plane.ok("GET", "/audit-events?action=policy.")
    assert (event["object"]["name"], event["app"]["name"]) == ("shop", "shop")
    assert event["before"] == DEFAULT
    assert event["after"] == DEFAULT | {"weight": 3, "content_days": 7}


def test_kept_prompts_are_read_by_pages_and_every_reading_is_told(each_plane: Plane) -> None:
    plane = each_plane
    plane.app("shop")
    assert plane.ok("GET", "/apps/shop/contents") == []
    plane.ok("PUT", "/apps/shop/policy", content_days=7)
    kept(plane, "shop", *range(25))
    first = plane.http.get("/apps/shop/contents", headers={"Range": "request_id ..; max=1000"})
    assert (first.status_code, len(first.json())) == (206, 20)
    rest = plane.http.get("/apps/shop/contents", headers={"Range": first.headers["next-range"]})
    assert [one["request_id"] for one in rest.json()] == [f"req_{number}" for number in range(20, 25)]
    (one,) = plane.ok("GET", "/apps/shop/contents?request=req_03&since=1h")
    assert (one["request"], one["answer"], one["request_cut"], one["answer_cut"]) == ("prompt 3", "fine", False, True)
    events = plane.ok("GET", "/audit-events?action=content.read")
    assert [event["after"]["read"] for event in events] == [0, 20, 5, 1]
    assert events[-1]["after"] == {"read": 1, "request": "req_03", "since": "1h"}
    assert "prompt" not in str(events)
    assert plane.refused("GET", "/apps/shop/contents?since=soon")[0] == 422
    assert plane.refused("GET", f"/apps/shop/contents?request={'x' * 65}")[0] == 422


def test_keeping_no_more_deletes_and_so_does_the_end_of_the_app(each_plane: Plane) -> None:
    plane = each_plane
    plane.app("shop")
    plane.ok("PUT", "/apps/shop/policy", content_days=7, reserve_percent=10)
    app_id = kept(plane, "shop", 1, 2)
    assert plane.http.put("/apps/shop/policy", json={"content_days": None}).status_code == 200
    assert plane.stores.contents.count(app_id) == 0
    plane.ok("PUT", "/apps/shop/policy", content_days=7)
    kept(plane, "shop", 3)
    shared = plane.stores.governance.revision()
    plane.ok("DELETE", "/apps/shop")
    assert plane.stores.contents.count(app_id) == 0
    assert plane.stores.governance.revision() > shared
    assert plane.stores.governance.shared().reserves == {}


def test_changes_at_once_lose_none_of_each_other(each_plane: Plane) -> None:
    each_plane.app("shop")
    changes = [{"weight": 9}, {"reserve_percent": 9}, {"cache_ttl_s": 9}, {"content_days": 9}] * 4
    with ThreadPoolExecutor(8) as pool:
        replies = pool.map(lambda change: each_plane.http.put("/apps/shop/policy", json=change, timeout=60), changes)
        assert {reply.status_code for reply in replies} == {200}
    found = each_plane.stores.policies.find(each_plane.stores.apps.get("shop").id)
    assert found == Policy(weight=9, reserve_percent=9, cache_ttl_s=9, content_days=9)
