"""Many clients at once: one winner, clean refusals, no orphan."""

import json
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import pytest
from sqlalchemy import func, select

from penstock.domain.access import Role
from penstock.store import schema
from tests.control.plane import Plane, status

T = TypeVar("T")


@pytest.fixture
def new_plane(each_plane: Plane) -> Plane:
    """All of it on each database."""
    return each_plane


@pytest.fixture
def plane(new_plane: Plane) -> Plane:
    """The same, for the tests that would do with a shared one."""
    return new_plane


def together(count: int, act: Callable[[int], T]) -> list[T]:
    """Runs ``act`` in ``count`` threads that all start at the same moment."""
    barrier = Barrier(count)

    def run(number: int) -> T:
        barrier.wait(30)
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def count_orphans(plane: Plane) -> int:
    """Keys without an attachment and attachments without an add-on or app, read past foreign keys."""
    pairs = (
        (schema.api_keys.c.attachment_id, schema.attachments.c.id),
        (schema.attachments.c.addon_id, schema.addons.c.id),
        (schema.attachments.c.app_id, schema.apps.c.id),
        (schema.addons.c.app_id, schema.apps.c.id),
        (schema.releases.c.app_id, schema.apps.c.id),
    )
    with plane.stores.db.read() as connection:
        return sum(
            connection.execute(select(func.count()).where(child.not_in(select(parent)))).scalar_one()
            for child, parent in pairs
        )


def rows(plane: Plane, table: str) -> int:
    """How many rows a table has."""
    with plane.stores.db.read() as connection:
        return int(connection.execute(select(func.count()).select_from(schema.metadata.tables[table])).scalar_one())


def test_fifty_creates_of_one_name_give_one_201_and_49_clean_422(plane: Plane) -> None:
    replies = together(50, lambda _: plane.http.post("/apps", json={"name": "contested"}))
    assert Counter(reply.status_code for reply in replies) == {201: 1, 422: 49}
    refusals = {reply.text for reply in replies if reply.status_code == 422}
    assert [json.loads(text)["message"] for text in refusals] == ["Name contested is already taken"]


def test_parallel_default_attaches_all_get_names_of_their_own(plane: Plane) -> None:
    app = plane.app()
    made = plane.addon(app)
    names = together(20, lambda _: plane.attach(made["name"], app)["name"])
    assert len(set(names)) == 20
    versions = [item["version"] for item in plane.ok("GET", f"/apps/{app}/releases")]
    assert versions == list(range(1, 23))


def test_attaching_while_the_add_on_is_destroyed_leaves_no_orphan(new_plane: Plane) -> None:
    owner, other = new_plane.app(), new_plane.app()
    for _ in range(10):
        made = new_plane.addon(owner)
        body = {"addon": made["id"], "app": other}
        destroy = f"/apps/{owner}/addons/{made['id']}"

        def act(number: int, body: dict[str, str] = body, destroy: str = destroy) -> int:
            if number == 0:
                return new_plane.http.request("DELETE", destroy, json={"force": True}).status_code
            return new_plane.http.post("/addon-attachments", json=body).status_code

        results = together(5, act)
        assert results[0] == 200
        assert set(results[1:]) <= {201, 404}
    assert count_orphans(new_plane) == 0
    assert rows(new_plane, "attachments") == rows(new_plane, "api_keys") == 0
    assert new_plane.config(other) == {}


def test_an_attachment_detached_twice_at_once_is_gone_once(new_plane: Plane) -> None:
    app = new_plane.app()
    made = new_plane.addon(app)
    for _ in range(5):
        attached = new_plane.attach(made["id"], app)
        path = f"/addon-attachments/{attached['id']}"
        results = together(6, lambda _, path=path: new_plane.http.delete(path).status_code)  # type: ignore[misc]
        assert Counter(results) == {200: 1, 404: 5}
    assert count_orphans(new_plane) == 0
    assert rows(new_plane, "api_keys") == 1


def test_changing_an_app_while_it_is_destroyed_leaves_nothing(new_plane: Plane) -> None:
    owner = new_plane.app()
    made = new_plane.addon(owner)
    for _ in range(10):
        app = new_plane.app()

        def act(number: int, app: str = app) -> int:
            calls: tuple[tuple[str, str, dict[str, object]], ...] = (
                ("DELETE", f"/apps/{app}", {}),
                ("POST", f"/apps/{app}/addons", {"plan": "heroku-inference"}),
                ("POST", "/addon-attachments", {"addon": made["id"], "app": app}),
                ("PATCH", f"/apps/{app}/config-vars", {"A": "1"}),
            )
            method, path, body = calls[number]
            return new_plane.http.request(method, path, json=body).status_code

        results = together(4, act)
        assert results[0] == 200
        assert set(results[1:]) <= {200, 201, 404}
    assert [app["name"] for app in new_plane.ok("GET", "/apps")] == [owner]
    assert count_orphans(new_plane) == 0
    assert (rows(new_plane, "addons"), rows(new_plane, "api_keys"), rows(new_plane, "config_vars")) == (1, 1, 0)


def test_setting_a_var_while_an_alias_claims_it_has_one_winner(new_plane: Plane) -> None:
    for _ in range(10):
        app = new_plane.app()

        def act(number: int, app: str = app) -> int:
            if number == 0:
                return new_plane.http.patch(f"/apps/{app}/config-vars", json={"CHAT_URL": "mine"}).status_code
            body = {"plan": "heroku-inference", "attachment": {"name": "CHAT"}}
            return new_plane.http.post(f"/apps/{app}/addons", json=body).status_code

        assert together(2, act) in ([200, 422], [422, 201])


def test_one_idempotency_key_at_once_makes_one_thing_and_one_answer(new_plane: Plane) -> None:
    keyed = {"Idempotency-Key": "storm"}
    answers = together(12, lambda _: new_plane.http.post("/apps", json={}, headers=keyed))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 11
    assert (rows(new_plane, "apps"), len(new_plane.events())) == (1, 1)


def test_a_storm_of_changes_leaves_vars_attachments_and_keys_in_agreement(new_plane: Plane) -> None:
    apps = [new_plane.app() for _ in range(3)]
    ids = [new_plane.ok("GET", f"/apps/{app}")["id"] for app in apps]
    addons = [new_plane.addon(app)["id"] for app in apps for _ in range(2)]

    def act(number: int) -> set[int]:
        chance, seen = random.Random(number), set()
        for step in range(12):
            app, addon = chance.choice(ids), chance.choice(addons)
            listed = new_plane.http.get("/addon-attachments").json()
            attachment = chance.choice(listed)["id"] if listed else "none"
            calls: list[tuple[str, str, dict[str, object]]] = [
                *[("POST", "/addon-attachments", {"addon": addon, "app": app})] * 4,
                *[("DELETE", f"/addon-attachments/{attachment}", {})] * 2,
                ("PATCH", f"/apps/{app}", {"name": f"storm-{number}-{step}"}),
                ("PATCH", f"/apps/{app}/config-vars", {"INFERENCE_CYAN_URL": chance.choice(["mine", None])}),
                ("DELETE", f"/apps/{app}/addons/{addon}", {"force": step > 9}),
            ]
            method, path, body = chance.choice(calls)
            seen.add(new_plane.http.request(method, path, json=body).status_code)
        return seen

    assert set().union(*together(6, act)) <= {200, 201, 404, 422}
    attached = new_plane.ok("GET", "/addon-attachments")
    assert rows(new_plane, "api_keys") == rows(new_plane, "attachments") == len(attached)
    assert count_orphans(new_plane) == 0
    for app in ids:
        config = new_plane.config(app)
        own = [one for one in attached if one["app"]["id"] == app]
        brought = {name for one in own for name in one["config_vars"]}
        assert brought <= config.keys()
        assert config.keys() - brought <= {"INFERENCE_CYAN_URL"}
        for one in own:
            principal = new_plane.principal(config[f"{one['name']}_KEY"])
            assert principal is not None
            assert (principal.attachment_id, principal.app_name) == (one["id"], one["app"]["name"])


@pytest.mark.parametrize("method", ["DELETE", "PATCH"])
def test_of_two_owners_who_end_each_other_at_once_exactly_one_succeeds(new_plane: Plane, method: str) -> None:
    for number in range(8):
        tokens = [new_plane.operator(f"{who}-{number}@example.com", Role.OWNER) for who in ("a", "b")]
        for owner in new_plane.stores.operators.list():
            if owner.role is Role.OWNER and not owner.email.endswith(f"-{number}@example.com"):
                new_plane.stores.operators.update(owner.id, role=Role.VIEWER)

        def act(index: int, tokens: list[str] = tokens, number: int = number) -> int:
            path = f"/operators/{'ba'[index]}-{number}@example.com"
            return status(new_plane, tokens[index], method, path, **({"role": "viewer"} if method == "PATCH" else {}))

        results = Counter(together(2, act))
        assert results[200] == 1, results
        assert set(results) <= {200, 401, 403, 422}
        owners = [one for one in new_plane.stores.operators.list() if one.role is Role.OWNER]
        assert len(owners) == 1


def test_sharing_an_app_with_one_who_is_removed_leaves_nobody_behind(new_plane: Plane) -> None:
    app = new_plane.app()
    for number in range(10):
        email = f"guest-{number}@example.com"
        new_plane.operator(email, Role.MEMBER)

        def act(index: int, email: str = email) -> int:
            if index == 0:
                return new_plane.http.post(f"/apps/{app}/collaborators", json={"user": email}).status_code
            return new_plane.http.delete(f"/operators/{email}").status_code

        shared, removed = together(2, act)
        assert (shared in (201, 404, 422), removed) == (True, 200)
    assert rows(new_plane, "collaborators") == 0
    assert rows(new_plane, "operator_tokens") == rows(new_plane, "operators") == 1


def test_sharing_twice_at_once_makes_one_collaborator(new_plane: Plane) -> None:
    app = new_plane.app()
    new_plane.operator("guest@example.com", Role.MEMBER)
    body = {"user": "guest@example.com"}
    results = together(6, lambda _: new_plane.http.post(f"/apps/{app}/collaborators", json=body).status_code)
    assert Counter(results) == {201: 1, 422: 5}
