"""Config vars: a user's own, and those of attachments."""

import pytest

from tests.control.plane import Plane


def test_config_vars_are_set_changed_and_unset(plane: Plane) -> None:
    path = f"/apps/{plane.app()}/config-vars"
    assert plane.ok("GET", path) == {}
    assert plane.ok("PATCH", path, B="2", A="1\nü=") == {"A": "1\nü=", "B": "2"}
    assert plane.ok("PATCH", path, B="3", A=None, GONE=None) == {"B": "3"}
    assert plane.ok("GET", path) == {"B": "3"}


def test_a_patch_that_changes_nothing_makes_no_release(plane: Plane) -> None:
    app = plane.app()
    plane.ok("PATCH", f"/apps/{app}/config-vars", A="1")
    before = plane.ok("GET", f"/apps/{app}/releases")
    plane.ok("PATCH", f"/apps/{app}/config-vars", A="1", B=None)
    plane.ok("PATCH", f"/apps/{app}/config-vars")
    assert plane.ok("GET", f"/apps/{app}/releases") == before


def test_a_users_vars_stand_beside_an_attachments(plane: Plane) -> None:
    app = plane.app()
    plane.addon(app)
    assert list(plane.ok("PATCH", f"/apps/{app}/config-vars", AA="1")) == ["AA", "INFERENCE_KEY", "INFERENCE_URL"]


@pytest.mark.parametrize("name", ["CHAT_URL", "CHAT_KEY", "CHAT_MODEL_ID"])
@pytest.mark.parametrize("value", ["x", None])
def test_a_var_of_an_attachment_cannot_be_set_or_unset(plane: Plane, name: str, value: str | None) -> None:
    app = plane.app()
    plane.addon(app, "chat-small", "CHAT")
    before = plane.config(app)
    status, body = plane.refused("PATCH", f"/apps/{app}/config-vars", **{name: value, "OTHER": "1"})
    assert (status, body["id"]) == (422, "invalid_params")
    assert name in body["message"]
    assert plane.config(app) == before


def test_the_model_id_can_be_set_by_hand_on_the_standard_plan(plane: Plane) -> None:
    app = plane.app()
    plane.addon(app)
    plane.ok("PATCH", f"/apps/{app}/config-vars", INFERENCE_MODEL_ID="chat-large")
    assert plane.config(app)["INFERENCE_MODEL_ID"] == "chat-large"


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "Ä", "A" * 257])
def test_a_bad_name_is_422(plane: Plane, name: str) -> None:
    assert plane.refused("PATCH", f"/apps/{plane.app()}/config-vars", **{name: "1"})[0] == 422


@pytest.mark.parametrize("value", [1, True, {}, []])
def test_a_value_that_is_not_text_is_422_and_named(plane: Plane, value: object) -> None:
    status, body = plane.refused("PATCH", f"/apps/{plane.app()}/config-vars", NUMBER=value)
    assert status == 422
    assert "NUMBER" in body["message"]


def test_more_than_64_kb_together_is_422(plane: Plane) -> None:
    path = f"/apps/{plane.app()}/config-vars"
    plane.ok("PATCH", path, A="x" * 40_000)
    assert plane.refused("PATCH", path, B="x" * 40_000)[0] == 422
    plane.ok("PATCH", path, A=None, B="x" * 40_000)


def test_more_than_a_thousand_are_422_and_what_is_there_can_be_changed_and_unset(plane: Plane) -> None:
    app = plane.app()
    path, names = f"/apps/{app}/config-vars", [f"V{number}" for number in range(1001)]
    status, body = plane.refused("PATCH", path, **dict.fromkeys(names, "1"))
    assert (status, body["id"]) == (422, "invalid_params")
    assert "1,000 config vars" in body["message"]
    assert plane.config(app) == {}
    assert len(plane.ok("PATCH", path, **dict.fromkeys(names[:-1], "1"))) == 1000
    assert plane.refused("PATCH", path, V1000="1")[0] == 422
    assert plane.ok("PATCH", path, V0="2")["V0"] == "2"
    assert "V0" not in plane.ok("PATCH", path, V0=None, V1000="1")
    plane.stores.config_vars.put(plane.ok("GET", f"/apps/{app}")["id"], {f"W{at}": "" for at in range(10)})
    assert len(plane.ok("PATCH", path, W0=None, V5="3")) == 1009


def test_no_secret_stands_in_the_database_files_in_plain_text(new_plane: Plane) -> None:
    app = new_plane.app()
    new_plane.addon(app)
    new_plane.ok("PATCH", f"/apps/{app}/config-vars", PASSWORD="canary-4d1f0c")
    key = new_plane.config(app)["INFERENCE_KEY"]
    files = [path.read_bytes() for path in new_plane.home.glob("penstock.db*")]
    assert len(files) >= 2
    for secret in (key, key[4:], "canary-4d1f0c", new_plane.token):
        assert not [file for file in files if secret.encode() in file]
