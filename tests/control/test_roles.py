"""Who may do what: every route is called by every role, and what the table below does not allow is refused."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import httpx
import pytest

from penstock.control.api import guarded, routes
from penstock.control.context import ControlContext
from penstock.domain.access import Open, Permission, Role
from penstock.domain.limits import Scope
from penstock.store.nouns.stores import Stores
from penstock.web.api import Reply, Request, Route
from tests.control.plane import CATALOGUE, Plane, running_plane
from tests.store.nouns import budget_of, limit_of

# Columns: roles over the installation, then on the app of a member of the installation. "-" sees nothing of the app.
CALLERS = ("owner", "admin", "viewer", "app owner", "app admin", "app member", "app viewer", "stranger")
# An own copy of the rules, in the reader's terms: y = allowed, n = 403, - = as if it did not exist (404).
RULES: dict[Permission, str] = {
    Permission.APP_READ: "y y y y y y y -",
    Permission.APP_SECRETS: "y y n y y y n -",
    Permission.APP_CHANGE: "y y n y y y n -",
    Permission.APP_SHARE: "y y n y y n n -",
    Permission.APP_AUDIT: "y y n y y n n -",
    Permission.APP_DESTROY: "y y n y n n n -",
    Permission.APPS_CREATE: "y y n y y y y y",
    Permission.AUDIT_READ: "y y n n n n n n",
    Permission.CREDENTIALS_MANAGE: "y y n n n n n n",
    Permission.LIMITS_MANAGE: "y y n n n n n n",
    Permission.OPERATORS_READ: "y y y n n n n n",
    Permission.OPERATORS_MANAGE: "y y n n n n n n",
    Permission.OWNERS_MANAGE: "y n n n n n n n",
    Permission.USAGE_READ: "y y y n n n n n",
}
# What each route that asks for a permission needs, as the pages promise it: a route that is not here fails the test.
NEEDS = {
    "POST /apps": Permission.APPS_CREATE,
    "GET /apps/{app}": Permission.APP_READ,
    "PATCH /apps/{app}": Permission.APP_SHARE,
    "DELETE /apps/{app}": Permission.APP_DESTROY,
    "GET /apps/{app}/releases": Permission.APP_READ,
    "GET /apps/{app}/dynos": Permission.APP_READ,
    "GET /apps/{app}/collaborators": Permission.APP_READ,
    "POST /apps/{app}/collaborators": Permission.APP_SHARE,
    "PATCH /apps/{app}/collaborators/{collaborator}": Permission.APP_SHARE,
    "DELETE /apps/{app}/collaborators/{collaborator}": Permission.APP_SHARE,
    "GET /apps/{app}/audit-events": Permission.APP_AUDIT,
    "GET /audit-events": Permission.AUDIT_READ,
    "GET /limits": Permission.USAGE_READ,
    "PATCH /limits": Permission.LIMITS_MANAGE,
    "DELETE /limits": Permission.LIMITS_MANAGE,
    "GET /limits/defaults": Permission.USAGE_READ,
    "GET /apps/{app}/limits": Permission.APP_READ,
    "PATCH /apps/{app}/limits": Permission.LIMITS_MANAGE,
    "DELETE /apps/{app}/limits": Permission.LIMITS_MANAGE,
    "GET /apps/{app}/limits/defaults": Permission.APP_READ,
    "GET /budgets": Permission.USAGE_READ,
    "PUT /budgets": Permission.LIMITS_MANAGE,
    "DELETE /budgets": Permission.LIMITS_MANAGE,
    "GET /budgets/defaults": Permission.USAGE_READ,
    "GET /apps/{app}/budgets": Permission.APP_READ,
    "PUT /apps/{app}/budgets": Permission.LIMITS_MANAGE,
    "GET /apps/{app}/budgets/defaults": Permission.APP_READ,
    "DELETE /apps/{app}/budgets": Permission.LIMITS_MANAGE,
    "GET /credentials": Permission.CREDENTIALS_MANAGE,
    "PUT /credentials/{credential}": Permission.CREDENTIALS_MANAGE,
    "DELETE /credentials/{credential}": Permission.CREDENTIALS_MANAGE,
    "GET /operators": Permission.OPERATORS_READ,
    "POST /operators": Permission.OPERATORS_MANAGE,
    "GET /operators/{operator}": Permission.OPERATORS_READ,
    "PATCH /operators/{operator}": Permission.OPERATORS_MANAGE,
    "DELETE /operators/{operator}": Permission.OPERATORS_MANAGE,
    "GET /apps/{app}/config-vars": Permission.APP_SECRETS,
    "PATCH /apps/{app}/config-vars": Permission.APP_CHANGE,
    "POST /apps/{app}/addons": Permission.APP_CHANGE,
    "GET /apps/{app}/addons": Permission.APP_READ,
    "GET /apps/{app}/addons/{addon}": Permission.APP_READ,
    "DELETE /apps/{app}/addons/{addon}": Permission.APP_CHANGE,
    "GET /apps/{app}/policy": Permission.APP_READ,
    "PUT /apps/{app}/policy": Permission.APP_CHANGE,
    "GET /apps/{app}/contents": Permission.APP_SECRETS,
    "GET /apps/{app}/keys": Permission.APP_READ,
    "POST /apps/{app}/keys": Permission.APP_CHANGE,
    "POST /apps/{app}/keys/{key}/actions/rotate": Permission.APP_CHANGE,
    "DELETE /apps/{app}/keys/{key}": Permission.APP_CHANGE,
    "GET /addons/{addon}": Permission.APP_READ,
    "POST /addon-attachments": Permission.APP_CHANGE,
    "GET /addon-attachments/{attachment}": Permission.APP_READ,
    "DELETE /addon-attachments/{attachment}": Permission.APP_CHANGE,
    "GET /apps/{app}/addon-attachments": Permission.APP_READ,
    "GET /apps/{app}/addon-attachments/{attachment}": Permission.APP_READ,
    "GET /addons/{addon}/addon-attachments": Permission.APP_READ,
    "POST /actions/addons/resolve": Permission.APP_READ,
    "POST /actions/addon-attachments/resolve": Permission.APP_READ,
    "GET /apps/{app}/usage": Permission.APP_READ,
    "GET /apps/{app}/usage/entries": Permission.APP_READ,
}
# Lists show what the caller may read, so nobody is refused; what they hold is asserted below.
LISTS = {"GET /apps", "GET /addons", "GET /addon-attachments", "GET /usage", "GET /usage/entries"}
# Any operator may call these: what they answer about is the caller's own, or checked further (test_operators.py).
OWN = {
    "GET /account",
    "GET /users/~/apps",
    "GET /users/~",
    "GET /oauth/authorizations",
    "POST /oauth/authorizations",
    "GET /oauth/authorizations/{authorization}",
    "DELETE /oauth/authorizations/{authorization}",
    "DELETE /oauth/sessions/~",
    "GET /operators/{operator}/tokens",
    "POST /operators/{operator}/tokens",
    "DELETE /operators/{operator}/tokens/{token}",
    "GET /addon-services",
    "GET /addon-services/{service}",
    "GET /addon-services/{service}/plans",
    "GET /addon-services/{service}/plans/{plan}",
}
# Where the query says what is meant.
QUERIES = {
    "DELETE /limits": "?model=chat-large",
    "DELETE /budgets": "?model=chat-large&period=month",
    "DELETE /apps/{app}/budgets": "?period=month",
}


@dataclass(frozen=True)
class House:
    """A plane with an operator of every kind, and a shared app that is made anew for each call."""

    plane: Plane
    tokens: dict[str, str]

    def share(self) -> dict[str, str]:
        """A new app with an add-on, in which every caller has their role: the parameters of a path."""
        made = self.plane.http.post("/apps", json={}, headers=self.auth("app owner")).json()
        addon = self.plane.addon(made["name"])
        for email, role in (("appadmin", Role.ADMIN), ("appmember", Role.MEMBER), ("appviewer", Role.VIEWER)):
            operator = self.plane.stores.operators.get(f"{email}@example.com")
            self.plane.stores.collaborators.put(made["id"], operator.id, role=role)
        attachment = self.plane.stores.attachments.list(app_id=made["id"])[0]
        guest, newcomer = f"guest-{made['name']}@example.com", f"newcomer-{made['name']}@example.com"
        self.plane.operator(guest, Role.MEMBER)
        self.plane.operator(newcomer, Role.MEMBER)
        self.plane.stores.credentials.put(made["name"], "sk-1", by="o@example.com")
        self.plane.stores.collaborators.put(made["id"], self.plane.stores.operators.get(guest).id, role=Role.VIEWER)
        for scope, id_ in ((Scope.APP, made["id"]), (Scope.MODEL, "chat-large")):
            self.plane.stores.limits.put(limit_of(scope, id_))
            self.plane.stores.budgets.put(budget_of(scope, id_))
        return {
            "app": made["name"],
            "addon": addon["name"],
            "attachment": attachment.id,
            "alias": attachment.name,
            "collaborator": guest,
            "operator": newcomer,
            "key": attachment.name,
            "prefix": self.plane.stores.keys.list_public(attachment_id=attachment.id)[0].prefix,
            "credential": made["name"],
            "token": "none",
            "authorization": "none",
            "service": "s",
            "plan": "p",
        }

    def auth(self, caller: str) -> dict[str, str]:
        """The header with which a caller signs in."""
        return {"Authorization": f"Bearer {self.tokens[caller]}"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with running_plane(tmp_path_factory.mktemp("roles")) as plane:
        tokens = {"owner": plane.token}
        for caller in CALLERS[1:]:
            everywhere = Role(caller) if caller in ("admin", "viewer") else Role.MEMBER
            tokens[caller] = plane.operator(f"{caller.replace(' ', '')}@example.com", everywhere)
        yield House(plane, tokens)


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def table() -> list[Route]:
    """Every route of the control plane; the handlers are not called, so that nothing stands behind them."""
    context = ControlContext(gateway_url="http://127.0.0.1", catalogue=CATALOGUE, version="0")
    return routes(cast(Stores, None), context)


def body_for(route: Route, path: dict[str, str]) -> dict[str, object] | None:
    """A body with which the route would succeed."""
    bodies: dict[str, dict[str, object]] = {
        "POST /apps": {},
        "PATCH /apps/{app}": {"name": f"{path['app'][:20]}-2"},
        "PATCH /apps/{app}/config-vars": {"A": "1"},
        "POST /apps/{app}/addons": {"plan": "heroku-inference:standard"},
        "POST /apps/{app}/keys": {"attachment": path["alias"]},
        "POST /addon-attachments": {"app": path["app"], "addon": path["addon"]},
        "POST /apps/{app}/collaborators": {"user": path["operator"]},
        "PATCH /apps/{app}/collaborators/{collaborator}": {"role": "member"},
        "PATCH /limits": {"model": "chat-large", "max_tokens": 9},
        "PATCH /apps/{app}/limits": {"addon": path["addon"], "max_tokens": 9},
        "PUT /budgets": {"model": "chat-large", "amount": "2", "period": "month"},
        "PUT /apps/{app}/budgets": {"key": path["prefix"], "amount": "2", "period": "month"},
        "PUT /credentials/{credential}": {"value": "sk-1"},
        "PUT /apps/{app}/policy": {"content_days": 7},
        "POST /operators": {"email": f"new-{path['operator']}"},
        "PATCH /operators/{operator}": {"role": "viewer"},
        "POST /actions/addons/resolve": {"addon": path["addon"], "app": path["app"]},
        "POST /actions/addon-attachments/resolve": {"addon_attachment": path["alias"], "app": path["app"]},
    }
    return bodies.get(name_of(route))


def call(house: House, route: Route, caller: str) -> httpx.Response:
    path = house.share()
    url = route.path.format(**path) + QUERIES.get(name_of(route), "")
    return house.plane.http.request(
        route.method, url, json=body_for(route, path), headers=house.auth(caller), timeout=30
    )


def test_every_route_declares_what_it_needs() -> None:
    declared = {name_of(route): route.access for route in table() if not isinstance(route.access, Open)}
    assert declared == NEEDS | dict.fromkeys(LISTS, Permission.APP_READ)


def test_the_routes_that_need_no_token_are_these() -> None:
    public = {name_of(route) for route in table() if route.access is Open.PUBLIC}
    assert public == {"GET /healthz", "GET /available-models", "GET /schema", "GET /openapi.json"}


def test_the_routes_that_any_operator_may_call_are_these() -> None:
    assert {name_of(route) for route in table() if route.access is Open.OPERATOR} == OWN


@pytest.mark.parametrize("route", [r for r in table() if name_of(r) in NEEDS], ids=name_of)
def test_a_role_gets_what_it_is_given_and_no_more(house: House, route: Route) -> None:
    expected = dict(zip(CALLERS, RULES[NEEDS[name_of(route)]].split(), strict=True))
    for caller, verdict in expected.items():
        reply = call(house, route, caller)
        if verdict == "y":
            assert reply.status_code in (200, 201, 206), (caller, reply.text)
        else:
            wanted = (403, "forbidden") if verdict == "n" else (404, "not_found")
            assert (reply.status_code, reply.json()["id"]) == wanted, (caller, reply.text)


@pytest.mark.parametrize("route", [r for r in table() if r.access is not Open.PUBLIC], ids=name_of)
def test_without_a_token_nothing_but_the_public_routes_answers(house: House, route: Route) -> None:
    path = house.share()
    reply = httpx.request(route.method, house.plane.url + route.path.format(**path))
    assert reply.status_code == 401, route


@pytest.mark.parametrize("path", ["/apps", "/addons", "/addon-attachments"])
def test_a_list_holds_what_the_caller_may_read(house: House, path: str) -> None:
    shared = house.share()
    for caller in CALLERS:
        attribute = "id" if path == "/addon-attachments" else "name"
        found = house.plane.http.get(path, headers=house.auth(caller) | {"Range": f"{attribute} ..; max=1000"}).text
        assert (shared["app"] in found) == (caller != "stranger"), caller


def test_everybodys_own_list_holds_what_they_own_or_share_and_no_more(house: House) -> None:
    shared = house.share()
    for caller in CALLERS:
        own = house.plane.http.get("/users/~/apps", headers=house.auth(caller) | {"Range": "name ..; max=1000"}).text
        assert (shared["app"] in own) == caller.startswith("app "), caller


def test_an_addon_of_another_app_is_attached_only_with_both_owners_consent(house: House) -> None:
    shared, body = house.share(), {}
    own = house.plane.http.post("/apps", json={}, headers=house.auth("stranger")).json()["name"]
    body = {"app": own, "addon": shared["addon"]}
    assert house.plane.http.post("/addon-attachments", json=body, headers=house.auth("stranger")).status_code == 404
    viewed = house.plane.http.post("/apps", json={}, headers=house.auth("app viewer")).json()["name"]
    body = {"app": viewed, "addon": shared["addon"]}
    assert house.plane.http.post("/addon-attachments", json=body, headers=house.auth("app viewer")).status_code == 403


def test_the_owner_of_an_addon_sees_where_it_is_attached_and_detaches_it_there(house: House) -> None:
    shared, stores = house.share(), house.plane.stores
    private = house.plane.http.post("/apps", json={}, headers=house.auth("app member")).json()["name"]
    body = {"app": private, "addon": shared["addon"]}
    made = house.plane.http.post("/addon-attachments", json=body, headers=house.auth("app member")).json()
    member = stores.operators.get("appmember@example.com")
    stores.collaborators.remove(stores.apps.get(shared["app"]).id, member.id)
    owner, path = house.auth("app owner"), f"/addon-attachments/{made['id']}"
    listed = house.plane.http.get(f"/addons/{shared['addon']}/addon-attachments", headers=owner).json()
    assert made["id"] in {attachment["id"] for attachment in listed}
    trail = house.plane.http.get(f"/apps/{shared['app']}/audit-events?action=attachment.", headers=owner).json()
    assert trail[-1]["after"]["app"] == private
    assert house.plane.http.get(f"/apps/{private}", headers=owner).status_code == 404
    assert house.plane.http.delete(path, headers=house.auth("stranger")).status_code == 404
    assert house.plane.http.delete(path, headers=owner).status_code == 200
    assert house.plane.http.get(f"/apps/{private}/keys", headers=house.auth("app member")).json() == []


def test_a_handler_that_asked_nobody_answers_500() -> None:
    route = guarded(Route("GET", "/x", lambda request: Reply(200, {}), Permission.APP_READ))
    request = Request(
        method="GET", path="/x", params={}, query={}, headers={}, body=None, operator=None, request_id="r",
        source="s", access=Permission.APP_READ,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="did not check app:read"):
        route.handler(request)
