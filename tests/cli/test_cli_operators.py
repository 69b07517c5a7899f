"""Operators, tokens, access and audit, as an owner and a newcomer use them."""

import re
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cli.program import Penstock
from tests.cli.test_cli_auth import elsewhere, operator_token

OWNER = "operator@penstock.local"


@pytest.fixture
def email() -> str:
    """An address that no other test uses."""
    return f"ann-{uuid4().hex[:8]}@example.com"


def logged_in(penstock: Penstock, home: Path, email: str, token: str) -> Penstock:
    """The console script of somebody on another machine, who has logged in."""
    remote = elsewhere(penstock, home)
    assert remote.ok("login", stdin=f"{email}\n{token}\n") == f"Logged in as {email}"
    return remote


def test_a_second_operator_is_added_logs_in_and_works(penstock: Penstock, tmp_path: Path, email: str, app: str) -> None:
    done = penstock("operators:add", email, "--role", "member")
    assert (done.returncode, len(done.stdout.split())) == (0, 1)
    control = penstock.env["PENSTOCK_CONTROL_URL"]
    assert f"penstock login --control-url {control}" in done.stderr
    token = done.stdout.strip()
    assert token not in done.stderr

    ann = elsewhere(penstock, tmp_path / "home").within(PENSTOCK_CONTROL_URL="")
    assert ann.ok("login", "--control-url", control, stdin=f"{email}\n{token}\n") == f"Logged in as {email}"
    assert ann.ok("whoami", "-v") == f"{email} (member)"
    assert ann.json("whoami", "--json")["role"] == "member"
    assert ann.json("apps", "--all", "--json") == []
    assert "Couldn't find that app" in ann.refused("config", "-a", app)

    penstock.ok("access:add", email, "-a", app, "--role", "viewer")
    assert [one["name"] for one in ann.json("apps", "--json")] == [app]
    assert ann.ok("apps") == f"=== Collaborated Apps\n\n{app}"
    ann.ok("create", f"{app}-ann")
    headings = ("=== Collaborated Apps\n", f"=== {email} Apps\n")
    assert ann.ok("apps") == f"{headings[1]}\n{app}-ann\n\n{headings[0]}\n{app}"
    assert [heading in ann.ok("apps", "--all") for heading in headings] == [False, False]
    ann.ok("destroy", f"{app}-ann", "-c", f"{app}-ann")
    assert "app:secrets" in ann.refused("config", "-a", app)
    penstock.ok("access:update", email, "-a", app, "--role", "member")
    assert ann.ok("config:set", "A=1", "-a", app)
    table = penstock.ok("access", "-a", app)
    assert (OWNER in table, "owner" in table, email in table, "member" in table) == (True, True, True, True)
    ann.ok("access:remove", email, "-a", app)
    assert "Couldn't find that app" in ann.refused("config", "-a", app)

    assert "operators:read" in ann.refused("operators")
    assert "audit:read" in ann.refused("audit")
    penstock.ok("operators:update", email, "--role", "admin")
    assert f"{email}  admin" in ann.ok("operators")
    assert "Only an owner" in ann.refused("operators:add", f"x{email}", "--role", "owner")
    assert "own" in ann.refused("operators:remove", email, "--confirm", email)
    assert "--confirm" in penstock.refused("operators:remove", email)
    penstock.ok("operators:remove", email, "--confirm", email)
    assert "refused the token" in ann.refused("whoami")


def test_a_login_has_a_token_of_its_own_that_logging_out_ends(penstock: Penstock, tmp_path: Path, email: str) -> None:
    token = penstock.ok("operators:add", email)
    ann = logged_in(penstock, tmp_path / "home", email, token)
    minted = ann("auth:token").stdout.strip()
    assert minted != token
    (first, login) = ann.json("tokens", "--json")
    assert (first["description"], first["expires_at"]) == ("first token", None)
    assert login["description"].startswith("penstock login on ")
    assert login["expires_at"] is not None
    assert minted.startswith(login["prefix"])
    ann.ok("logout")
    left = ann.within(PENSTOCK_CONTROL_TOKEN=token).json("tokens", "--json")
    assert [one["id"] for one in left] == [first["id"]]
    assert "PENSTOCK_CONTROL_TOKEN" in ann.within(PENSTOCK_CONTROL_TOKEN=minted).refused("whoami")


def test_a_login_needs_no_more_than_a_token_on_standard_input(penstock: Penstock, tmp_path: Path) -> None:
    remote = elsewhere(penstock, tmp_path / "home")
    assert "Email or token is wrong" in remote.refused("login", "--token-stdin", stdin="pst-wrong\n")
    told = remote("login", "--token-stdin", "--expires-in", "60", stdin=f"{operator_token(penstock)}\n")
    assert told.stdout.strip() == f"Logged in as {OWNER}"
    assert operator_token(penstock) not in (tmp_path / "home" / "tokens" / "logins.json").read_text()
    remote.ok("logout")
    assert penstock.ok("whoami") == OWNER


def test_tokens_are_made_listed_and_revoked_for_oneself_and_for_others(
    penstock: Penstock, tmp_path: Path, email: str
) -> None:
    penstock.ok("operators:add", email, "--role", "viewer", "--expires", "1h")
    done = penstock("tokens:create", "--operator", email, "--description", "a script", "--expires", "30d")
    token = done.stdout.strip()
    made = penstock.json("tokens", "--operator", email, "--json")[-1]
    assert (made["description"], made["prefix"]) == ("a script", token[:12])
    assert token not in penstock.ok("tokens", "--operator", email)
    ann = elsewhere(penstock, tmp_path / "home").within(PENSTOCK_CONTROL_TOKEN=token)
    own = ann("tokens:create")
    assert "It expires at" in own.stderr
    assert own.stdout.startswith("pst-")
    penstock.ok("tokens:revoke", made["prefix"], "--operator", email)
    assert "refused the token" in ann.refused("whoami")
    assert "No token" in penstock.refused("tokens:revoke", "none", "--operator", email)
    assert "'--expires': '30x' is no duration" in penstock.refused("tokens:create", "--expires", "30x", code=2)
    assert "'--expires': 400d is too long; 365d" in penstock.refused("tokens:create", "--expires", "400d", code=2)


def test_the_audit_log_is_shown_as_a_table_and_as_json(penstock: Penstock, app: str, email: str) -> None:
    penstock.ok("config:set", "GREETING=hidden-value", "ANOTHER_ONE=2", "A_THIRD_ONE=3", "-a", app)
    penstock.ok("operators:add", email)
    penstock.ok("operators:update", email, "--role", "viewer")
    penstock.ok("access:add", email, "-a", app)
    events = penstock.json("audit", "-a", app, "--json")
    assert [event["action"] for event in events] == ["app.create", "config.update", "collaborator.create"]
    table = penstock.ok("audit", "-a", app, "--since", "1h")
    assert "GREETING: - -> [hidden]" in table
    assert f"{app}/{email}" in table
    assert "hidden-value" not in table
    changed = [line for line in penstock.ok("audit", "--action", "operator.update").splitlines() if email in line]
    assert len(changed) == 1
    assert "role: member -> viewer" in changed[0]
    assert OWNER in changed[0]
    assert "127.0.0.1" in changed[0]
    assert penstock.ok("audit", "-a", app, "--since", "2999-01-01T00:00:00Z") == "No events."
    misspelt = penstock("audit", "--action", "login")
    assert (misspelt.stdout, "operator.sign_in" in misspelt.stderr) == ("No events.\n", True)
    seen = penstock.within(COLUMNS="150").ok("audit", "-a", app)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", seen.splitlines()[-1].split()[0])
    narrow = penstock.within(COLUMNS="80").ok("audit", "-a", app, "--action", "config.")
    wide = penstock.ok("audit", "-a", app, "--action", "config.")
    assert (len(narrow) < len(wide), narrow[-3:]) == (True, "...")
    assert "since" in penstock.refused("audit", "--since", "yesterday")


def test_an_operator_is_renamed_and_a_change_of_nothing_is_refused(penstock: Penstock, email: str) -> None:
    penstock.ok("operators:add", email)
    penstock.ok("operators:update", email, "--email", f"new-{email}")
    assert f"new-{email}" in penstock.ok("operators")
    assert "--role" in penstock.refused("operators:update", f"new-{email}", code=2)
    assert "last owner" in penstock.refused("operators:update", OWNER, "--role", "member")
    assert "email must be" in penstock.refused("operators:add", "no-address")
