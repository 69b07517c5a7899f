"""Add-ons: provisioning, aliases, destroying."""

import re
from typing import Any

import pytest

from tests.control.plane import GATEWAY, Plane


def test_the_standard_plan_brings_url_and_key(plane: Plane) -> None:
    app = plane.app()
    made = plane.addon(app, alias="INFERENCE")
    assert re.fullmatch(r"inference-[a-z]+-\d{5}", made["name"])
    assert made["config_vars"] == ["INFERENCE_URL", "INFERENCE_KEY"]
    assert (made["state"], made["app"]["name"], made["addon_service"]["name"]) == (
        "provisioned",
        app,
        "heroku-inference",
    )
    assert made["plan"]["name"] == "heroku-inference:standard"
    assert made["plan"]["price"]["metered"] is True
    config = plane.config(app)
    assert config["INFERENCE_URL"] == GATEWAY
    assert re.fullmatch(r"inf-[\w-]{43}", config["INFERENCE_KEY"])


def test_a_model_plan_brings_the_model_id_too(plane: Plane) -> None:
    app = plane.app()
    assert plane.addon(app, "chat-small")["config_vars"][2] == "INFERENCE_MODEL_ID"
    assert plane.config(app)["INFERENCE_MODEL_ID"] == "chat-small"
    principal = plane.principal(plane.config(app)["INFERENCE_KEY"])
    assert principal is not None
    assert (principal.model_id, principal.app_name, principal.attachment_name) == ("chat-small", app, "INFERENCE")


def test_a_key_of_the_standard_plan_has_all_models(plane: Plane) -> None:
    app = plane.app()
    plane.addon(app)
    principal = plane.principal(plane.config(app)["INFERENCE_KEY"])
    assert principal is not None
    assert principal.model_id is None


def test_a_plan_may_be_named_by_an_alias_of_its_model(plane: Plane) -> None:
    app = plane.app()
    assert plane.addon(app, "chat-large-latest")["plan"]["name"] == "heroku-inference:chat-large"


@pytest.mark.parametrize("plan", ["heroku-inference", "heroku-inference:standard", {"name": "heroku-inference"}])
def test_the_service_alone_means_the_standard_plan(plane: Plane, plan: object) -> None:
    made = plane.ok("POST", f"/apps/{plane.app()}/addons", plan=plan)
    assert made["plan"]["name"] == "heroku-inference:standard"


def test_a_plan_may_be_named_by_its_id(plane: Plane) -> None:
    plans = plane.ok("GET", "/addon-services/heroku-inference/plans")
    made = plane.ok("POST", f"/apps/{plane.app()}/addons", plan={"id": plans[1]["id"]})
    assert made["plan"]["name"] == plans[1]["name"]


@pytest.mark.parametrize(
    ("plan", "alias"),
    [("chat-large", "INFERENCE"), ("embed-one", "EMBEDDING"), ("image-one", "DIFFUSION"), ("rank-one", "RERANK")],
)
def test_the_default_alias_follows_the_type_of_model(plane: Plane, plan: str, alias: str) -> None:
    app = plane.app()
    plane.addon(app, plan)
    assert plane.config(app)[f"{alias}_MODEL_ID"] == plan


def test_a_taken_default_alias_gets_a_colour(plane: Plane) -> None:
    app = plane.app()
    made = [plane.addon(app)["config_vars"][0] for _ in range(3)]
    assert made == ["INFERENCE_URL", "INFERENCE_PINK_URL", "INFERENCE_CYAN_URL"]


def test_a_default_alias_steps_aside_for_a_users_config_var(plane: Plane) -> None:
    app = plane.app()
    plane.ok("PATCH", f"/apps/{app}/config-vars", INFERENCE_URL="mine")
    assert plane.addon(app)["config_vars"][0] == "INFERENCE_PINK_URL"
    assert plane.config(app)["INFERENCE_URL"] == "mine"


def test_an_explicit_alias_that_is_taken_is_422_and_leaves_nothing(plane: Plane) -> None:
    app = plane.app()
    plane.addon(app, alias="CHAT")
    plane.ok("PATCH", f"/apps/{app}/config-vars", OTHER_KEY="mine")
    releases = plane.ok("GET", f"/apps/{app}/releases")
    for alias in ("CHAT", "chat", "OTHER"):
        fields = {"plan": "heroku-inference:standard", "attachment": {"name": alias}}
        status, body = plane.refused("POST", f"/apps/{app}/addons", **fields)
        assert (status, body["id"]) == (422, "invalid_params")
    assert len(plane.ok("GET", f"/apps/{app}/addons")) == 1
    assert plane.ok("GET", f"/apps/{app}/releases") == releases


def test_an_alias_is_kept_in_upper_case(plane: Plane) -> None:
    assert plane.addon(plane.app(), alias="My_Chat2")["config_vars"][0] == "MY_CHAT2_URL"


@pytest.mark.parametrize("alias", ["1X", "_X", "A-B", "", "A B", "Ä", "A" * 65, "A\n"])
def test_a_bad_alias_is_422_with_the_words_that_the_plugin_looks_for(plane: Plane, alias: str) -> None:
    fields = {"plan": "heroku-inference:standard", "attachment": {"name": alias}}
    status, body = plane.refused("POST", f"/apps/{plane.app()}/addons", **fields)
    assert status == 422
    assert "start with a letter" in body["message"]


@pytest.mark.parametrize("plan", ["heroku-inference:nope", "heroku-postgresql:mini", "nope", {"name": "standard"}])
def test_a_bad_plan_is_422_with_the_words_that_the_plugin_looks_for(plane: Plane, plan: object) -> None:
    status, body = plane.refused("POST", f"/apps/{plane.app()}/addons", plan=plan)
    assert (status, body["id"]) == (422, "invalid_params")
    assert "add-on plan" in body["message"]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "plan is required"),
        ({"plan": 4}, "plan"),
        ({"plan": "heroku-inference", "attachment": "X"}, "attachment"),
        ({"plan": "heroku-inference", "attachment": {"name": 4}}, "name"),
        ({"plan": "heroku-inference", "config": []}, "config"),
        ({"plan": "heroku-inference", "config": {"region": {}}}, "config.region"),
        ({"plan": "heroku-inference", "config": {"region": "mars"}}, "config.region must be one of us, eu"),
        ({"plan": "heroku-inference", "name": "Bad Name"}, "Name of the add-on"),
        ({"plan": "heroku-inference", "name": "abcdefab-0000-4000-8000-000000000000"}, "Name of the add-on"),
    ],
)
def test_a_bad_field_is_422_and_named(plane: Plane, fields: dict[str, Any], word: str) -> None:
    status, body = plane.refused("POST", f"/apps/{plane.app()}/addons", **fields)
    assert (status, body["id"]) == (422, "invalid_params")
    assert word in body["message"]


def test_the_region_after_the_double_dash_is_kept_and_any_other_option_is_refused_by_name(plane: Plane) -> None:
    app = plane.app()
    made = plane.ok("POST", f"/apps/{app}/addons", plan="heroku-inference", config={"region": "us"})
    assert made["config"] == {"region": "us"}
    for config in ({"password": "canary-71"}, {"region": "us", "password": 3}):
        status, body = plane.refused("POST", f"/apps/{app}/addons", plan="heroku-inference", config=config)
        assert (status, body["id"]) == (422, "invalid_params")
        assert body["message"] == "config.password: there is no such option; an add-on has config.region only."
    assert [addon["id"] for addon in plane.ok("GET", f"/apps/{app}/addons")] == [made["id"]]


def test_an_add_on_may_have_a_name_of_its_own_that_nobody_else_has(plane: Plane) -> None:
    app = plane.app()
    made = plane.ok("POST", f"/apps/{app}/addons", plan="heroku-inference", name="our-models")
    assert made["name"] == "our-models"
    status, body = plane.refused("POST", f"/apps/{app}/addons", plan="heroku-inference", name="our-models")
    assert (status, body["message"]) == (422, "Name our-models is already taken")


def test_an_add_on_is_shown_by_id_and_name_and_listed(plane: Plane) -> None:
    app = plane.app()
    made = plane.addon(app)
    for path in ("/addons", f"/apps/{app}/addons"):
        assert plane.ok("GET", f"{path}/{made['id']}") == plane.ok("GET", f"{path}/{made['name']}") == made
        assert made in plane.ok("GET", path)
    assert plane.ok("GET", f"/apps/{plane.app()}/addons") == []


def test_an_add_on_is_shown_by_app_and_alias(plane: Plane) -> None:
    app = plane.app()
    made = plane.addon(app, alias="CHAT")
    assert plane.ok("GET", f"/addons/{app}::CHAT") == plane.ok("GET", f"/addons/{app}%3A%3Achat") == made
    assert plane.refused("GET", f"/addons/{app}::NOPE")[0] == 404


def test_an_add_on_of_another_app_is_seen_only_where_it_is_attached(plane: Plane) -> None:
    made, other = plane.addon(plane.app()), plane.app()
    status, body = plane.refused("GET", f"/apps/{other}/addons/{made['id']}")
    assert (status, body["resource"]) == (404, "add_on")
    plane.attach(made["name"], other)
    assert plane.ok("GET", f"/apps/{other}/addons/{made['id']}")["name"] == made["name"]
    assert plane.refused("DELETE", f"/apps/{other}/addons/{made['id']}")[0] == 404


@pytest.mark.parametrize("path", ["/addons/nope", "/addons/nope/addon-attachments", "/apps/APP/addons/nope"])
def test_an_unknown_add_on_is_404_with_its_resource(plane: Plane, path: str) -> None:
    status, body = plane.refused("GET", path.replace("APP", plane.app()))
    assert (status, body["id"], body["resource"]) == (404, "not_found", "add_on")


def test_destroying_revokes_the_key_at_once(plane: Plane) -> None:
    app = plane.app()
    made = plane.addon(app)
    key, before = plane.config(app)["INFERENCE_KEY"], plane.stores.keys.revision()
    gone = plane.ok("DELETE", f"/apps/{app}/addons/{made['id']}", force=False)
    assert (gone["state"], gone["name"]) == ("deprovisioned", made["name"])
    assert plane.principal(key) is None
    assert plane.stores.keys.revision() > before
    assert plane.config(app) == {}
    assert plane.refused("DELETE", f"/apps/{app}/addons/{made['id']}")[0] == 404


def test_destroying_what_other_apps_use_asks_for_confirmation(plane: Plane) -> None:
    app, other = plane.app(), plane.app()
    made = plane.addon(app)
    plane.attach(made["name"], other, "SHARED")
    path = f"/apps/{app}/addons/{made['id']}"
    status, body = plane.refused("DELETE", path, force=False)
    assert (status, body["id"]) == (422, "confirmation_required")
    assert body["message"] == f"{made['name']} is also attached to {other}. To destroy it there too, use --force."
    assert plane.refused("DELETE", path, confirm="another-app")[0] == 422
    assert plane.refused("DELETE", path, force="yes")[0] == 422
    assert plane.ok("DELETE", path, confirm=app)["state"] == "deprovisioned"
    assert plane.config(other) == {}


def test_force_destroys_without_confirmation(plane: Plane) -> None:
    app, other = plane.app(), plane.app()
    made = plane.addon(app)
    plane.attach(made["name"], other)
    assert plane.ok("DELETE", f"/apps/{app}/addons/{made['name']}", force=True)["state"] == "deprovisioned"
