"""The credentials of upstreams: set, listed and removed, and shown to nobody."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.domain.access import Role
from tests.control.plane import EMAIL, Plane

SECRET = "sk-canary-0123456789abcdef"


def test_a_credential_is_set_replaced_listed_and_removed(each_plane: Plane) -> None:
    plane, fingerprint = each_plane, hashlib.sha256(SECRET.encode()).hexdigest()[:8]
    assert plane.ok("GET", "/credentials") == []
    made = plane.ok("PUT", "/credentials/double", value="first")
    replaced = plane.ok("PUT", "/credentials/double", value=SECRET)
    assert set(replaced) == {"name", "fingerprint", "updated_by", "created_at", "updated_at"}
    assert (replaced["name"], replaced["fingerprint"], replaced["updated_by"]) == ("double", fingerprint, EMAIL)
    assert replaced["created_at"] == made["created_at"]
    assert plane.stores.credentials.values() == {"double": SECRET}
    plane.ok("PUT", "/credentials/A.b-c_1", value="x" * 16_384)
    assert [one["name"] for one in plane.ok("GET", "/credentials")] == ["A.b-c_1", "double"]
    assert plane.ok("DELETE", "/credentials/double") == replaced
    assert list(plane.stores.credentials.values()) == ["A.b-c_1"]
    for method in ("DELETE", "DELETE"):
        status, body = plane.refused(method, "/credentials/double")
        assert (status, body["resource"]) == (404, "credential")


def test_the_audit_log_tells_of_changes_and_of_no_secret(new_plane: Plane) -> None:
    for value in ("first", SECRET):
        new_plane.ok("PUT", "/credentials/double", value=value)
    new_plane.ok("DELETE", "/credentials/double")
    events = new_plane.ok("GET", "/audit-events?action=credential.")
    assert [event["action"] for event in events] == ["credential.create", "credential.update", "credential.destroy"]
    old, new = (hashlib.sha256(value.encode()).hexdigest()[:8] for value in ("first", SECRET))
    assert [(event["before"], event["after"]) for event in events] == [
        (None, {"fingerprint": old}),
        ({"fingerprint": old}, {"fingerprint": new}),
        ({"fingerprint": new}, None),
    ]
    assert {event["object"]["name"] for event in events} == {"double"}
    assert SECRET not in str(events)


@pytest.mark.parametrize(
    "value", [None, 1, "", [SECRET], "x" * 16_385, f"{SECRET}\n", f"{SECRET}\r\nx-evil: 1", f"{SECRET}\0", f"{SECRET}ü"]
)
def test_what_no_header_can_carry_is_refused_and_not_repeated(plane: Plane, value: object) -> None:
    status, body = plane.refused("PUT", "/credentials/odd", value=value)
    assert (status, body["id"]) == (422, "invalid_params")
    assert "value" in body["message"]
    assert "canary" not in str(body)
    assert "odd" not in plane.stores.credentials.values()


@pytest.mark.parametrize("name", ["-a", ".a", "a b", "%C3%A4", "x" * 65, "a%0Ab"])
def test_a_name_that_no_provider_has_is_refused(plane: Plane, name: str) -> None:
    assert plane.refused("PUT", f"/credentials/{name}", value="x")[0] == 422


def test_credentials_that_are_set_at_once_are_all_there(each_plane: Plane) -> None:
    def put(number: int) -> int:
        body = {"value": f"v{number}"}
        return each_plane.http.put(f"/credentials/name-{number % 3}", json=body, timeout=60).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(put, range(24))) == {200}
    assert set(each_plane.stores.credentials.values()) == {"name-0", "name-1", "name-2"}


def test_a_role_that_was_lost_meanwhile_counts_no_more(new_plane: Plane) -> None:
    token = new_plane.operator("admin@example.com", Role.ADMIN)
    auth = {"Authorization": f"Bearer {token}"}
    assert new_plane.http.put("/credentials/a", json={"value": "x"}, headers=auth).status_code == 200
    new_plane.ok("PATCH", "/operators/admin@example.com", role="viewer")
    assert new_plane.http.put("/credentials/a", json={"value": "y"}, headers=auth).status_code == 403
    assert new_plane.stores.credentials.values() == {"a": "x"}
