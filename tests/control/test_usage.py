"""The usage routes: what they sum and list, for whom, and what they refuse."""

import json
from typing import Any

import pytest

from penstock.domain.access import Role
from penstock.domain.ledger import DAY_US
from tests.control.plane import Plane, call
from tests.metered import NOVEMBER_US, fill, metered


def use(plane: Plane, app: str, count: int = 3, **fields: Any) -> str:
    """Requests of an app, the first at the beginning of November, then one each day; the app's id."""
    id_ = str(plane.ok("GET", f"/apps/{app}")["id"])
    given: dict[str, Any] = {"app_id": id_, "app_name": app, "key_id": id_, "key_prefix": f"inf-{app}", **fields}
    fill(
        plane.stores.db,
        [
            metered(f"{app}-{number}", admitted_us=NOVEMBER_US + number * DAY_US, amount_nanos=1_500_000_000, **given)
            for number in range(count)
        ],
    )
    return id_


def test_usage_is_summed_by_what_is_asked_and_money_is_text(each_plane: Plane) -> None:
    plane, names = each_plane, ("blog", "shop")
    ids = {name: use(plane, plane.app(name)) for name in names}
    [total] = plane.ok("GET", "/usage")
    assert total == {
        "currency": "USD", "requests": 6, "failed": 0, "estimated": 0, "input_tokens": 60, "cached_input_tokens": 0,
        "cache_write_tokens": 0, "output_tokens": 30, "reasoning_tokens": 0, "amount": "9", "cost": "0",
    }  # fmt: skip
    by_app = plane.ok("GET", "/usage?by=app")
    assert {row["app"]["name"]: (row["app"]["id"], row["amount"]) for row in by_app} == {
        name: (ids[name], "4.5") for name in names
    }
    days = plane.ok("GET", "/apps/shop/usage?by=day,model,target,key&since=2026-11-02&until=2026-11-03T12:00:00Z")
    assert [(row["day"], row["model"], row["target"], row["key"]["prefix"]) for row in days] == [
        ("2026-11-02", "chat-large", "someone/it", "inf-shop"),
        ("2026-11-03", "chat-large", "someone/it", "inf-shop"),
    ]
    for query in ("app=shop", f"app={ids['shop']}", "key=inf-shop", f"key={ids['shop']}"):
        [row] = plane.ok("GET", f"/usage?{query}&model=chat-large-latest")
        assert row["requests"] == 3, query


def test_an_entry_says_all_that_is_known_of_a_request(new_plane: Plane) -> None:
    app = new_plane.app("shop")
    use(
        new_plane, app, 1, raw_usage='{"prompt_tokens": 10}', cached_input_tokens=4, reasoning_tokens=2, queued_ms=1.0,
        attempts='[["a/x","upstream_error",null,3.0],["someone/it","completed",4.5,9.5]]', first_event_ms=7.5,
        cost_nanos=20, cost_currency="EUR", price_version="0123456789abcdef", estimated=True, stand_in="small",
    )  # fmt: skip
    [entry] = new_plane.ok("GET", "/apps/shop/usage/entries")
    assert (entry["request_id"], entry["seq"], entry["amount"], entry["currency"]) == ("shop-0", 1, "1.5", "USD")
    assert (entry["cost"], entry["cost_currency"], entry["estimated"]) == ("0.00000002", "EUR", True)
    assert (entry["asked"], entry["model"], entry["target"]) == ("chat-large-latest", "chat-large", "someone/it")
    assert (entry["stand_in"], entry["stand_in_id"], entry["outcome"]) == (True, "small", "completed")
    assert (entry["queued_ms"], entry["first_token_ms"], entry["total_ms"]) == (1.0, 7.5, 12.5)
    assert entry["usage"] == {
        "input_tokens": 10, "cached_input_tokens": 4, "cache_write_tokens": 0, "output_tokens": 5, "reasoning_tokens": 2
    }  # fmt: skip
    assert entry["raw_usage"] == {"prompt_tokens": 10}
    assert entry["attempts"] == [
        {"target": "a/x", "outcome": "upstream_error", "first_token_ms": None, "total_ms": 3.0},
        {"target": "someone/it", "outcome": "completed", "first_token_ms": 4.5, "total_ms": 9.5},
    ]
    assert (entry["admitted_at"], entry["settled_at"]) == ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00.012500Z")


def test_raw_usage_that_is_no_json_is_shown_as_it_is(new_plane: Plane) -> None:
    use(new_plane, new_plane.app("shop"), 1, raw_usage='{"cut')
    [entry] = new_plane.ok("GET", "/apps/shop/usage/entries")
    assert entry["raw_usage"] == '{"cut'


@pytest.mark.parametrize("path", ["/usage/entries", "/apps/shop/usage/entries"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_entries_are_read_page_by_page(new_plane: Plane, path: str, order: str) -> None:
    use(new_plane, new_plane.app("shop"), 7)
    for by in ("cursor", "seq") if path == "/usage/entries" else ("cursor",):
        found, asked, status = [], f"{by} ..; max=3, order={order}", 206
        while status == 206:
            reply = new_plane.http.get(path, headers={"Range": asked})
            status, asked = reply.status_code, reply.headers.get("next-range", "")
            found += [entry["request_id"] for entry in reply.json()]
        wanted = [f"shop-{number}" for number in range(7)]
        assert found == (wanted if order == "asc" else wanted[::-1])


def test_an_operator_sees_the_usage_of_the_apps_that_they_may_read(new_plane: Plane) -> None:
    member, viewer = (new_plane.operator(f"{role}@example.com", role) for role in (Role.MEMBER, Role.VIEWER))
    use(new_plane, new_plane.app("shop"))
    assert call(new_plane, member, "POST", "/apps", name="own").status_code == 201
    use(new_plane, "own", 2)
    assert call(new_plane, member, "GET", "/usage").json()[0]["requests"] == 2
    assert len(call(new_plane, member, "GET", "/usage/entries").json()) == 2
    assert call(new_plane, viewer, "GET", "/usage").json()[0]["requests"] == 5
    assert len(call(new_plane, viewer, "GET", "/usage/entries").json()) == 5
    for path in ("/usage?app=shop", "/usage/entries?app=shop", "/apps/shop/usage", "/usage?app=never-was"):
        assert call(new_plane, member, "GET", path).status_code == 404, path
    refused = new_plane.http.get(
        "/usage/entries", headers={"Authorization": f"Bearer {member}", "Range": "seq ..; max=10"}
    )
    assert refused.status_code == 422


def test_the_usage_of_an_app_that_is_gone_is_found_by_its_last_name(new_plane: Plane) -> None:
    id_ = use(new_plane, new_plane.app("shop"))
    new_plane.ok("DELETE", "/apps/shop")
    for ref in ("shop", id_):
        [row] = new_plane.ok("GET", f"/usage?by=app&app={ref}")
        assert row["app"] == {"id": id_, "name": "shop"}
        assert len(new_plane.ok("GET", f"/usage/entries?app={ref}")) == 3
    status, told = new_plane.refused("GET", "/usage?app=never-was")
    assert (status, told["resource"]) == (404, "app")
    assert told["message"] == "There is no app never-was, neither now nor in the ledger."


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("by=colour", "by: 'colour'"),
        ("by=model,", None),
        ("since=soon", "since must be"),
        ("until=2026-13-01", "until must be"),
        ("key=", "key must"),
        (f"model={'m' * 300}", "model must"),
        ("app=%00", "app must"),
        ("sinc=1", "no query parameter 'sinc' here; there are since, until, model, key, by, app"),
        ("request=req_1", "no query parameter 'request'"),
        ("since=7d&until=8d", "until must be later than since"),
        ("model=nope", "model: 'nope' is not a model"),
        ("by=outcome", "by: 'outcome'"),
    ],
)
def test_a_bad_value_is_refused_by_name(plane: Plane, query: str, named: str | None) -> None:
    reply = plane.http.get(f"/usage?{query}")
    if named is None:
        assert reply.status_code == 200
    else:
        assert (reply.status_code, reply.json()["id"]) == (422, "invalid_params")
        assert named in json.dumps(reply.json(), ensure_ascii=False)


def test_a_key_or_model_that_never_was_is_told_from_one_without_usage(new_plane: Plane) -> None:
    app, member = new_plane.app("shop"), new_plane.operator("member@example.com", Role.MEMBER)
    new_plane.addon(app)
    prefix = new_plane.config(app)["INFERENCE_KEY"][:12]
    fill(new_plane.stores.db, [metered("r", key_id="gone", key_prefix="inf-gone", model="gone/model")])
    for query in (f"key={prefix}", "key=inf-gone", "model=chat-large", "model=gone/model", f"app=shop&key={prefix}"):
        assert new_plane.http.get(f"/usage?{query}").status_code == 200, query
    for query in ("/usage?key=inf-nope", "/usage?app=shop&key=inf-gone", "/apps/shop/usage/entries?key=inf-gone"):
        status, told = new_plane.refused("GET", query)
        assert (status, told["resource"]) == (404, "key"), query
    for query in (f"key={prefix}", "key=inf-gone"):
        assert call(new_plane, member, "GET", f"/usage?{query}").status_code == 404
    assert call(new_plane, member, "GET", "/usage?model=gone/model").status_code == 422


def test_one_request_is_found_by_its_id(each_plane: Plane) -> None:
    use(each_plane, each_plane.app("shop"))
    member = each_plane.operator("member@example.com", Role.MEMBER)
    for path in ("/usage/entries", "/apps/shop/usage/entries"):
        assert [one["request_id"] for one in each_plane.ok("GET", f"{path}?request=shop-1")] == ["shop-1"]
        assert each_plane.ok("GET", f"{path}?request=shop-9") == []
    assert [one["seq"] for one in each_plane.ok("GET", "/usage/entries?request=shop-1&key=inf-shop")] == [2]
    assert call(each_plane, member, "GET", "/usage/entries?request=shop-1").json() == []


@pytest.mark.parametrize(
    ("header", "status"),
    [("cursor 12..", 422), ("cursor x-y..", 422), ("name ..", 416), ("seq ..; max=2", 200), ("cursor 1-1..2-2", 200)],
)
def test_a_range_that_is_none_is_refused(plane: Plane, header: str, status: int) -> None:
    assert plane.http.get("/usage/entries", headers={"Range": header}).status_code == status
