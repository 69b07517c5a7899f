"""Who shares an app, in Heroku's shape, and passing an app on."""

from typing import Any

import pytest

from penstock.domain.access import Role
from tests.control.plane import EMAIL, Plane, call, status


def people(plane: Plane, app: str) -> dict[str, str]:
    """The role of each who is on an app, by email."""
    return {one["user"]["email"]: one["role"] for one in plane.ok("GET", f"/apps/{app}/collaborators")}


def test_an_app_is_shared_by_email_or_id_and_the_owner_stands_first(plane: Plane) -> None:
    app = plane.app()
    for name in ("ann", "bob"):
        plane.operator(f"{name}-shared@example.com", Role.MEMBER)
    bob = plane.stores.operators.get("bob-shared@example.com")
    made = plane.ok("POST", f"/apps/{app}/collaborators", user="ann-shared@example.com", silent=True)
    plane.ok("POST", f"/apps/{app}/collaborators", user={"id": bob.id}, role="viewer")
    assert made["user"]["email"] == "ann-shared@example.com"
    assert (made["app"]["name"], made["role"]) == (app, "member")
    wanted = [(EMAIL, "owner"), ("ann-shared@example.com", "member"), ("bob-shared@example.com", "viewer")]
    assert list(people(plane, app).items()) == wanted


def test_a_collaborator_gets_another_role_and_is_removed_by_email_or_id(plane: Plane) -> None:
    app, token = plane.app(), plane.operator("cara@example.com", Role.MEMBER)
    made = plane.ok("POST", f"/apps/{app}/collaborators", user="cara@example.com", role="viewer")
    assert status(plane, token, "GET", f"/apps/{app}/config-vars") == 403
    assert plane.ok("PATCH", f"/apps/{app}/collaborators/Cara@example.com", role="member")["role"] == "member"
    assert status(plane, token, "GET", f"/apps/{app}/config-vars") == 200
    for ref in ("cara@example.com", made["user"]["id"]):
        assert plane.ok("DELETE", f"/apps/{app}/collaborators/{ref}")["user"]["email"] == "cara@example.com"
        assert status(plane, token, "GET", f"/apps/{app}") == 404
        plane.ok("POST", f"/apps/{app}/collaborators", user="cara@example.com")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "user"),
        ({"user": "nobody@example.com"}, "user"),
        ({"user": 1}, "user"),
        ({"user": EMAIL}, "user"),
        ({"user": "dora@example.com", "role": "owner"}, "role"),
    ],
)
def test_a_wrong_field_of_a_collaborator_is_named(new_plane: Plane, body: dict[str, Any], field: str) -> None:
    new_plane.operator("dora@example.com", Role.MEMBER)
    code, told = new_plane.refused("POST", f"/apps/{new_plane.app()}/collaborators", **body)
    assert code == 422
    assert field in told["message"]
    assert ("penstock operators:add" in told["message"]) is (body == {"user": "nobody@example.com"})


def test_sharing_twice_is_refused_and_keeps_the_role(plane: Plane) -> None:
    app = plane.app()
    plane.operator("twice@example.com", Role.MEMBER)
    plane.ok("POST", f"/apps/{app}/collaborators", user="twice@example.com", role="viewer")
    code, told = plane.refused("POST", f"/apps/{app}/collaborators", user="twice@example.com", role="admin")
    assert (code, "already" in told["message"]) == (422, True)
    assert people(plane, app)["twice@example.com"] == "viewer"


def test_nobody_adds_or_promotes_themselves(plane: Plane) -> None:
    app = plane.app()
    stranger = plane.operator("stranger@example.com", Role.MEMBER)
    viewer = plane.operator("watcher@example.com", Role.VIEWER)
    guest = plane.operator("guest@example.com", Role.MEMBER)
    plane.ok("POST", f"/apps/{app}/collaborators", user="guest@example.com")
    path = f"/apps/{app}/collaborators"
    assert status(plane, stranger, "POST", path, user="stranger@example.com", role="admin") == 404
    assert status(plane, viewer, "POST", path, user="watcher@example.com", role="admin") == 403
    assert status(plane, guest, "POST", path, user="stranger@example.com") == 403
    assert status(plane, guest, "PATCH", f"{path}/guest@example.com", role="admin") == 403
    assert people(plane, app) == {EMAIL: "owner", "guest@example.com": "member"}


def test_one_may_leave_an_app_but_not_remove_another(plane: Plane) -> None:
    app, leaver = plane.app(), plane.operator("leaver@example.com", Role.MEMBER)
    plane.operator("other@example.com", Role.MEMBER)
    for email in ("leaver@example.com", "other@example.com"):
        plane.ok("POST", f"/apps/{app}/collaborators", user=email, role="viewer")
    assert status(plane, leaver, "DELETE", f"/apps/{app}/collaborators/other@example.com") == 403
    assert status(plane, leaver, "DELETE", f"/apps/{app}/collaborators/leaver@example.com") == 200
    assert status(plane, leaver, "DELETE", f"/apps/{app}/collaborators/leaver@example.com") == 404
    assert people(plane, app) == {EMAIL: "owner", "other@example.com": "viewer"}


def test_the_owner_is_not_removed_and_who_is_not_there_is_404(plane: Plane) -> None:
    app = plane.app()
    assert plane.refused("DELETE", f"/apps/{app}/collaborators/{EMAIL}")[0] == 422
    assert plane.refused("DELETE", f"/apps/{app}/collaborators/x@example.com")[1]["resource"] == "collaborator"
    assert plane.refused("PATCH", f"/apps/{app}/collaborators/x@example.com", role="viewer")[0] == 404


def test_an_app_is_passed_on_by_its_owner_or_the_installations_and_nobody_else(plane: Plane) -> None:
    owner, heir = plane.operator("giver@example.com", Role.MEMBER), plane.operator("heir@example.com", Role.MEMBER)
    admin, guest = plane.operator("boss@example.com", Role.ADMIN), plane.operator("helper@example.com", Role.MEMBER)
    app = call(plane, owner, "POST", "/apps").json()["name"]
    assert status(plane, owner, "POST", f"/apps/{app}/collaborators", user="helper@example.com", role="admin") == 201
    assert status(plane, owner, "POST", f"/apps/{app}/collaborators", user="heir@example.com") == 201
    assert status(plane, guest, "PATCH", f"/apps/{app}", owner="helper@example.com") == 403
    assert status(plane, heir, "PATCH", f"/apps/{app}", owner="heir@example.com") == 403
    passed = call(plane, owner, "PATCH", f"/apps/{app}", owner="heir@example.com")
    assert passed.json()["owner"]["email"] == "heir@example.com"
    assert people(plane, app) == {
        "heir@example.com": "owner",
        "giver@example.com": "member",
        "helper@example.com": "admin",
    }
    assert status(plane, owner, "PATCH", f"/apps/{app}", owner="giver@example.com") == 403
    assert status(plane, admin, "PATCH", f"/apps/{app}", owner="giver@example.com") == 200
    assert status(plane, admin, "PATCH", f"/apps/{app}", owner="nobody@example.com") == 422
    assert status(plane, admin, "PATCH", f"/apps/{app}", owner="giver@example.com", name="two-at-once") == 422
    assert status(plane, admin, "PATCH", f"/apps/{app}") == 422


def test_sharing_and_passing_on_are_in_the_apps_audit_log(new_plane: Plane) -> None:
    app = new_plane.app()
    new_plane.operator("ann@example.com", Role.MEMBER)
    path = f"/apps/{app}/collaborators"
    new_plane.ok("POST", path, user="ann@example.com")
    new_plane.ok("PATCH", f"{path}/ann@example.com", role="admin")
    new_plane.ok("DELETE", f"{path}/ann@example.com")
    new_plane.ok("PATCH", f"/apps/{app}", owner="ann@example.com")
    events = new_plane.ok("GET", f"/apps/{app}/audit-events")
    assert [(one["action"], one["object"]["name"], one["before"], one["after"]) for one in events[1:]] == [
        ("collaborator.create", "ann@example.com", None, {"role": "member"}),
        ("collaborator.update", "ann@example.com", {"role": "member"}, {"role": "admin"}),
        ("collaborator.destroy", "ann@example.com", {"role": "admin"}, None),
        ("app.update", app, {"owner": EMAIL}, {"owner": "ann@example.com"}),
        ("collaborator.create", EMAIL, None, {"role": "member"}),
    ]


def test_who_comes_and_goes_with_an_app_passed_on_or_an_operator_removed_is_in_the_audit_log(new_plane: Plane) -> None:
    ann = new_plane.operator("ann@example.com", Role.MEMBER)
    app, other = call(new_plane, ann, "POST", "/apps").json()["name"], new_plane.app()
    new_plane.operator("bob@example.com", Role.MEMBER)
    for name, user, role in ((app, "bob@example.com", "viewer"), (other, "bob@example.com", "admin")):
        new_plane.ok("POST", f"/apps/{name}/collaborators", user=user, role=role)
    new_plane.ok("PATCH", f"/apps/{app}", owner="bob@example.com")
    new_plane.ok("POST", f"/apps/{app}/collaborators", user=EMAIL, role="viewer")
    before = len(new_plane.ok("GET", "/audit-events"))
    assert before == 10
    new_plane.ok("DELETE", "/operators/bob@example.com")
    events = new_plane.ok("GET", "/audit-events")
    told = [(one["action"], one["app"] and one["app"]["name"], one["object"]["name"], one["before"]) for one in events]
    assert told[6:9] == [
        ("app.update", app, app, {"owner": "ann@example.com"}),
        ("collaborator.destroy", app, "bob@example.com", {"role": "viewer"}),
        ("collaborator.create", app, "ann@example.com", None),
    ]
    assert sorted(told[before:-1], key=repr) == sorted(
        [
            ("app.update", app, app, {"owner": "bob@example.com"}),
            ("collaborator.destroy", app, EMAIL, {"role": "viewer"}),
            ("collaborator.destroy", other, "bob@example.com", {"role": "admin"}),
        ],
        key=repr,
    )
    assert people(new_plane, app) == {EMAIL: "owner", "ann@example.com": "member"}
    assert people(new_plane, other) == {EMAIL: "owner"}
