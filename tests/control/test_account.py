"""Signing in, who the operator is, and health."""

from datetime import UTC, datetime, timedelta

import httpx

from penstock.domain.access import Role
from tests.control.plane import EMAIL, Plane


def test_the_account_is_the_operators(plane: Plane) -> None:
    assert plane.ok("GET", "/account")["email"] == EMAIL
    assert plane.ok("GET", "/users/~")["email"] == EMAIL


def test_the_account_says_the_role(plane: Plane) -> None:
    assert plane.ok("GET", "/account")["role"] == "owner"


def test_authorizations_are_the_callers_tokens_in_herokus_shape_without_secrets(new_plane: Plane) -> None:
    made = new_plane.ok("POST", "/oauth/authorizations", description="ci", expires_in="3600", scope=["global"])
    new_plane.operator("ann@example.com", Role.MEMBER)
    reply = new_plane.http.get("/oauth/authorizations")
    first, second = reply.json()
    assert (first["description"], first["access_token"]["expires_in"]) == ("HOME/tokens/operator", None)
    assert (second["id"], second["description"], second["scope"]) == (made["id"], "ci", ["global"])
    assert 3590 <= second["access_token"]["expires_in"] <= 3600
    assert second["user"]["email"] == EMAIL
    assert new_plane.token not in reply.text
    assert made["access_token"]["token"] not in reply.text
    assert new_plane.ok("GET", f"/oauth/authorizations/{made['id']}")["id"] == made["id"]


def sign_in(plane: Plane, user: str, token: str, **body: object) -> httpx.Response:
    """What the Heroku CLI's ``login -i`` sends."""
    body = {"description": "login", "expires_in": 2592000, "scope": ["global"]} | body
    return httpx.post(f"{plane.url}/oauth/authorizations", json=body, auth=(user, token), trust_env=False)


def account(plane: Plane, token: str) -> int:
    """The status that a token gets."""
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{plane.url}/account", headers=headers, trust_env=False).status_code


def test_login_takes_email_and_token_and_mints_a_token_that_ends(plane: Plane) -> None:
    reply = sign_in(plane, EMAIL.upper(), plane.token)
    assert reply.status_code == 201
    made = reply.json()
    assert made["user"]["email"] == EMAIL
    assert made["access_token"]["expires_in"] == 2592000
    assert made["access_token"]["token"] != plane.token
    assert account(plane, made["access_token"]["token"]) == 200


def test_login_with_a_wrong_password_or_none_is_401(plane: Plane) -> None:
    for auth in ((EMAIL, "wrong"), ("other@example.com", plane.token), None):
        reply = httpx.post(f"{plane.url}/oauth/authorizations", json={}, auth=auth, trust_env=False)
        assert reply.status_code == 401


def test_a_token_that_ends_cannot_mint_one_that_ends_later(plane: Plane) -> None:
    short = sign_in(plane, EMAIL, plane.token, expires_in=60).json()["access_token"]["token"]
    for body in ({}, {"expires_in": 3600}, {"expires_in": None}):
        for path in ("/oauth/authorizations", "/operators/~/tokens", f"/operators/{EMAIL}/tokens"):
            reply = httpx.post(
                plane.url + path, json=body, headers={"Authorization": f"Bearer {short}"}, trust_env=False
            )
            assert reply.status_code == 201, reply.text
            kept = plane.stores.operators.find_token(reply.json()["id"])
            assert kept is not None
            assert kept.expires_at is not None
            assert kept.expires_at <= datetime.now(UTC) + timedelta(seconds=60)


def test_signing_out_ends_the_token_in_use_unless_it_was_made_to_stay(plane: Plane) -> None:
    token = sign_in(plane, EMAIL, plane.token).json()["access_token"]["token"]
    url = f"{plane.url}/oauth/sessions/~"
    assert httpx.delete(url, headers={"Authorization": f"Bearer {token}"}, trust_env=False).status_code == 200
    assert account(plane, token) == 401
    assert plane.refused("DELETE", "/oauth/sessions/~")[1]["resource"] == "session"
    assert account(plane, plane.token) == 200


def test_an_authorization_is_revoked_at_once_and_by_its_owner_only(plane: Plane) -> None:
    made = plane.ok("POST", "/oauth/authorizations", description="ci")
    other = plane.operator("revoker@example.com", Role.ADMIN)
    for method in ("GET", "DELETE"):
        reply = httpx.request(
            method,
            f"{plane.url}/oauth/authorizations/{made['id']}",
            headers={"Authorization": f"Bearer {other}"},
            trust_env=False,
        )
        assert (reply.status_code, reply.json()["resource"]) == (404, "authorization")
    assert plane.ok("DELETE", f"/oauth/authorizations/{made['id']}")["description"] == "ci"
    assert account(plane, made["access_token"]["token"]) == 401


def test_health_needs_no_credentials_and_names_the_version(plane: Plane) -> None:
    reply = httpx.get(f"{plane.url}/healthz", trust_env=False)
    assert (reply.status_code, reply.json()) == (200, {"status": "ok", "version": "0.0.0"})
