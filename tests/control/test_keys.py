"""Keys over the Platform API: limited ones, rotation with grace, revocation, and who may."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from penstock.domain.access import Role
from tests.control.plane import Plane


def made_with(plane: Plane, plan: str = "standard") -> tuple[str, str]:
    """A new app with the plan as INFERENCE: its name, and the key of its config vars."""
    app = plane.app()
    plane.addon(app, plan, "INFERENCE")
    return app, plane.config(app)["INFERENCE_KEY"]


def releases(plane: Plane, app: str) -> list[str]:
    """What the app's releases say, oldest first."""
    return [str(release["description"]) for release in plane.ok("GET", f"/apps/{app}/releases")]


def test_the_list_has_no_secret_and_says_what_each_key_may(plane: Plane) -> None:
    app, key = made_with(plane)
    made = plane.ok("POST", f"/apps/{app}/keys", attachment="inference", models=["chat-small"], expires_in=3600)
    reply = plane.http.get(f"/apps/{app}/keys")
    assert key not in reply.text
    assert made["secret"] not in reply.text
    shown, extra = sorted(reply.json(), key=lambda one: bool(one["extra"]))
    assert (shown["prefix"], shown["extra"], shown["models"], shown["expires_at"]) == (key[:12], False, None, None)
    assert (shown["attachment"]["name"], shown["app"]["name"], shown["last_used_at"]) == ("INFERENCE", app, None)
    assert extra | {"secret": made["secret"]} == made
    assert (extra["extra"], extra["models"]) == (True, ["chat-small"])


def test_an_extra_key_leaves_the_config_vars_as_they_are(plane: Plane) -> None:
    app, key = made_with(plane)
    before = releases(plane, app)
    made = plane.ok("POST", f"/apps/{app}/keys", attachment={"name": "INFERENCE"})
    assert plane.config(app)["INFERENCE_KEY"] == key != made["secret"]
    assert releases(plane, app) == before
    assert plane.principal(made["secret"]) is not None


def test_a_new_name_attaches_the_one_add_on_under_it_with_the_limited_key(plane: Plane) -> None:
    app, key = made_with(plane)
    made = plane.ok("POST", f"/apps/{app}/keys", attachment="partner", models=["chat-large-latest", "chat-large"])
    assert (made["attachment"]["name"], made["extra"], made["models"]) == ("PARTNER", False, ["chat-large"])
    config = plane.config(app)
    assert (config["PARTNER_KEY"], config["INFERENCE_KEY"]) == (made["secret"], key)
    assert releases(plane, app)[-1].startswith("Attach PARTNER (")
    principal = plane.principal(made["secret"])
    assert principal is not None
    assert principal.models == ("chat-large",)


def test_where_there_are_several_add_ons_one_must_be_named(plane: Plane) -> None:
    app, _ = made_with(plane)
    second = plane.addon(app, "chat-small", "SMALL")["name"]
    status, body = plane.refused("POST", f"/apps/{app}/keys", attachment="NEW")
    assert (status, body["id"]) == (422, "invalid_params")
    assert body["message"].startswith("addon is required")
    assert second in body["message"]
    made = plane.ok("POST", f"/apps/{app}/keys", attachment="NEW", addon=second)
    assert plane.config(app)["NEW_MODEL_ID"] == "chat-small"
    assert plane.refused("POST", f"/apps/{app}/keys", attachment="INFERENCE", addon=second)[0] == 422
    assert plane.ok("POST", f"/apps/{app}/keys", attachment="SMALL", addon=second)["extra"]
    assert plane.principal(made["secret"]) is not None


def test_an_app_without_an_add_on_says_what_to_do(plane: Plane) -> None:
    status, body = plane.refused("POST", f"/apps/{plane.app()}/keys", attachment="NEW")
    assert (status, "addons:create" in body["message"]) == (422, True)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "attachment is required"),
        ({"attachment": "1BAD"}, "start with a letter"),
        ({"attachment": "INFERENCE", "models": []}, "models must have at least 1 entries"),
        ({"attachment": "INFERENCE", "models": ["x"] * 101}, "models must have at most 100 entries"),
        ({"attachment": "INFERENCE", "models": "chat-small"}, "models must be an array"),
        ({"attachment": "INFERENCE", "models": ["chat-small", "nope"]}, "models[1]: 'nope' is not a model"),
        ({"attachment": "INFERENCE", "models": [{"id": "x"}]}, "models[0] must be a string"),
        ({"attachment": "INFERENCE", "expires_in": 0}, "expires_in must be at least 1"),
        ({"attachment": "INFERENCE", "expires_in": True}, "expires_in must be a number"),
        ({"attachment": "INFERENCE", "expires_in": 1.5}, "expires_in must be a whole number"),
        ({"attachment": "INFERENCE", "expires_in": 10**12}, "expires_in must be at most 315360000"),
        ({"attachment": "INFERENCE", "expires_at": "soon"}, "expires_at must be a time with its zone"),
        ({"attachment": "INFERENCE", "expires_at": 5}, "expires_at must be a time with its zone"),
        ({"attachment": "INFERENCE", "expires_at": "2030-12-31T00:00:00"}, "expires_at must be a time with its zone"),
        ({"attachment": "INFERENCE", "expires_at": "0001-01-01T00:00:00+23:00"}, "expires_at must lie in the future"),
        ({"attachment": "INFERENCE", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at must lie in the future"),
        ({"attachment": "INFERENCE", "expires_at": "9999-12-31T23:59:59-23:00"}, "at most 10 years"),
        ({"attachment": "INFERENCE", "expires_in": 5, "expires_at": "2030-01-01T00:00:00Z"}, "exclude each other"),
    ],
)
def test_a_wrong_field_is_a_422_that_names_it(plane: Plane, fields: dict[str, Any], named: str) -> None:
    app, _ = made_with(plane)
    status, body = plane.refused("POST", f"/apps/{app}/keys", **fields)
    assert (status, body["id"]) == (422, "invalid_params")
    assert named in body["message"]
    assert len(plane.ok("GET", f"/apps/{app}/keys")) == 1


def test_a_key_of_a_model_plan_cannot_be_for_another_model(plane: Plane) -> None:
    app, _ = made_with(plane, "chat-small")
    status, body = plane.refused("POST", f"/apps/{app}/keys", attachment="INFERENCE", models=["chat-large"])
    assert (status, "does not have chat-large" in body["message"]) == (422, True)
    assert plane.ok("POST", f"/apps/{app}/keys", attachment="INFERENCE", models=["chat-small"])["extra"]


def test_an_expiry_is_a_time_of_any_zone(plane: Plane) -> None:
    app, _ = made_with(plane)
    day = (datetime.now(UTC) + timedelta(days=2)).date()
    for text, kept in ((f"{day}T12:00:00+02:00", f"{day}T10:00:00Z"), (f"{day}T12:00:00.5Z", f"{day}T12:00:00Z")):
        assert plane.ok("POST", f"/apps/{app}/keys", attachment="INFERENCE", expires_at=text)["expires_at"] == kept


def test_a_rotation_shows_the_new_key_and_lets_the_old_one_go_on_for_the_grace(plane: Plane) -> None:
    app, old = made_with(plane)
    before = datetime.now(UTC)
    made = plane.ok("POST", f"/apps/{app}/keys/inference/actions/rotate")
    assert plane.config(app)["INFERENCE_KEY"] == made["secret"] != old
    was, now = sorted(plane.ok("GET", f"/apps/{app}/keys"), key=lambda one: bool(one["id"] == made["id"]))
    assert (now["id"], now["expires_at"]) == (made["id"], None)
    assert 598 <= (datetime.fromisoformat(was["expires_at"]) - before).total_seconds() <= 660
    assert plane.principal(old) is not None
    assert releases(plane, app)[-1] == "Rotate INFERENCE_KEY"


@pytest.mark.parametrize("by", ["id", "prefix"])
def test_an_extra_key_is_rotated_by_id_and_prefix(plane: Plane, by: str) -> None:
    app, shown = made_with(plane)
    made = plane.ok("POST", f"/apps/{app}/keys", attachment="INFERENCE", models=["chat-small"])
    before = releases(plane, app)
    new = plane.ok("POST", f"/apps/{app}/keys/{made[by]}/actions/rotate", grace_s=0)
    assert (new["extra"], new["models"]) == (True, ["chat-small"])
    assert plane.principal(made["secret"]) is None
    assert plane.principal(new["secret"]) is not None
    assert plane.config(app)["INFERENCE_KEY"] == shown
    assert releases(plane, app) == before


@pytest.mark.parametrize("grace", [-1, 604_801, "10m", 1.5, True])
def test_a_grace_out_of_range_is_a_422_that_names_it(plane: Plane, grace: object) -> None:
    app, key = made_with(plane)
    status, body = plane.refused("POST", f"/apps/{app}/keys/INFERENCE/actions/rotate", grace_s=grace)
    assert (status, body["message"].startswith("grace_s must be ")) == (422, True)
    assert plane.config(app)["INFERENCE_KEY"] == key


def test_a_name_revokes_every_key_of_the_attachment_and_create_gives_it_one_again(plane: Plane) -> None:
    app, key = made_with(plane)
    extra = plane.ok("POST", f"/apps/{app}/keys", attachment="INFERENCE")
    other = plane.ok("POST", f"/apps/{app}/keys", attachment="OTHER")
    gone = plane.ok("DELETE", f"/apps/{app}/keys/Inference")
    assert [one["prefix"] for one in gone] == [key[:12], extra["prefix"]]
    assert plane.principal(key) is plane.principal(extra["secret"]) is None
    assert plane.principal(other["secret"]) is not None
    assert "INFERENCE_KEY" not in plane.config(app)
    assert releases(plane, app)[-1] == "Revoke INFERENCE_KEY"
    status, body = plane.refused("POST", f"/apps/{app}/keys/inference/actions/rotate")
    told = f"INFERENCE has no key; make one with: penstock keys:create -a {app} --as INFERENCE"
    assert (status, body["message"]) == (422, told)
    assert plane.refused("POST", f"/apps/{app}/keys/NOTHING/actions/rotate")[1]["resource"] == "key"
    assert plane.refused("DELETE", f"/apps/{app}/keys/INFERENCE")[1]["resource"] == "key"
    again = plane.ok("POST", f"/apps/{app}/keys", attachment="INFERENCE")
    assert (again["extra"], plane.config(app)["INFERENCE_KEY"]) == (False, again["secret"])
    assert releases(plane, app)[-1] == "Set INFERENCE_KEY"


def test_a_name_with_nothing_but_extra_keys_is_not_rotated(plane: Plane) -> None:
    app, key = made_with(plane)
    extra = plane.ok("POST", f"/apps/{app}/keys", attachment="INFERENCE")
    plane.ok("DELETE", f"/apps/{app}/keys/{key[:12]}")
    status, body = plane.refused("POST", f"/apps/{app}/keys/INFERENCE/actions/rotate")
    assert (status, "has no key in its config var; make one with: " in body["message"]) == (422, True)
    assert plane.principal(extra["secret"]) is not None


def test_a_key_of_another_app_does_not_exist(plane: Plane) -> None:
    app, _ = made_with(plane)
    other, key = made_with(plane)
    [theirs] = plane.ok("GET", f"/apps/{other}/keys")
    for ref in (theirs["id"], theirs["prefix"], "NOPE"):
        assert plane.refused("DELETE", f"/apps/{app}/keys/{ref}")[1]["resource"] == "key"
        assert plane.refused("POST", f"/apps/{app}/keys/{ref}/actions/rotate")[1]["resource"] == "key"
    assert plane.principal(key) is not None


def test_an_add_on_of_another_app_is_attached_only_by_who_may_change_both(plane: Plane) -> None:
    app, _ = made_with(plane)
    token = plane.operator(f"{app}@example.com", Role.MEMBER)
    headers = {"Authorization": f"Bearer {token}"}
    own = plane.http.post("/apps", json={}, headers=headers).json()["name"]
    addon = plane.ok("GET", f"/apps/{app}/addons")[0]["name"]
    body = {"attachment": "MINE", "addon": addon}
    assert plane.http.post(f"/apps/{own}/keys", json=body, headers=headers).status_code == 404
    plane.attach(addon, own, "SHARED")
    # What is attached already may have more keys; attaching it once more is its owner's to allow.
    refused: httpx.Response = plane.http.post(f"/apps/{own}/keys", json={"attachment": "MINE"}, headers=headers)
    assert refused.status_code in (403, 404)
    made = plane.http.post(f"/apps/{own}/keys", json={"attachment": "SHARED"}, headers=headers)
    assert (made.status_code, made.json()["extra"]) == (201, True)


def test_every_change_of_a_key_is_in_the_trail_without_its_secret(new_plane: Plane) -> None:
    app, key = made_with(new_plane)
    before = len(new_plane.stores.audit.list())
    extra = new_plane.ok("POST", f"/apps/{app}/keys", attachment="INFERENCE", models=["chat-small"], expires_in=60)
    new = new_plane.ok("POST", f"/apps/{app}/keys/INFERENCE/actions/rotate", grace_s=60)
    new_plane.ok("DELETE", f"/apps/{app}/keys/{extra['id']}")
    events = new_plane.stores.audit.list()[before:]
    assert [(event.action, event.object_type, event.object_name, event.app_name) for event in events] == [
        ("key.create", "key", extra["prefix"], app),
        ("key.rotate", "key", key[:12], app),
        ("key.revoke", "key", extra["prefix"], app),
    ]
    assert events[1].after is not None
    assert (events[1].after["prefix"], events[1].after["grace_s"]) == (new["prefix"], 60)
    assert events[2].before is not None
    assert (events[2].before["models"], events[2].before["expires_at"]) == (["chat-small"], extra["expires_at"])
    written = repr(events)
    assert not [secret for secret in (key, extra["secret"], new["secret"]) if secret in written]


def test_a_key_that_expired_long_ago_is_cleared_away_by_the_next_change(new_plane: Plane) -> None:
    app, _ = made_with(new_plane)
    attachment = new_plane.stores.attachments.list()[0]
    old = new_plane.stores.keys.add(attachment.id, extra=True, expires_at=datetime.now(UTC) - timedelta(days=2))
    recent = new_plane.stores.keys.add(attachment.id, extra=True, expires_at=datetime.now(UTC) - timedelta(hours=2))
    new_plane.ok("POST", f"/apps/{app}/keys", attachment="INFERENCE")
    held = {key["id"] for key in new_plane.ok("GET", f"/apps/{app}/keys")}
    assert (old.key.id in held, recent.key.id in held) == (False, True)


def at_once(count: int, act: Callable[[], int]) -> list[int]:
    """What ``act`` returns in so many threads that start together."""
    start = threading.Barrier(count)

    def run(_: int) -> int:
        start.wait()
        return act()

    with ThreadPoolExecutor(count) as pool:
        return [*pool.map(run, range(count))]


def test_rotations_at_the_same_time_leave_one_key_and_it_is_the_one_shown(plane: Plane) -> None:
    app, _ = made_with(plane)
    path, headers = f"{plane.url}/apps/{app}/keys/INFERENCE/actions/rotate", dict(plane.http.headers)
    found = at_once(8, lambda: httpx.post(path, json={"grace_s": 0}, headers=headers, timeout=30).status_code)
    assert found == [201] * 8
    [left] = plane.ok("GET", f"/apps/{app}/keys")
    shown = plane.config(app)["INFERENCE_KEY"]
    assert (shown[:12], plane.principal(shown) is not None) == (left["prefix"], True)


def test_a_key_made_while_its_attachment_goes_is_not_left_behind(plane: Plane) -> None:
    app, _ = made_with(plane)
    headers, keys = dict(plane.http.headers), f"{plane.url}/apps/{app}/keys"
    attachment = plane.ok("GET", f"/apps/{app}/addon-attachments/INFERENCE")["id"]
    calls = iter([("DELETE", f"{plane.url}/addon-attachments/{attachment}", None)] + [
        ("POST", keys, {"attachment": {"id": attachment}})
    ] * 7)  # fmt: skip
    order = threading.Lock()

    def act() -> int:
        with order:
            method, url, body = next(calls)
        return httpx.request(method, url, json=body, headers=headers, timeout=30).status_code

    assert set(at_once(8, act)) <= {200, 201, 404, 422}
    assert plane.ok("GET", keys) == []
    assert plane.stores.keys.list_public(attachment_id=attachment) == ()
