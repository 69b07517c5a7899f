"""Apps and releases."""

import re

import pytest

from tests.control.plane import EMAIL, Plane


def test_an_app_is_created_shown_and_listed(plane: Plane) -> None:
    made = plane.ok("POST", "/apps", name="shown-app")
    assert (made["name"], made["owner"]["email"], made["region"]["name"]) == ("shown-app", EMAIL, "us")
    assert made["stack"] == made["build_stack"]
    assert isinstance(made["web_url"], str)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made["created_at"])
    assert plane.ok("GET", "/apps/shown-app") == made
    assert plane.ok("GET", f"/apps/{made['id']}") == made
    assert made in plane.ok("GET", "/apps")
    assert made in plane.ok("GET", "/users/~/apps")


def test_creating_an_app_is_201(plane: Plane) -> None:
    assert plane.http.post("/apps", json={"name": "counted"}).status_code == 201


def test_an_app_without_a_name_gets_a_random_one(plane: Plane) -> None:
    assert re.fullmatch(r"[a-z]+-[a-z]+-\d{5}", plane.app())
    assert plane.http.post("/apps").status_code == 201


def test_region_and_stack_are_taken_by_name(plane: Plane) -> None:
    made = plane.ok("POST", "/apps", name="european", region="eu", stack={"name": "heroku-22"})
    assert (made["region"]["name"], made["stack"]["name"]) == ("eu", "heroku-22")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"name": "a"}, "too short"),
        ({"name": "a" * 31}, "too long"),
        ({"name": "Upper"}, "start with a letter"),
        ({"name": "under_score"}, "lowercase"),
        ({"name": "dash-"}, "end with a letter"),
        ({"name": 5}, "name must be a string"),
        ({"name": ["x"]}, "name must be a string"),
        ({"region": "mars"}, "region"),
        ({"region": {"name": 4}}, "region.name"),
        ({"stack": "No Such"}, "stack"),
    ],
)
def test_a_bad_field_is_422_and_named(plane: Plane, fields: dict[str, object], word: str) -> None:
    status, body = plane.refused("POST", "/apps", **fields)
    assert (status, body["id"]) == (422, "invalid_params")
    assert word in body["message"].lower() or word in body["message"]


def test_a_taken_name_is_422_with_herokus_words(plane: Plane) -> None:
    plane.app("taken-app")
    assert plane.refused("POST", "/apps", name="taken-app") == (
        422,
        {"id": "invalid_params", "message": "Name taken-app is already taken"},
    )


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_unknown_app_is_404_with_its_resource(plane: Plane, method: str) -> None:
    status, body = plane.refused(method, "/apps/no-such-app")
    assert (status, body["id"], body["resource"]) == (404, "not_found", "app")


@pytest.mark.parametrize("what", ["releases", "dynos", "collaborators", "addons", "config-vars", "addon-attachments"])
def test_everything_below_an_unknown_app_is_404(plane: Plane, what: str) -> None:
    status, body = plane.refused("GET", f"/apps/no-such-app/{what}")
    assert (status, body["resource"]) == (404, "app")


def test_an_app_has_no_dynos(plane: Plane) -> None:
    app = plane.app()
    assert plane.ok("GET", f"/apps/{app}/dynos") == []


def test_an_app_has_no_pipeline(plane: Plane) -> None:
    # The CLI reads any 2xx here as a coupling and fails on its missing fields.
    assert plane.refused("GET", f"/apps/{plane.app()}/pipeline-couplings")[0] == 404


def test_renaming_keeps_the_app_and_renews_what_its_keys_stand_for(plane: Plane) -> None:
    app = plane.app()
    plane.addon(app)
    key, before = plane.config(app)["INFERENCE_KEY"], plane.stores.keys.revision()
    made = plane.ok("PATCH", f"/apps/{app}", name="renamed-app")
    assert made["name"] == "renamed-app"
    assert plane.refused("GET", f"/apps/{app}")[0] == 404
    assert plane.config("renamed-app")["INFERENCE_KEY"] == key
    principal = plane.principal(key)
    assert principal is not None
    assert principal.app_name == "renamed-app"
    assert plane.stores.keys.revision() > before


def test_renaming_to_a_taken_or_bad_name_or_none_is_422(plane: Plane) -> None:
    app, other = plane.app(), plane.app()
    for fields in ({"name": other}, {"name": "X"}, {}):
        assert plane.refused("PATCH", f"/apps/{app}", **fields)[0] == 422
    assert plane.ok("GET", f"/apps/{app}")["name"] == app


def test_destroying_an_app_takes_everything_along(plane: Plane) -> None:
    app, other = plane.app(), plane.app()
    own = plane.addon(app)
    foreign = plane.addon(other)
    plane.attach(own["name"], other, "BORROWED")
    plane.attach(foreign["name"], app, "LENT")
    plane.ok("PATCH", f"/apps/{app}/config-vars", MINE="1")
    keys = [value for name, value in plane.config(app).items() if name.endswith("_KEY")]
    keys.append(plane.config(other)["BORROWED_KEY"])
    assert plane.ok("DELETE", f"/apps/{app}")["name"] == app
    assert len(keys) == 3
    assert [plane.principal(key) for key in keys] == [None, None, None]
    assert set(plane.config(other)) == {"INFERENCE_URL", "INFERENCE_KEY"}
    assert plane.refused("GET", f"/addons/{own['name']}")[0] == 404
    assert plane.ok("GET", f"/addons/{foreign['name']}")["state"] == "provisioned"
    assert plane.app(app) == app
    assert plane.config(app) == {}
    assert len(plane.ok("GET", f"/apps/{app}/releases")) == 1


def test_releases_count_every_change(plane: Plane) -> None:
    app = plane.app()
    addon = plane.addon(app)
    plane.ok("PATCH", f"/apps/{app}/config-vars", A="1", B="2")
    plane.ok("PATCH", f"/apps/{app}/config-vars", A=None)
    plane.ok("DELETE", f"/apps/{app}/addons/{addon['id']}", force=False)
    found = plane.ok("GET", f"/apps/{app}/releases")
    assert [(item["version"], item["description"]) for item in found] == [
        (1, "Initial release"),
        (2, f"Attach INFERENCE ({addon['name']})"),
        (3, "Set A, B config vars"),
        (4, "Remove A config vars"),
        (5, f"Detach INFERENCE ({addon['name']})"),
    ]
    assert [item["current"] for item in found] == [False, False, False, False, True]
    assert found[0]["user"]["email"] == EMAIL


@pytest.mark.parametrize("header", ["version ..; order=desc,max=1", "version ..; max=1, order=desc"])
def test_the_range_header_picks_the_newest_release(plane: Plane, header: str) -> None:
    app = plane.app()
    plane.addon(app)
    reply = plane.http.get(f"/apps/{app}/releases", headers={"Range": header})
    assert [item["version"] for item in reply.json()] == [2]


def test_a_release_names_its_author_by_the_id_of_the_account(plane: Plane) -> None:
    account = plane.ok("GET", "/account")
    releases = plane.ok("GET", f"/apps/{plane.app()}/releases")
    assert [release["user"] for release in releases] == [{"id": account["id"], "email": account["email"]}]
