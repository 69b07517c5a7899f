"""The HTTP edge: credentials, bodies, unknown routes, failures."""

import logging
import sqlite3
import uuid
from collections.abc import Iterator

import httpx
import pytest

from penstock.domain.access import Open
from penstock.domain.errors import PenstockError
from penstock.domain.platform import Operator
from penstock.web.api import ApiError, Credentials, Reply, Request, Route, SignedIn, application, parse_credentials
from tests.control.plane import EMAIL, Plane, serving

OPERATOR = Operator(id="o", email=EMAIL)


def bare(plane: Plane, path: str = "/account", **headers: str) -> httpx.Response:
    """A call without the client's own headers."""
    return httpx.get(plane.url + path, headers=headers, trust_env=False)


def test_a_call_without_credentials_is_401_and_says_how_to_send_them(plane: Plane) -> None:
    reply = bare(plane)
    assert reply.status_code == 401
    assert reply.json()["id"] == "unauthorized"
    assert "Authorization" in reply.json()["message"]


@pytest.mark.parametrize("value", ["Bearer wrong", "Basic !!!", "Basic OndAcm9uZw==", "Digest x", "Bearer"])
def test_bad_credentials_are_401(plane: Plane, value: str) -> None:
    assert bare(plane, Authorization=value).status_code == 401


def test_the_token_also_works_as_a_basic_password(plane: Plane) -> None:
    for user in (EMAIL, EMAIL.upper(), ""):
        assert httpx.get(f"{plane.url}/account", auth=(user, plane.token), trust_env=False).status_code == 200


def test_the_token_under_another_email_is_401(plane: Plane) -> None:
    reply = httpx.get(f"{plane.url}/account", auth=("other@example.com", plane.token), trust_env=False)
    assert reply.status_code == 401


def test_credentials_are_checked_before_the_body(plane: Plane) -> None:
    assert httpx.post(f"{plane.url}/apps", content=b"{", trust_env=False).status_code == 401


def test_credentials_do_not_show_their_secret() -> None:
    assert "hidden" not in repr(Credentials("hidden", "user"))
    assert parse_credentials("bearer  spaced ") == Credentials("spaced")


def test_every_answer_has_a_request_id_of_its_own(plane: Plane) -> None:
    long = ",".join(str(uuid.uuid4()) for _ in range(190))
    ids = {plane.http.get(path, headers={"Request-Id": long}).headers["request-id"] for path in ("/account", "/nope")}
    assert len(ids) == 2
    assert all(uuid.UUID(value) for value in ids)


def test_an_unknown_route_is_404_in_herokus_shape(plane: Plane) -> None:
    status, body = plane.refused("GET", "/teams")
    assert (status, body["id"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/apps/%00", "/apps/a%00b/config-vars", "/apps//addons", "/apps/a%2Fb", "//"])
def test_an_odd_path_is_404(plane: Plane, path: str) -> None:
    assert plane.http.get(path).status_code == 404


def test_a_wrong_method_is_405_and_names_the_right_ones(plane: Plane) -> None:
    reply = plane.http.put("/apps")
    assert (reply.status_code, reply.json()["id"]) == (405, "method_not_allowed")
    assert reply.headers["allow"] == "GET, POST"


def test_head_answers_as_get_without_a_body(plane: Plane) -> None:
    reply = plane.http.head("/account")
    assert (reply.status_code, reply.content) == (200, b"")


@pytest.mark.parametrize(
    "body",
    [b"{", b"nope", b"\xff\xfe", b'{"name": NaN}', b'{"name": "\\ud800"}', b"[" * 100_000, b'{"a":1}{'],
    ids=["cut", "word", "not utf-8", "NaN", "surrogate", "deep", "two"],
)
def test_what_is_not_json_is_400(plane: Plane, body: bytes) -> None:
    reply = plane.http.post("/apps", content=body)
    assert (reply.status_code, reply.json()["id"]) == (400, "bad_request")


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"1", b"true"])
def test_json_that_is_not_an_object_is_400(plane: Plane, body: bytes) -> None:
    assert plane.http.post("/apps", content=body).status_code == 400


def test_json_is_read_whatever_the_content_type(plane: Plane) -> None:
    reply = plane.http.post("/apps", content=b'{"name":"plain-type"}', headers={"Content-Type": "text/plain"})
    assert reply.status_code == 201


def test_a_body_over_the_limit_is_413(plane: Plane) -> None:
    reply = plane.http.post("/apps", content=b" " * (1024 * 1024 + 1))
    assert (reply.status_code, reply.json()["id"]) == (413, "request_too_large")


def test_a_chunked_body_over_the_limit_is_413(plane: Plane) -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b" " * 65536 for _ in range(17))

    assert plane.http.post("/apps", content=chunks()).status_code == 413


def failing(error: Exception) -> httpx.Response:
    """What a client sees of an exception in a handler."""

    def handle(request: Request) -> Reply:
        raise error

    table = [Route("GET", "/things/{thing}", handle, Open.OPERATOR)]
    app = application(table, authenticate=lambda credentials, caller: SignedIn(OPERATOR))
    with serving(app) as url:
        return httpx.get(f"{url}/things/secret-name", headers={"Authorization": "Bearer x"}, trust_env=False)


def test_an_unknown_exception_is_500_without_detail_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        reply = failing(ValueError("the secret detail"))
    assert (reply.status_code, reply.json()["id"]) == (500, "internal_server_error")
    assert "secret" not in reply.text
    (line,) = [record.getMessage() for record in caplog.records if record.name == "penstock.web.api"]
    assert line.startswith("GET /things/{thing} failed: ValueError at ")
    assert reply.headers["request-id"] in line
    assert "secret" not in line


def test_an_unavailable_store_is_503_with_retry_after() -> None:
    reply = failing(PenstockError("store_unavailable", "The database does not answer.", retry_after_s=1))
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert reply.json()["id"] == "store_unavailable"


def test_a_refusal_keeps_its_resource() -> None:
    assert failing(ApiError(404, "not_found", "Gone.", resource="app")).json() == {
        "id": "not_found",
        "message": "Gone.",
        "resource": "app",
    }


def test_a_locked_database_is_503_and_the_next_call_works(new_plane: Plane) -> None:
    other = sqlite3.connect(new_plane.home / "penstock.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    reply = new_plane.http.post("/apps", json={"name": "waiting"})
    other.execute("ROLLBACK")
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert new_plane.app("waiting") == "waiting"


def test_reads_go_on_while_another_process_writes(new_plane: Plane) -> None:
    other = sqlite3.connect(new_plane.home / "penstock.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert new_plane.ok("GET", "/apps") == []
    other.execute("ROLLBACK")
