"""A create with an Idempotency-Key is done once, however often it is sent."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from penstock.domain.access import Role
from penstock.store import schema
from tests.control.plane import Plane
from tests.control.test_races import rows


def create(plane: Plane, key: str, path: str = "/apps", *, token: str = "", **fields: Any) -> httpx.Response:
    """A POST with that key."""
    auth = {"Authorization": f"Bearer {token}"} if token else {}
    return plane.http.post(path, json=fields, headers={"Idempotency-Key": key, **auth})


def test_a_repeated_create_gets_the_first_answer_and_changes_nothing(new_plane: Plane) -> None:
    first, again = create(new_plane, "k1"), create(new_plane, "k1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (rows(new_plane, "apps"), rows(new_plane, "releases"), len(new_plane.events())) == (1, 1, 1)


def test_every_kind_of_create_is_done_once(new_plane: Plane) -> None:
    app = new_plane.app()
    made = [create(new_plane, "addon", f"/apps/{app}/addons", plan="heroku-inference").json() for _ in range(2)]
    assert made[0] == made[1]
    attached = [create(new_plane, "attach", "/addon-attachments", app=app, addon=made[0]["id"]) for _ in range(2)]
    assert attached[0].json() == attached[1].json()
    assert (rows(new_plane, "addons"), rows(new_plane, "attachments"), rows(new_plane, "api_keys")) == (1, 2, 2)


def test_one_key_for_two_requests_is_422_and_names_the_header(new_plane: Plane) -> None:
    create(new_plane, "k", name="first-app")
    app = new_plane.app()
    for other in (create(new_plane, "k", name="other-app"), create(new_plane, "k", f"/apps/{app}/addons", plan="x")):
        assert other.status_code == 422
        assert "Idempotency-Key" in other.json()["message"]
    assert rows(new_plane, "apps") == 2


@pytest.mark.parametrize("key", ["", "k" * 257, "a\tb", "schlüssel".encode("latin-1").decode("latin-1")])
def test_a_key_that_cannot_be_kept_is_422(new_plane: Plane, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    answer = new_plane.http.post("/apps", json={}, headers=headers)
    assert (answer.status_code, "Idempotency-Key" in answer.json()["message"]) == (422, True)
    assert rows(new_plane, "apps") == 0


def test_a_refusal_is_not_kept_and_leaves_nothing(new_plane: Plane) -> None:
    app = new_plane.app("taken-name")
    assert create(new_plane, "k", name="taken-name").status_code == 422
    assert rows(new_plane, "idempotency_keys") == 0
    new_plane.ok("DELETE", f"/apps/{app}")
    assert create(new_plane, "k", name="taken-name").status_code == 201


def test_a_key_belongs_to_its_operator(new_plane: Plane) -> None:
    other = new_plane.operator("other@example.com", Role.MEMBER)
    first, second = create(new_plane, "k"), create(new_plane, "k", token=other)
    assert first.json()["id"] != second.json()["id"]


def test_a_key_is_free_again_after_a_day(new_plane: Plane) -> None:
    first = create(new_plane, "k")
    with new_plane.stores.db.write() as connection:
        old = datetime.now(UTC) - timedelta(hours=25)
        connection.execute(update(schema.idempotency_keys).values(created_at=old))
    assert create(new_plane, "k").json()["id"] != first.json()["id"]


def test_what_does_not_create_takes_no_key(new_plane: Plane) -> None:
    app = new_plane.app()
    for _ in range(2):
        assert create(new_plane, "k", "/actions/addons/resolve", addon="nope").status_code == 404
    answer = new_plane.http.patch(f"/apps/{app}/config-vars", json={"A": "1"}, headers={"Idempotency-Key": "k"})
    assert "idempotent-replayed" not in answer.headers
    assert rows(new_plane, "idempotency_keys") == 0


def test_a_kept_answer_is_sealed(new_plane: Plane) -> None:
    create(new_plane, "k", name="hidden-name")
    files = [path.read_bytes() for path in new_plane.home.glob("penstock.db*")]
    with new_plane.stores.db.read() as connection:
        kept = connection.execute(schema.idempotency_keys.select()).one()
    assert files
    assert b"hidden-name" not in kept.sealed


def test_a_replay_asks_for_the_rights_again_and_for_the_same_token(new_plane: Plane) -> None:
    app, stores = new_plane.app("shop"), new_plane.stores
    new_plane.addon(app)
    token = new_plane.operator("bob@example.com", Role.MEMBER)
    bob = stores.operators.get("bob@example.com")
    stores.collaborators.put(stores.apps.get(app).id, bob.id, role=Role.MEMBER)
    made = create(new_plane, "k", f"/apps/{app}/keys", token=token, attachment="INFERENCE")
    again = create(new_plane, "k", f"/apps/{app}/keys", token=token, attachment="INFERENCE")
    assert (made.status_code, again.json()["secret"]) == (201, made.json()["secret"])
    other = create(new_plane, "mine", "/operators/~/tokens", token=token).json()["token"]
    refused = create(new_plane, "k", f"/apps/{app}/keys", token=other, attachment="INFERENCE")
    assert (refused.status_code, "token" in refused.json()["message"]) == (422, True)
    stores.collaborators.remove(stores.apps.get(app).id, bob.id)
    lost = create(new_plane, "k", f"/apps/{app}/keys", token=token, attachment="INFERENCE")
    assert (lost.status_code, "secret" in lost.json()) == (404, False)
