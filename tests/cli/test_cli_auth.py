"""Login, logout, token and whoami."""

import stat
from pathlib import Path

from tests.cli.program import Penstock


def operator_token(penstock: Penstock) -> str:
    """The token that the control plane made for its operator."""
    return (Path(penstock.env["PENSTOCK_HOME"]) / "tokens" / "operator").read_text().strip()


def elsewhere(penstock: Penstock, home: Path) -> Penstock:
    """The same control plane seen from a home without its token."""
    return penstock.within(PENSTOCK_HOME=str(home))


def test_on_the_servers_machine_there_is_nothing_to_log_in_for(penstock: Penstock) -> None:
    assert penstock.ok("whoami") == "operator@penstock.local"
    assert "operator@penstock.local" in penstock.ok("auth:login")
    done = penstock("auth:token")
    assert done.stdout.strip() == operator_token(penstock)


def test_without_a_token_the_remedy_is_named(penstock: Penstock, tmp_path: Path) -> None:
    remote = elsewhere(penstock, tmp_path / "home")
    assert "penstock auth:login" in remote.refused("apps")
    assert "penstock auth:login" in remote.refused("auth:token")


def test_a_login_is_kept_privately_until_logout(penstock: Penstock, tmp_path: Path) -> None:
    remote = elsewhere(penstock, tmp_path / "home")
    shown = remote.ok("login", stdin=f"operator@penstock.local\n{operator_token(penstock)}\n")
    assert shown == "Logged in as operator@penstock.local"
    kept = tmp_path / "home" / "tokens" / "logins.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert remote.ok("auth:whoami") == "operator@penstock.local"
    remote.ok("logout")
    assert "auth:login" in remote.refused("whoami")


def test_a_wrong_token_is_refused_and_not_kept(penstock: Penstock, tmp_path: Path) -> None:
    remote = elsewhere(penstock, tmp_path / "home")
    told = remote.refused("auth:login", stdin="operator@penstock.local\nwrong-token\n")
    assert "Email or token is wrong." in told
    assert "wrong-token" not in told
    assert not (tmp_path / "home" / "tokens" / "logins.json").exists()


def test_login_refuses_while_the_environment_has_a_token(penstock: Penstock) -> None:
    assert "HEROKU_API_KEY" in penstock.within(HEROKU_API_KEY="k").refused("login")


def test_a_login_without_input_names_the_way_of_scripts(penstock: Penstock, tmp_path: Path) -> None:
    assert "--token-stdin" in elsewhere(penstock, tmp_path / "home").refused("login")
