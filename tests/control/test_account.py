"""Signing in, who the operator is, and health."""

import httpx

from tests.control.plane import EMAIL, Plane


def test_the_account_is_the_operators(plane: Plane) -> None:
    assert plane.ok("GET", "/account")["email"] == EMAIL
    assert plane.ok("GET", "/users/~")["email"] == EMAIL


def test_authorizations_are_a_list_without_tokens(plane: Plane) -> None:
    assert plane.token not in plane.http.get("/oauth/authorizations").text


def test_login_takes_email_and_token_and_gives_the_token(plane: Plane) -> None:
    body = {"description": "login", "expires_in": 2592000, "scope": ["global"]}
    reply = httpx.post(f"{plane.url}/oauth/authorizations", json=body, auth=(EMAIL, plane.token), trust_env=False)
    assert reply.status_code == 201
    assert reply.json()["access_token"]["token"] == plane.token
    assert reply.json()["user"]["email"] == EMAIL


def test_login_with_a_wrong_password_or_none_is_401(plane: Plane) -> None:
    url = f"{plane.url}/oauth/authorizations"
    for auth in ((EMAIL, "wrong"), ("", plane.token), None):
        assert httpx.post(url, json={}, auth=auth, trust_env=False).status_code == 401


def test_health_needs_no_credentials_and_names_the_version(plane: Plane) -> None:
    reply = httpx.get(f"{plane.url}/healthz", trust_env=False)
    assert (reply.status_code, reply.json()) == (200, {"status": "ok", "version": "0.0.0"})
