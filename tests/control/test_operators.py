"""Operators and their tokens: who may make, change and remove whom, and that nobody gets more than they have."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penstock.domain.access import Role
from penstock.domain.ids import new_operator_token, secret_hash
from tests.control.plane import EMAIL, Plane, call, status


def test_an_operator_is_made_with_a_role_and_a_token_that_is_shown_once(plane: Plane) -> None:
    made = plane.ok("POST", "/operators", email="Ann@Example.com", role="viewer")
    assert (made["email"], made["role"]) == ("ann@example.com", "viewer")
    minted = plane.ok("POST", "/operators/ann@example.com/tokens", description="first", expires_in=86400)
    listed = plane.http.get(f"/operators/{made['id']}/tokens")
    assert status(plane, minted["token"], "GET", "/account") == 200
    assert listed.json() == [{key: item for key, item in minted.items() if key != "token"}]
    assert minted["token"].startswith(minted["prefix"])
    assert minted["token"] not in listed.text
    assert plane.ok("GET", "/operators/ANN@example.com") == made
    assert made in plane.ok("GET", "/operators")


def test_without_a_role_an_operator_is_a_member(plane: Plane) -> None:
    assert plane.ok("POST", "/operators", email="plain@example.com")["role"] == "member"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "email"),
        ({"email": "no-at-sign"}, "email"),
        ({"email": "a/b@example.com"}, "email"),
        ({"email": f"{'a' * 65}@example.com"}, "email"),
        ({"email": "a@example.com\n"}, "email"),
        ({"email": 1}, "email"),
        ({"email": "x@example.com", "role": "king"}, "role"),
    ],
)
def test_a_wrong_field_of_an_operator_is_named(plane: Plane, body: dict[str, Any], field: str) -> None:
    code, told = plane.refused("POST", "/operators", **body)
    assert (code, told["id"]) == (422, "invalid_params")
    assert field in told["message"]


@pytest.mark.parametrize(
    "body",
    [{"expires_in": 0}, {"expires_in": 31_536_001}, {"expires_in": "soon"}, {"expires_in": True}, {"expires_in": 1.5}],
)
def test_a_life_of_a_token_that_is_no_number_of_seconds_up_to_a_year_is_refused(
    plane: Plane, body: dict[str, Any]
) -> None:
    code, told = plane.refused("POST", "/operators/~/tokens", **body)
    assert code == 422
    assert "expires_in" in told["message"]


def test_a_description_that_the_column_does_not_take_is_refused(plane: Plane) -> None:
    assert "description" in plane.refused("POST", "/operators/~/tokens", description="x" * 257)[1]["message"]


def test_an_email_is_one_operators_in_any_case_of_letters(plane: Plane) -> None:
    plane.ok("POST", "/operators", email="taken@example.com")
    told = {"id": "invalid_params", "message": "Email taken@example.com is already taken"}
    assert plane.refused("POST", "/operators", email="TAKEN@example.com") == (422, told)
    plane.ok("POST", "/operators", email="mover@example.com")
    assert plane.refused("PATCH", "/operators/mover@example.com", email="Taken@example.com")[0] == 422
    assert plane.refused("PATCH", "/operators/mover@example.com")[0] == 422


def test_a_new_email_is_that_of_the_owners_apps_too(plane: Plane) -> None:
    token = plane.operator("before@example.com", Role.MEMBER)
    app = call(plane, token, "POST", "/apps").json()["name"]
    assert plane.ok("PATCH", "/operators/before@example.com", email="after@example.com")["email"] == "after@example.com"
    assert plane.ok("GET", f"/apps/{app}")["owner"]["email"] == "after@example.com"
    assert call(plane, token, "GET", "/account").json()["email"] == "after@example.com"


def test_an_operator_that_is_not_there_is_404_with_its_resource(plane: Plane) -> None:
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/tokens")):
        code, told = plane.refused(method, f"/operators/nobody@example.com{path}", role="viewer")
        assert (code, told["resource"]) == (404, "operator")
    assert plane.refused("DELETE", "/operators/~/tokens/none")[1]["resource"] == "authorization"


def test_a_removed_operators_tokens_end_at_once_and_their_apps_are_the_removers(plane: Plane) -> None:
    gone, guest = plane.operator("gone@example.com", Role.MEMBER), plane.operator("stays@example.com", Role.MEMBER)
    app = call(plane, gone, "POST", "/apps").json()["name"]
    other = call(plane, guest, "POST", "/apps").json()["name"]
    assert status(plane, guest, "POST", f"/apps/{other}/collaborators", user="gone@example.com") == 201
    assert status(plane, gone, "POST", f"/apps/{app}/collaborators", user=EMAIL) == 201
    assert plane.ok("DELETE", "/operators/gone@example.com")["email"] == "gone@example.com"
    for method, path in (("GET", "/account"), ("POST", "/apps"), ("POST", "/oauth/authorizations")):
        assert status(plane, gone, method, path) == 401
    assert plane.ok("GET", f"/apps/{app}")["owner"]["email"] == EMAIL
    shared = {one["user"]["email"] for name in (app, other) for one in plane.ok("GET", f"/apps/{name}/collaborators")}
    assert shared == {EMAIL, "stays@example.com"}
    assert len(plane.ok("GET", f"/apps/{app}/collaborators")) == 1


def test_an_expired_token_is_refused(plane: Plane) -> None:
    token, owner = new_operator_token(), plane.stores.operators.get(EMAIL)
    ended = datetime.now(UTC) - timedelta(seconds=1)
    plane.stores.operators.add_token(owner.id, secret_hash(token), prefix=token, description="old", expires_at=ended)
    assert status(plane, token, "GET", "/account") == 401


# Who may make, change, remove and mint for whom; everybody not listed gets 403.
MANAGES = {
    Role.OWNER: {Role.OWNER, Role.ADMIN, Role.MEMBER, Role.VIEWER},
    Role.ADMIN: {Role.MEMBER, Role.VIEWER},
    Role.MEMBER: set[Role](),
    Role.VIEWER: set[Role](),
}


@pytest.mark.parametrize("target", list(Role))
@pytest.mark.parametrize("caller", list(Role))
def test_nobody_makes_or_manages_whom_their_role_does_not_cover(plane: Plane, caller: Role, target: Role) -> None:
    token = plane.operator(f"{caller}-over-{target}@example.com", caller)
    plane.operator(f"{target}-under-{caller}@example.com", target)
    path = f"/operators/{target}-under-{caller}@example.com"
    minted = plane.ok("POST", f"{path}/tokens")["id"]
    calls: list[tuple[str, str, dict[str, str]]] = [
        ("POST", "/operators", {"email": f"{target}-by-{caller}@example.com", "role": target}),
        ("GET", f"{path}/tokens", {}),
        ("POST", f"{path}/tokens", {}),
        ("DELETE", f"{path}/tokens/{minted}", {}),
        ("PATCH", path, {"email": f"{target}-under-{caller}@example.org"}),
        ("DELETE", f"/operators/{target}-under-{caller}@example.org", {}),
    ]
    before = len(plane.ok("GET", "/operators"))
    for method, url, body in calls:
        if target in MANAGES[caller]:
            assert status(plane, token, method, url, **body) in (200, 201), (method, url)
        else:
            still = url.replace("example.org", "example.com")
            assert status(plane, token, method, still, **body) == 403, (method, url)
    assert len(plane.ok("GET", "/operators")) == before


@pytest.mark.parametrize(
    ("caller", "was", "wanted"),
    [
        (Role.ADMIN, Role.MEMBER, Role.ADMIN),
        (Role.ADMIN, Role.MEMBER, Role.OWNER),
        (Role.ADMIN, Role.ADMIN, Role.MEMBER),
        (Role.ADMIN, Role.OWNER, Role.VIEWER),
        (Role.MEMBER, Role.MEMBER, Role.OWNER),
        (Role.VIEWER, Role.VIEWER, Role.MEMBER),
    ],
)
def test_no_role_is_raised_or_taken_by_who_is_no_owner(plane: Plane, caller: Role, was: Role, wanted: Role) -> None:
    token = plane.operator(f"{caller}-{was}-{wanted}@example.com", caller)
    plane.operator(f"target-{caller}-{was}-{wanted}@example.com", was)
    for ref in (f"target-{caller}-{was}-{wanted}@example.com", "~"):
        if ref == "~" and caller is not was:
            continue
        assert status(plane, token, "PATCH", f"/operators/{ref}", role=wanted) == 403
    assert plane.ok("GET", f"/operators/target-{caller}-{was}-{wanted}@example.com")["role"] == was


@pytest.mark.parametrize("role", list(Role))
def test_everybody_manages_their_own_tokens(plane: Plane, role: Role) -> None:
    email = f"self-{role}@example.com"
    token = plane.operator(email, role)
    for ref in ("~", email, email.upper(), plane.stores.operators.get(email).id):
        made = call(plane, token, "POST", f"/operators/{ref}/tokens", description="mine")
        assert made.status_code == 201
        assert status(plane, made.json()["token"], "GET", f"/operators/{ref}/tokens") == 200
        assert status(plane, token, "DELETE", f"/operators/{ref}/tokens/{made.json()['id']}") == 200
        assert status(plane, made.json()["token"], "GET", "/account") == 401


def test_a_token_of_another_is_not_found_under_ones_own_name(plane: Plane) -> None:
    token = plane.operator("thief@example.com", Role.MEMBER)
    (own,) = (one["id"] for one in plane.ok("GET", "/operators/~/tokens") if one["prefix"] == plane.token[:12])
    assert status(plane, token, "DELETE", f"/operators/~/tokens/{own}") == 404
    assert status(plane, plane.token, "GET", "/account") == 200


def test_the_last_owner_can_neither_be_demoted_nor_removed(new_plane: Plane) -> None:
    code, told = new_plane.refused("PATCH", f"/operators/{EMAIL}", role="admin")
    assert (code, told["id"]) == (422, "invalid_params")
    assert told["message"].startswith(f"{EMAIL} is the last owner.")
    assert new_plane.refused("DELETE", "/operators/~")[1] == told
    second = new_plane.operator("second@example.com", Role.OWNER)
    assert new_plane.refused("DELETE", "/operators/~")[0] == 422
    assert new_plane.ok("PATCH", "/operators/~", role="member")["role"] == "member"
    assert status(new_plane, second, "PATCH", "/operators/~", role="viewer") == 422


def test_what_happens_to_operators_and_tokens_is_in_the_audit_log_by_prefix_only(new_plane: Plane) -> None:
    new_plane.ok("POST", "/operators", email="ann@example.com")
    made = new_plane.ok("POST", "/operators/ann@example.com/tokens", description="ci")
    new_plane.ok("PATCH", "/operators/ann@example.com", role="admin")
    app = call(new_plane, made["token"], "POST", "/apps").json()["name"]
    own = call(new_plane, made["token"], "POST", "/oauth/authorizations", description="mine").json()
    call(new_plane, made["token"], "DELETE", f"/oauth/authorizations/{own['id']}")
    new_plane.ok("DELETE", "/operators/ann@example.com")
    events = [one for one in new_plane.ok("GET", "/audit-events") if one["source"] != "local"]
    assert [(one["action"], one["actor"]["email"], one["object"]["name"]) for one in events] == [
        ("operator.create", EMAIL, "ann@example.com"),
        ("token.create", EMAIL, made["prefix"]),
        ("operator.update", EMAIL, "ann@example.com"),
        ("app.create", "ann@example.com", app),
        ("token.create", "ann@example.com", own["access_token"]["token"][:12]),
        ("token.destroy", "ann@example.com", own["access_token"]["token"][:12]),
        ("app.update", EMAIL, app),
        ("operator.destroy", EMAIL, "ann@example.com"),
    ]
    assert events[2]["before"] == {"email": "ann@example.com", "role": "member"}
    assert events[2]["after"] == {"email": "ann@example.com", "role": "admin"}
    assert events[1]["after"] == {"operator": "ann@example.com", "description": "ci", "expires_at": None}
    assert events[-2]["after"] == {"owner": EMAIL}
    assert events[-1]["before"]["tokens"] == [made["prefix"]]
    written = repr(new_plane.stores.audit.list())
    assert made["token"] not in written
    assert own["access_token"]["token"] not in written
