"""Limits and budgets over the Platform API: set, listed with where they come from, removed, and told."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from penstock.domain.access import Role
from penstock.domain.limits import UNLIMITED, Scope, period_end, period_start
from penstock.settings.tree import BudgetDefault, LimitDefault
from penstock.store.governance import budget_periods
from tests.control.plane import EMAIL, Plane, call, running_plane, status
from tests.control.test_races import together
from tests.store.nouns import budget_of

BOUNDS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "max_tokens")


def bounds(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in BOUNDS)


@pytest.fixture
def shop(plane: Plane) -> Iterator[str]:
    """An app with one add-on, attached as INFERENCE."""
    app = plane.app()
    plane.addon(app)
    yield app
    plane.ok("DELETE", f"/apps/{app}")


def prefix_of(plane: Plane, app: str) -> str:
    return plane.config(app)["INFERENCE_KEY"][:12]


def test_limits_are_set_field_by_field_and_removed(each_plane: Plane) -> None:
    plane = each_plane
    app = plane.app("shop")
    made = plane.ok("PATCH", "/apps/shop/limits", requests_per_minute=60, tokens_per_minute="unlimited")
    assert (made["object"]["type"], made["object"]["name"], made["app"]["name"]) == ("app", app, app)
    assert (bounds(made), made["model"], made["updated_by"]) == ((60, "unlimited", None, None), None, EMAIL)
    changed = plane.ok("PATCH", "/apps/shop/limits", max_tokens=500, tokens_per_minute=None)
    assert (changed["id"], bounds(changed)) == (made["id"], (60, None, None, 500))
    assert plane.ok("GET", "/apps/shop/limits") == plane.ok("GET", "/limits") == [changed]
    row = plane.stores.limits.get(Scope.APP, made["object"]["id"])
    assert (row.limits.requests_per_minute, row.limits.tokens_per_minute) == (60, None)
    assert plane.ok("DELETE", "/apps/shop/limits") == changed
    status, body = plane.refused("DELETE", "/apps/shop/limits")
    assert (status, body["resource"]) == (404, "limit")


def test_a_row_that_says_nothing_any_more_is_none(plane: Plane, shop: str) -> None:
    made = plane.ok("PATCH", f"/apps/{shop}/limits", max_tokens=5)
    gone = plane.ok("PATCH", f"/apps/{shop}/limits", max_tokens=None)
    assert (gone["id"], bounds(gone)) == (made["id"], (None,) * 4)
    assert plane.ok("GET", f"/apps/{shop}/limits") == []
    assert plane.refused("PATCH", f"/apps/{shop}/limits", max_tokens=None)[0] == 404


def test_every_object_of_an_app_has_a_row_of_its_own_and_one_for_each_model(plane: Plane, shop: str) -> None:
    (addon,) = plane.ok("GET", f"/apps/{shop}/addons")
    prefix = prefix_of(plane, shop)
    objects: list[dict[str, Any]] = [
        {},
        {"addon": addon["name"]},
        {"addon": {"id": addon["id"]}},
        {"attachment": "inference"},
        {"key": prefix},
    ]
    for where in objects:
        for model in (None, "chat-large-latest"):
            made = plane.ok("PATCH", f"/apps/{shop}/limits", **where, max_tokens=7, model=model)
            assert made["model"] == (model and "chat-large")
    found = plane.ok("GET", f"/apps/{shop}/limits")
    types = [(row["object"]["type"], row["model"]) for row in found]
    assert sorted(types, key=str) == sorted(
        ((type_, model) for type_ in ("app", "addon", "attachment", "key") for model in (None, "chat-large")), key=str
    )
    assert {row["object"]["name"] for row in found} == {shop, addon["name"], "INFERENCE", prefix}
    principal = plane.principal(plane.config(shop)["INFERENCE_KEY"])
    assert principal is not None
    assert len(principal.limits) == 8
    assert plane.ok("DELETE", f"/apps/{shop}/limits?key={prefix}&model=chat-large")["object"]["name"] == prefix
    plane.ok("DELETE", f"/apps/{shop}/limits?attachment=INFERENCE")
    plane.ok("DELETE", f"/apps/{shop}/limits?addon={addon['id']}")
    assert len(plane.ok("GET", f"/apps/{shop}/limits")) == 5


def test_an_app_sees_the_limits_of_an_add_on_that_is_attached_to_it_and_sets_those_of_its_own(plane: Plane) -> None:
    owner, guest = plane.app(), plane.app()
    addon = plane.addon(owner)["name"]
    plane.attach(addon, guest, "SHARED")
    plane.ok("PATCH", f"/apps/{owner}/limits", addon=addon, max_tokens=3)
    plane.ok("PUT", f"/apps/{owner}/budgets", addon=addon, amount="1", period="day")
    (row,) = plane.ok("GET", f"/apps/{guest}/limits")
    assert (row["object"]["name"], row["app"]["name"]) == (addon, owner)
    assert len(plane.ok("GET", f"/apps/{guest}/budgets")) == 1
    status, body = plane.refused("PATCH", f"/apps/{guest}/limits", addon=addon, max_tokens=4)
    assert (status, body["resource"]) == (404, "add_on")
    plane.ok("DELETE", f"/apps/{owner}")
    assert plane.ok("GET", f"/apps/{guest}/limits") == []


def test_a_model_has_limits_of_its_own(new_plane: Plane) -> None:
    made = new_plane.ok("PATCH", "/limits", model="chat-large-latest", concurrent_requests=4)
    assert made["object"] == {"type": "model", "id": "chat-large", "name": "chat-large"}
    assert (made["app"], made["model"], bounds(made)) == (None, None, (None, None, 4, None))
    budget = new_plane.ok("PUT", "/budgets", model="chat-large", amount="5", period="day")
    shared = new_plane.stores.governance.shared()
    assert [row.subject_id for row in shared.limits] == ["chat-large"]
    assert [row.id for row in shared.budgets] == [budget["id"]]
    assert new_plane.ok("DELETE", "/limits?model=chat-large") == made
    assert new_plane.ok("DELETE", "/budgets?model=chat-large&period=day") == budget
    for path in ("/limits", "/budgets"):
        assert new_plane.ok("GET", path) == []


def test_what_is_about_a_model_that_left_the_catalogue_can_be_removed(new_plane: Plane) -> None:
    stores = new_plane.stores
    stores.budgets.put(budget_of(Scope.MODEL, "old/model"))
    app = stores.apps.get(new_plane.app("shop"))
    stores.budgets.put(budget_of(Scope.APP, app.id, model="old/model"))
    assert new_plane.refused("PATCH", "/limits", model="old/model", max_tokens=1)[0] == 422
    new_plane.ok("DELETE", "/budgets?model=old%2Fmodel&period=month")
    new_plane.ok("DELETE", "/apps/shop/budgets?model=old%2Fmodel&period=month")
    assert stores.budgets.list() == ()


@pytest.mark.parametrize("query", ["key=", "addon=", "attachment=", "model=", "kye=inf-x"])
def test_what_names_nothing_does_not_become_the_whole_app(plane: Plane, shop: str, query: str) -> None:
    made = plane.ok("PATCH", f"/apps/{shop}/limits", max_tokens=5)
    for path in (f"/apps/{shop}/limits?{query}", f"/apps/{shop}/budgets?period=day&{query}"):
        status, told = plane.refused("DELETE", path)
        assert (status, told["id"]) == (422, "invalid_params")
        assert query.partition("=")[0] in told["message"]
    assert plane.ok("GET", f"/apps/{shop}/limits") == [made]


def test_an_add_on_goes_by_its_alias_and_what_is_no_key_or_model_is_told(plane: Plane, shop: str) -> None:
    (addon,) = plane.ok("GET", f"/apps/{shop}/addons")
    assert plane.ok("PATCH", f"/apps/{shop}/limits", addon="inference", max_tokens=5)["object"]["id"] == addon["id"]
    _, told = plane.refused("PATCH", f"/apps/{shop}/limits", key="INFERENCE", max_tokens=5)
    assert "INFERENCE is an attachment" in told["message"]
    _, told = plane.refused("PATCH", f"/apps/{shop}/limits", model="standard", max_tokens=5)
    assert "the server's own choice" in told["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "Name at least one of requests_per_minute"),
        ({"rpm": 5}, "not rpm"),
        ({"requests_per_minute": 0}, "requests_per_minute must be at least 1"),
        ({"tokens_per_minute": -1}, "tokens_per_minute"),
        ({"tokens_per_minute": 10**12 + 1}, "tokens_per_minute must be at most"),
        ({"concurrent_requests": 1.5}, "concurrent_requests must be a whole number or a string, not a fraction"),
        ({"concurrent_requests": True}, "concurrent_requests"),
        ({"max_tokens": "many"}, 'max_tokens must be a number from 1 to 1000000000000, "unlimited" or null'),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": 1, "model": "none"}, "model: 'none' is not a model"),
        ({"max_tokens": 1, "model": 7}, "model"),
        ({"max_tokens": 1, "addon": "a", "key": "k"}, "addon and key exclude each other"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_by_its_name(
    plane: Plane, shop: str, body: dict[str, Any], field: str
) -> None:
    status, told = plane.refused("PATCH", f"/apps/{shop}/limits", **body)
    assert (status, told["id"]) == (422, "invalid_params")
    assert field in told["message"]
    assert plane.ok("GET", f"/apps/{shop}/limits") == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"period": "day"}, "amount is required"),
        ({"amount": "1"}, "period is required"),
        ({"amount": 1, "period": "day"}, "amount must be a string"),
        ({"amount": "-1", "period": "day"}, "amount must be text"),
        ({"amount": "1e3", "period": "day"}, "amount must be text"),
        ({"amount": "٣", "period": "day"}, "amount must be text"),
        ({"amount": "0.0000000001", "period": "day"}, "amount must be text"),
        ({"amount": "1000000001", "period": "day"}, "amount must be at most 1000000000"),
        ({"amount": "1", "period": "hour"}, "period must be one of day, week, month, total"),
        ({"amount": "1", "period": "day", "currency": "usd"}, "currency must be three capital letters"),
        ({"amount": "1", "period": "day", "alerts": [0]}, "alerts"),
        ({"amount": "1", "period": "day", "alerts": "50"}, "alerts must be an array"),
        ({"amount": "1", "period": "day", "model": "none"}, "model"),
        ({"amount": "1", "period": "day", "key": "none"}, "key"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_by_its_name(
    plane: Plane, shop: str, body: dict[str, Any], field: str
) -> None:
    status, told = plane.refused("PUT", f"/apps/{shop}/budgets", **body)
    assert status in (404, 422)
    assert field in told["message"]
    assert plane.ok("GET", f"/apps/{shop}/budgets") == []


def test_a_query_that_names_no_budget_is_refused_by_its_name(plane: Plane, shop: str) -> None:
    for query, field in (("", "period is required"), ("?period=x", "period"), ("?period=day&currency=e", "currency")):
        status, told = plane.refused("DELETE", f"/apps/{shop}/budgets{query}")
        assert status == 422
        assert field in told["message"]
    assert plane.refused("DELETE", "/limits")[1]["message"] == "model is required."
    status, body = plane.refused("DELETE", f"/apps/{shop}/budgets?period=day")
    assert (status, body["resource"]) == (404, "budget")


def test_a_budget_shows_what_is_spent_held_and_left_of_its_period(each_plane: Plane) -> None:
    plane = each_plane
    plane.app("shop")
    made = plane.ok("PUT", "/apps/shop/budgets", amount="12.50", period="month", alerts=[90, 50, 90])
    now = datetime.now(UTC)
    assert (made["amount"], made["spent"], made["held"], made["remaining"]) == ("12.5", "0", "0", "12.5")
    assert made["starts_at"] == f"{period_start('month', now)}T00:00:00Z"
    ends = period_end("month", now)
    assert ends is not None
    assert made["ends_at"] == f"{ends:%Y-%m-%dT%H:%M:%S}Z"
    assert (made["alerts"], made["alerted"], made["source"]) == ([50, 90], None, "operator")
    with plane.stores.db.write() as connection:
        connection.execute(update(budget_periods).values(spent_nanos=12_500_000_001, alerted=90))
    (found,) = plane.ok("GET", "/apps/shop/budgets")
    assert (found["spent"], found["remaining"], found["alerted"]) == ("12.500000001", "0", 90)
    raised = plane.ok("PUT", "/apps/shop/budgets", amount="20", period="month")
    assert (raised["id"], raised["alerts"], raised["remaining"]) == (made["id"], [50, 90], "7.499999999")
    total = plane.ok("PUT", "/apps/shop/budgets", amount="0", period="total", currency="EUR", alerts=[])
    assert (total["starts_at"], total["ends_at"], total["amount"], total["alerts"]) == (None, None, "0", [])
    assert len(plane.ok("GET", "/budgets")) == 2
    assert plane.ok("DELETE", "/apps/shop/budgets?period=total&currency=EUR") == total
    assert plane.ok("DELETE", "/apps/shop/budgets?period=month") == raised


def test_each_change_is_told_with_before_and_after_and_no_change_is_not(new_plane: Plane) -> None:
    plane = new_plane
    plane.app("shop")
    plane.ok("PATCH", "/apps/shop/limits", max_tokens=5)
    plane.ok("PATCH", "/apps/shop/limits", max_tokens=5)
    plane.ok("PATCH", "/apps/shop/limits", max_tokens="unlimited", model=None)
    plane.ok("DELETE", "/apps/shop/limits")
    for _ in range(2):
        plane.ok("PUT", "/apps/shop/budgets", amount="1.50", period="day", model="chat-small")
    plane.ok("PUT", "/apps/shop/budgets", amount="2", period="day", model="chat-small")
    plane.ok("DELETE", "/apps/shop/budgets?period=day&model=chat-small")
    found = plane.ok("GET", "/apps/shop/audit-events?action=limit.") + plane.ok(
        "GET", "/apps/shop/audit-events?action=budget."
    )
    told = [(event["action"], event["before"], event["after"]) for event in found]
    nothing = dict.fromkeys(BOUNDS)
    one, none = nothing | {"max_tokens": 5}, nothing | {"max_tokens": "unlimited"}
    assert told[:3] == [("limit.set", None, one), ("limit.set", one, none), ("limit.remove", none, None)]
    assert [(action, before and before["amount"], after and after["amount"]) for action, before, after in told[3:]] == [
        ("budget.set", None, "1.5"),
        ("budget.set", "1.5", "2"),
        ("budget.remove", "2", None),
    ]
    assert {event["object"]["name"] for event in found} == {"app shop", "app shop (chat-small)"}
    assert {event["app"]["name"] for event in found} == {"shop"}


def test_what_goes_with_its_object_is_told_in_the_name_of_who_removed_it(new_plane: Plane) -> None:
    plane = new_plane
    app = plane.app("shop")
    addon = plane.addon(app)
    prefix = prefix_of(plane, app)
    plane.ok("PATCH", f"/apps/{app}/limits", attachment="INFERENCE", requests_per_minute=5)
    plane.ok("PATCH", f"/apps/{app}/limits", key=prefix, model="chat-large", max_tokens="unlimited")
    plane.ok("PUT", f"/apps/{app}/budgets", attachment="INFERENCE", amount="7", period="day")
    plane.ok("PATCH", f"/apps/{app}/limits", addon=addon["name"], max_tokens=8)
    plane.ok("PUT", f"/apps/{app}/budgets", amount="9", period="total")
    (attachment,) = plane.ok("GET", f"/apps/{app}/addon-attachments")
    eve = plane.operator("eve@example.com", Role.MEMBER)
    plane.ok("POST", f"/apps/{app}/collaborators", user="eve@example.com", role="member")
    assert status(plane, eve, "DELETE", f"/addon-attachments/{attachment['id']}") == 200
    told = [event for event in plane.events() if event.action in ("limit.remove", "budget.remove")]
    assert [(event.actor_email, event.object_name) for event in told] == [
        ("eve@example.com", f"key {prefix} (chat-large)"),
        ("eve@example.com", "attachment INFERENCE"),
        ("eve@example.com", "attachment INFERENCE"),
    ]
    before = [event.before or {} for event in told]
    assert [one.get("amount") or bounds(one) for one in before] == [
        (None, None, None, "unlimited"), (5, None, None, None), "7",
    ]  # fmt: skip
    plane.ok("DELETE", f"/apps/{app}")
    last = [event.object_name for event in plane.events() if event.action in ("limit.remove", "budget.remove")][3:]
    assert last == [f"addon {addon['name']}", "app shop"]


def test_the_defaults_come_with_where_they_come_from(tmp_path: Path) -> None:
    rows = (
        LimitDefault(scope="key", requests_per_minute=10),
        LimitDefault(scope="addon", model="chat-large-latest", max_tokens=99, tokens_per_minute="unlimited"),
        BudgetDefault(scope="app", period="month", amount=50.5, alerts=(80,)),
    )
    with running_plane(tmp_path, defaults=rows) as plane:
        app = plane.app("shop")
        heroku = {"object_type": "addon", "model": "chat-large", "source": "heroku"}
        found = plane.ok("GET", "/limits/defaults")
        assert [(row["object_type"], row["model"], row["source"]) for row in found] == [
            ("key", None, "penstock.toml"),
            ("addon", "chat-large", "penstock.toml"),
            ("addon", "chat-large", "heroku"),
        ]
        assert [bounds(row) for row in found][1:] == [(None, "unlimited", None, 99), (150, 800_000, None, None)]
        assert found[2].items() >= heroku.items()
        assert plane.ok("GET", f"/apps/{app}/limits/defaults") == found[:2]
        plane.addon(app, "chat-small")
        assert plane.ok("GET", f"/apps/{app}/limits/defaults") == found[:2]
        plane.addon(app, "chat-large", "LARGE")
        assert plane.ok("GET", f"/apps/{app}/limits/defaults") == found
        (budget,) = plane.ok("GET", "/budgets/defaults")
        assert plane.ok("GET", f"/apps/{app}/budgets/defaults") == [budget]
        assert (budget["amount"], budget["alerts"], budget["source"]) == ("50.5", [80], "penstock.toml")
        made = plane.stores.budgets.put(
            budget_of(Scope.APP, plane.stores.apps.get(app).id, 50_500_000_000, origin="default")
        )
        (shown,) = plane.ok("GET", f"/apps/{app}/budgets")
        assert (shown["id"], shown["source"]) == (made.id, "default")
        assert plane.refused("DELETE", f"/apps/{app}/budgets?period=month")[0] == 404
        own = plane.ok("PUT", f"/apps/{app}/budgets", amount="50.5", period="month")
        assert (own["id"], own["source"]) == (made.id, "operator")
        plane.ok("DELETE", f"/apps/{app}/budgets?period=month")
        assert plane.ok("GET", f"/apps/{app}/budgets") == []


def test_lists_come_in_pages(new_plane: Plane) -> None:
    new_plane.app("shop")
    for model in (None, "chat-large", "chat-small"):
        new_plane.ok("PATCH", "/apps/shop/limits", max_tokens=5, model=model)
        new_plane.ok("PUT", "/apps/shop/budgets", amount="5", period="day", model=model)
    for path in ("/limits", "/budgets", "/apps/shop/limits", "/apps/shop/budgets"):
        first = new_plane.http.get(path, headers={"Range": "id ..; max=2"})
        rest = new_plane.http.get(path, headers={"Range": first.headers["next-range"]})
        assert (first.status_code, rest.status_code) == (206, 200)
        assert first.json() + rest.json() == new_plane.ok("GET", path)


def test_an_apps_owner_sees_its_limits_and_does_not_set_them(plane: Plane) -> None:
    token = plane.operator(f"owner-{plane.app()}@example.com", Role.MEMBER)
    app = call(plane, token, "POST", "/apps").json()["name"]
    plane.ok("PATCH", f"/apps/{app}/limits", max_tokens=5)
    assert [bounds(row)[3] for row in call(plane, token, "GET", f"/apps/{app}/limits").json()] == [5]
    for method, path, body in (
        ("PATCH", "limits", {"max_tokens": 6}),
        ("PUT", "budgets", {"amount": "1", "period": "day"}),
    ):
        assert call(plane, token, method, f"/apps/{app}/{path}", **body).status_code == 403
    assert call(plane, token, "GET", "/limits").status_code == 403


def test_operators_who_set_different_fields_at_once_keep_each_others(each_plane: Plane) -> None:
    plane = each_plane
    plane.app("shop")
    for path, named in (("/apps/shop/limits", {}), ("/limits", {"model": "chat-large"})):

        def put(number: int, path: str = path, named: dict[str, str] = named) -> int:
            body = {**named, BOUNDS[number]: number + 1}
            return plane.http.patch(path, json=body, timeout=60).status_code

        assert together(4, put) == [200] * 4
    assert [bounds(row) for row in plane.ok("GET", "/limits")] == [(1, 2, 3, 4)] * 2
    assert [row.limits.max_tokens for row in plane.stores.limits.list()] == [4, 4] != [UNLIMITED] * 2


def test_operators_who_set_one_budget_at_once_make_one(each_plane: Plane) -> None:
    plane = each_plane
    plane.app("shop")

    def put(number: int) -> int:
        body = {"amount": str(number + 1), "period": "week"}
        return plane.http.put("/apps/shop/budgets", json=body, timeout=60).status_code

    assert together(6, put) == [200] * 6
    (found,) = plane.ok("GET", "/apps/shop/budgets")
    trail = plane.ok("GET", "/apps/shop/audit-events?action=budget.set")
    assert trail[-1]["after"]["amount"] == found["amount"]
    assert [event["before"] and event["before"]["amount"] for event in trail[1:]] == [
        event["after"]["amount"] for event in trail[:-1]
    ]


def test_a_limit_set_while_its_key_goes_does_not_stay_behind(each_plane: Plane) -> None:
    plane = each_plane
    plane.addon(plane.app("shop"))
    keys = [plane.ok("POST", "/apps/shop/keys", attachment="INFERENCE")["prefix"] for _ in range(6)]

    def act(number: int) -> int:
        prefix = keys[number // 2]
        if number % 2:
            return plane.http.delete(f"/apps/shop/keys/{prefix}", timeout=60).status_code
        return plane.http.patch("/apps/shop/limits", json={"key": prefix, "max_tokens": 1}, timeout=60).status_code

    assert set(together(12, act)) <= {200, 404}
    assert plane.ok("GET", "/limits") == []


def test_what_was_set_is_there_after_a_restart(tmp_path: Path) -> None:
    paths = ("/apps/shop/limits", "/apps/shop/budgets", "/limits")
    with running_plane(tmp_path) as plane:
        plane.app("shop")
        plane.ok("PATCH", paths[0], max_tokens="unlimited")
        plane.ok("PUT", paths[1], amount="0.000000001", period="week", alerts=[])
        plane.ok("PATCH", "/limits", model="chat-small", max_tokens=5)
        before = [plane.ok("GET", path) for path in paths]
    with running_plane(tmp_path) as plane:
        assert [plane.ok("GET", path) for path in paths] == before
