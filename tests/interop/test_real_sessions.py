"""The real CLI in a terminal, in a shell of its own, and against a control plane that is not on 127.0.0.1."""

import os
import pty
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.interop.conftest import Heroku
from tests.server import Server, running

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def token(penstock_server: Server) -> str:
    """The operator's token."""
    return (penstock_server.home / "tokens" / "operator").read_text().strip()


def test_login_asks_for_email_and_token_and_keeps_them_in_its_own_netrc(
    heroku: Heroku, penstock_server: Server, token: str, tmp_path: Path
) -> None:
    env = heroku.env | {"HOME": str(tmp_path)}
    code, shown = in_terminal(env, "login", "-i", answers={"Email": "operator@penstock.local", "Password": token})
    assert code == 0, shown
    assert "Logged in as operator@penstock.local" in shown
    assert token not in shown
    host = penstock_server.control.removeprefix("http://")
    saved = re.search(
        rf"machine {host}\n\s+login operator@penstock\.local\n\s+password (\S+)", (tmp_path / ".netrc").read_text()
    )
    bare = {name: item for name, item in env.items() if not name.startswith("PENSTOCK_")}
    bare |= {"HEROKU_HOST": penstock_server.control, "DISABLE_TELEMETRY": "true", "HEROKU_DISABLE_AUTOUPDATE": "true"}
    bare |= {"HEROKU_PARTICLEBOARD_URL": penstock_server.control, "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig")}
    ran = [
        subprocess.run([heroku.program, name], env=bare, capture_output=True, text=True, timeout=60, check=False)
        for name in ("whoami", "logout")
    ]
    assert ran[0].stdout == "operator@penstock.local\n", ran[0].stderr
    assert ran[1].returncode == 0, ran[1].stderr
    assert saved
    asked = httpx.get(
        f"{penstock_server.control}/account", headers={"Authorization": f"Bearer {saved[1]}"}, trust_env=False
    )
    assert asked.status_code == 401


def test_login_with_a_wrong_token_writes_nothing(heroku: Heroku, tmp_path: Path) -> None:
    env = heroku.env | {"HOME": str(tmp_path)}
    code, shown = in_terminal(env, "login", "-i", answers={"Email": "operator@penstock.local", "Password": "wrong"})
    assert code != 0
    assert "Invalid credentials" in shown
    assert not (tmp_path / ".netrc").exists() or "password" not in (tmp_path / ".netrc").read_text()


def test_a_shell_with_the_exports_reaches_both_planes(heroku: Heroku) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "penstock", "heroku:proxy"], env=heroku.env, stderr=subprocess.PIPE, text=True
    ) as proxy:
        assert proxy.stderr is not None
        assert "Listening on" in proxy.stderr.readline()
        script = f'eval "$({sys.executable} -m penstock heroku:env)"; "$PENSTOCK_HEROKU_CLI" ai:models:list'
        command = ["sh", "-c", script]
        done = subprocess.run(command, env=heroku.env, capture_output=True, text=True, timeout=120, check=False)
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait(30) == 0
    assert (done.returncode, "claude-4-5-sonnet" in done.stdout) == (0, True), done.stderr


def test_a_control_plane_elsewhere_is_driven_too(heroku: Heroku, tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has 127.0.0.2 without being asked")
    with running(tmp_path / "there", "--control-host", "127.0.0.2", "--set", "engine.enabled=false") as server:
        settings = {
            "PENSTOCK_HOME": str(tmp_path / "here"),
            "PENSTOCK_CONTROL_URL": server.control,
            "PENSTOCK_CONTROL_TOKEN": (server.home / "tokens" / "operator").read_text().strip(),
            "PENSTOCK_GATEWAY_PUBLIC_URL": server.gateway,
        }
        remote = replace(heroku, env=heroku.env | settings)
        created = remote("create", "over-there")
        assert created.returncode == 0, created.stderr
        assert remote("addons:create", "heroku-inference:standard", "-a", "over-there").returncode == 0
        assert "over-there" in server.cli("apps").stdout
        info = remote("ai:models:info", "-a", "over-there")
        assert "Model Alias:       INFERENCE" in info.stdout, info.stderr


def in_terminal(env: dict[str, str], *arguments: str, answers: dict[str, str]) -> tuple[int, str]:
    """Runs `penstock heroku` on a terminal, answers each question once; (exit code, all that was shown)."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "penstock", "heroku", *arguments]
    process = subprocess.Popen(
        command, env=env, cwd=env["HOME"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    shown, left = "", dict(answers)
    # A terminal whose last process is gone fails to read.
    while block := _read(ours):
        shown += block
        for question in [name for name in left if name in shown]:
            os.write(ours, f"{left.pop(question)}\r".encode())
    os.close(ours)
    return process.wait(60), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def _read(descriptor: int) -> str:
    try:
        return os.read(descriptor, 65536).decode(errors="replace")
    except OSError:
        return ""
