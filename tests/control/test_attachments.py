"""Attachments, and finding add-ons and attachments by whatever the user typed."""

from typing import Any

import pytest

from tests.control.plane import Plane


def resolved(plane: Plane, noun: str, **fields: Any) -> list[str]:
    """The names that a resolver answers with."""
    found = plane.ok("POST", f"/actions/{noun}/resolve", **fields)
    assert isinstance(found, list)
    return [item["name"] for item in found]


def test_an_attachment_has_a_key_of_its_own(plane: Plane) -> None:
    app, other = plane.app(), plane.app()
    made = plane.addon(app, "chat-small")
    attached = plane.attach(made["name"], other, "zed")
    assert (attached["name"], attached["app"]["name"], attached["addon"]["name"]) == ("ZED", other, made["name"])
    assert attached["addon"]["app"]["name"] == app
    config = plane.config(other)
    assert set(config) == {"ZED_URL", "ZED_KEY", "ZED_MODEL_ID"}
    assert config["ZED_KEY"] != plane.config(app)["INFERENCE_KEY"]
    principal = plane.principal(config["ZED_KEY"])
    assert principal is not None
    assert (principal.app_name, principal.attachment_name, principal.addon_id) == (other, "ZED", made["id"])


def test_an_attachment_without_a_name_gets_the_default(plane: Plane) -> None:
    app = plane.app()
    assert plane.attach(plane.addon(app, "embed-one")["name"], app)["name"] == "EMBEDDING_PINK"


def test_attaching_takes_names_ids_and_plain_strings(plane: Plane) -> None:
    app = plane.app()
    made = plane.addon(app)
    for addon, target in ((made["id"], app), ({"id": made["id"]}, {"id": made["app"]["id"]})):
        assert plane.ok("POST", "/addon-attachments", addon=addon, app=target)["addon"]["id"] == made["id"]


@pytest.mark.parametrize("alias", ["INFERENCE", "inference"])
def test_a_taken_name_is_422(plane: Plane, alias: str) -> None:
    app = plane.app()
    made = plane.addon(app)
    status, body = plane.refused("POST", "/addon-attachments", addon=made["id"], app=app, name=alias)
    assert (status, body) == (422, {"id": "invalid_params", "message": "Name INFERENCE is already taken"})


def test_attaching_to_or_from_nothing_is_404_or_422(plane: Plane) -> None:
    app = plane.app()
    made = plane.addon(app)
    assert plane.refused("POST", "/addon-attachments", addon="nope", app=app)[1]["resource"] == "add_on"
    assert plane.refused("POST", "/addon-attachments", addon=made["id"], app="nope")[1]["resource"] == "app"
    assert plane.refused("POST", "/addon-attachments", app=app)[1]["message"] == "addon is required."
    assert plane.refused("POST", "/addon-attachments", addon=made["id"])[1]["message"] == "app is required."


def test_attachments_are_listed_and_shown_everywhere(plane: Plane) -> None:
    app, other = plane.app(), plane.app()
    made = plane.addon(app)
    attached = plane.attach(made["name"], other, "LISTED")
    for path in ("/addon-attachments", f"/apps/{other}/addon-attachments", f"/addons/{made['id']}/addon-attachments"):
        assert attached in plane.ok("GET", path)
    assert len(plane.ok("GET", f"/addons/{made['name']}/addon-attachments")) == 2
    for path in (f"/addon-attachments/{attached['id']}", f"/apps/{other}/addon-attachments/LISTED"):
        assert plane.ok("GET", path) == attached


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/addon-attachments/nope"),
        ("DELETE", "/addon-attachments/nope"),
        ("GET", "/apps/APP/addon-attachments/NOPE"),
    ],
)
def test_an_unknown_attachment_is_404_with_its_resource(plane: Plane, method: str, path: str) -> None:
    status, body = plane.refused(method, path.replace("APP", plane.app()))
    assert (status, body["resource"]) == (404, "add_on attachment")


def test_detaching_revokes_the_key_at_once_and_only_that_one(plane: Plane) -> None:
    app, other = plane.app(), plane.app()
    made = plane.addon(app)
    attached = plane.attach(made["name"], other, "SPARE")
    key, kept, before = (
        plane.config(other)["SPARE_KEY"],
        plane.config(app)["INFERENCE_KEY"],
        plane.stores.keys.revision(),
    )
    assert plane.ok("DELETE", f"/addon-attachments/{attached['id']}")["name"] == "SPARE"
    assert plane.principal(key) is None
    assert plane.principal(kept) is not None
    assert plane.stores.keys.revision() == before + 1
    assert plane.config(other) == {}
    assert plane.ok("GET", f"/apps/{other}/releases")[-1]["description"] == f"Detach SPARE ({made['name']})"


def test_an_add_on_is_resolved_by_name_id_alias_service_and_plan(plane: Plane) -> None:
    app = plane.app()
    made = plane.addon(app, "chat-small", "CHATTY")
    for typed in (made["name"], made["id"], "CHATTY", "chatty", "heroku-inference", "heroku-inference:chat-small"):
        assert resolved(plane, "addons", addon=typed, app=app) == [made["name"]]
    for typed in (made["name"], made["id"], f"{app}::CHATTY"):
        assert resolved(plane, "addons", addon=typed, app=None) == [made["name"]]
    assert made["name"] in resolved(plane, "addons", addon="heroku-inference")


def test_a_service_name_resolves_to_every_add_on_of_the_app(plane: Plane) -> None:
    app = plane.app()
    names = {plane.addon(app)["name"], plane.addon(app, "chat-small")["name"]}
    assert set(resolved(plane, "addons", addon="heroku-inference", app=app)) == names


def test_an_attached_add_on_resolves_on_the_other_app(plane: Plane) -> None:
    app, other = plane.app(), plane.app()
    made = plane.addon(app)
    plane.attach(made["name"], other, "HERE")
    for typed in (made["name"], "HERE"):
        assert resolved(plane, "addons", addon=typed, app=other) == [made["name"]]


def test_an_attachment_is_resolved_by_name_and_id(plane: Plane) -> None:
    app = plane.app()
    plane.addon(app, alias="UNIQUE_TO_THIS")
    made = plane.ok("GET", f"/apps/{app}/addon-attachments")[0]
    for typed in ("UNIQUE_TO_THIS", "unique_to_this", made["id"]):
        for where in (app, None):
            assert resolved(plane, "addon-attachments", addon_attachment=typed, app=where) == ["UNIQUE_TO_THIS"]
    assert resolved(plane, "addon-attachments", addon_attachment=f"{app}::UNIQUE_TO_THIS") == ["UNIQUE_TO_THIS"]


def test_an_attachment_name_of_two_apps_resolves_to_both(plane: Plane) -> None:
    apps = [plane.app(), plane.app()]
    for app in apps:
        plane.addon(app, alias="TWICE")
    assert resolved(plane, "addon-attachments", addon_attachment="TWICE") == ["TWICE", "TWICE"]


@pytest.mark.parametrize(
    ("noun", "field", "resource"),
    [("addons", "addon", "add_on"), ("addon-attachments", "addon_attachment", "add_on attachment")],
)
def test_a_miss_is_404_with_the_resource_letter_by_letter(plane: Plane, noun: str, field: str, resource: str) -> None:
    path, app = f"/actions/{noun}/resolve", plane.app()
    plane.addon(plane.app(), alias="ELSEWHERE")
    for fields in ({field: "ELSEWHERE", "app": app}, {field: "nope"}, {field: "ELSEWHERE", "addon_service": "redis"}):
        status, body = plane.refused("POST", path, **fields)
        assert (status, body["id"], body["resource"]) == (404, "not_found", resource)
    assert plane.refused("POST", path, **{field: "x", "app": "no-such-app"})[1]["resource"] == "app"
    assert plane.refused("POST", path, app=app)[0] == 422
    assert plane.refused("POST", path, **{field: 4})[0] == 422
