"""What `penstock heroku` does around the CLI that it runs: a script in its place says what it was given."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import scratch_env

CONTROL = "http://127.0.0.1:9"
SECRET = "pst-canary-of-the-wrapper"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment with a control plane that nobody asks, and a token for it."""
    addresses = {"PENSTOCK_CONTROL_URL": CONTROL, "PENSTOCK_CONTROL_TOKEN": SECRET}
    return scratch_env(tmp_path / "home") | addresses | {"https_proxy": "http://127.0.0.1:7"}


def started(script: str, env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """`penstock heroku` with a shell script in place of the CLI; standard streams are pipes."""
    program = Path(env["HOME"]) / "heroku"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    command = [sys.executable, "-m", "penstock", "heroku", "--cli", str(program), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str], stdin: str = "") -> tuple[int, str, str]:
    out, err = process.communicate(stdin, timeout=60)
    return process.returncode, out, err


def variables(env: dict[str, str], *arguments: str) -> dict[str, str]:
    code, out, err = ended(started("env -0", env, *arguments))
    assert (code, err) == (0, "")
    return dict(line.split("=", 1) for line in out.split("\0") if line)


def test_arguments_streams_and_exit_code_pass_through(env: dict[str, str]) -> None:
    script = 'printf "%s|" "$@"; cat; echo trouble >&2; exit 7'
    arguments = ["create", "--help", "-a", "two words", "--", "--region=us", ""]
    assert ended(started(script, env, *arguments), "input") == (
        7,
        "create|--help|-a|two words|--|--region=us||input",
        "trouble\n",
    )


def test_everything_that_the_cli_reads_leads_here(env: dict[str, str]) -> None:
    seen, home = variables(env), Path(env["PENSTOCK_HOME"])
    assert seen["HEROKU_HOST"] == seen["HEROKU_PARTICLEBOARD_URL"] == seen["HEROKU_LOGIN_HOST"] == CONTROL
    assert seen["HEROKU_API_KEY"] == SECRET
    assert seen["DISABLE_TELEMETRY"] == seen["HEROKU_SKIP_NEW_VERSION_CHECK"] == "true"
    assert seen["HTTPS_PROXY"].startswith("http://127.0.0.1:")
    assert seen["NO_PROXY"] == "127.0.0.1"
    assert seen["NODE_EXTRA_CA_CERTS"] == seen["SSL_CERT_FILE"] == str(home / "interop" / "ca.pem")
    assert not {name for name in seen if name.startswith("PENSTOCK_") or name == "https_proxy"}


def test_a_remote_control_plane_gets_the_token_by_a_header(env: dict[str, str]) -> None:
    seen = variables(env | {"PENSTOCK_CONTROL_URL": "https://control.example:8443"})
    assert seen["HEROKU_HOST"] == "https://control.example:8443/127.0.0.1"
    assert seen["HEROKU_HEADERS"] == f'{{"authorization": "Bearer {SECRET}"}}'
    assert seen["NO_PROXY"] == "control.example"


def test_a_login_starts_without_a_token(env: dict[str, str]) -> None:
    assert "HEROKU_API_KEY" not in variables(env, "login", "-i")
    assert "HEROKU_API_KEY" not in variables(env | {"PENSTOCK_CONTROL_TOKEN": ""}, "auth:login", "-i")


def test_the_token_stands_in_no_argument(env: dict[str, str]) -> None:
    script = 'tr "\\0" " " < /proc/$$/cmdline; tr "\\0" " " < /proc/$PPID/cmdline'
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("there is no /proc")
    code, out, _ = ended(started(script, env, "apps"))
    assert (code, "apps" in out, SECRET in out) == (0, True, False)


def test_the_users_own_git_configuration_is_read_and_not_written(env: dict[str, str]) -> None:
    own = Path(env["HOME"]) / ".gitconfig"
    own.write_text("[user]\n\tname = Somebody\n")
    script = "git config --global --includes --get user.name; git config --global credential.x.helper y"
    for _ in range(2):
        assert ended(started(script, env)) == (0, "Somebody\n", "")
    assert own.read_text() == "[user]\n\tname = Somebody\n"


def test_a_signal_that_ends_penstock_ends_the_cli(env: dict[str, str]) -> None:
    process = started("trap 'exit 9' TERM; echo ready; cat; cat <&3", env)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 9


def test_ctrl_c_is_left_to_the_cli(env: dict[str, str]) -> None:
    process = started("echo ready; cat", env)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert ended(process, "still here") == (0, "still here", "")


def test_a_cli_that_a_signal_killed_has_the_shells_exit_code(env: dict[str, str]) -> None:
    assert ended(started("kill -KILL $$", env))[0] == 128 + signal.SIGKILL


def test_a_missing_cli_comes_with_a_hint(env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "penstock", "heroku", "apps"]
    bare = env | {"PATH": str(Path(env["HOME"]))}
    done = subprocess.run(command, env=bare, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "npm install --global heroku" in done.stderr


def test_no_token_is_said_before_anything_runs(env: dict[str, str]) -> None:
    code, out, err = ended(started("echo ran", env | {"PENSTOCK_CONTROL_TOKEN": ""}, "apps"))
    assert (code, out) == (1, "")
    assert "penstock auth:login" in err


def test_what_needs_the_registry_is_refused(env: dict[str, str]) -> None:
    code, out, err = ended(started("echo ran", env, "plugins:install", "@heroku/plugin-ai"))
    assert (code, out) == (1, "")
    assert "run heroku plugins:install without penstock" in err


def test_a_destination_that_the_proxy_refused_is_named(env: dict[str, str]) -> None:
    ask = "import os, httpx; httpx.get('https://example.com', proxy=os.environ['HTTPS_PROXY'])"
    code, _, err = ended(started(f'{sys.executable} -c "{ask}" 2>/dev/null', env, "apps"))
    assert code == 1
    assert "example.com:443 was refused" in err


def test_heroku_env_wants_a_running_proxy_and_prints_the_same_variables(env: dict[str, str]) -> None:
    def exports() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "penstock", "heroku:env"]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    assert "penstock heroku:proxy" in exports().stderr
    command = [sys.executable, "-m", "penstock", "heroku:proxy"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as proxy:
        assert proxy.stderr is not None
        assert 'eval "$(penstock heroku:env)"' in proxy.stderr.readline()
        printed = exports()
        assert printed.returncode == 0, printed.stderr
        shell = subprocess.run(
            ["sh", "-c", f"{printed.stdout}\nenv -0"], env={}, capture_output=True, text=True, check=True
        )
        seen = dict(line.split("=", 1) for line in shell.stdout.split("\0") if line)
        wrapped = variables(env)
        assert {name: item for name, item in seen.items() if name != "HTTPS_PROXY"} == {
            name: wrapped[name] for name in seen.keys() & wrapped.keys() - {"HTTPS_PROXY"}
        } | {name: seen[name] for name in seen.keys() & {"PWD", "SHLVL", "_"}}
        assert set(seen) > {"HEROKU_HOST", "HEROKU_API_KEY", "HTTPS_PROXY", "GIT_CONFIG_GLOBAL"}
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait(30) == 0
    assert "penstock heroku:proxy" in exports().stderr
    assert not (Path(env["PENSTOCK_HOME"]) / "run" / "heroku-proxy.json").exists()


def test_a_proxy_names_what_it_refused(env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "penstock", "heroku:proxy", "--port", "0"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as proxy:
        assert proxy.stderr is not None
        port = int(proxy.stderr.readline().partition(". ")[0].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as asking:
            asking.sendall(b"CONNECT example.com:443 HTTP/1.1\r\n\r\n")
            assert "example.com:443 was refused" in proxy.stderr.readline()
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait(30) == 0


def test_a_used_port_of_a_proxy_is_one_line(env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "penstock", "heroku:proxy", "--port", str(port)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    told = f"Error: Port {port} on 127.0.0.1 cannot be used: address already in use. Choose another with --port.\n"
    assert (done.returncode, done.stderr[5:], done.stderr.count("\n")) == (1, told, 1)


def test_what_a_killed_proxy_left_behind_leads_nobody_to_its_port(env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "penstock", "heroku:proxy"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as proxy:
        assert proxy.stderr is not None
        assert "Listening on" in proxy.stderr.readline()
        second = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert (second.returncode, "Another penstock heroku:proxy runs" in second.stderr) == (1, True)
        proxy.kill()
    left = json.loads((Path(env["PENSTOCK_HOME"]) / "run" / "heroku-proxy.json").read_text())
    with socket.create_server(("127.0.0.1", int(left["proxy"].rpartition(":")[2]))):
        told = subprocess.run([*command[:-1], "heroku:env"], env=env, capture_output=True, text=True, check=False)
    assert (told.stdout, "Start it first" in told.stderr) == ("", True)


def test_what_the_wrapper_and_the_proxy_make_is_private_whatever_the_umask(env: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    env |= {"PENSTOCK_HOME": str(home), "PENSTOCK_HEROKU_CLI": "/bin/true"}
    command = [sys.executable, "-m", "penstock"]
    subprocess.run([*command, "heroku", "apps"], env=env, umask=0, check=True, timeout=60)
    with subprocess.Popen([*command, "heroku:proxy"], env=env, umask=0, stderr=subprocess.PIPE, text=True) as proxy:
        assert proxy.stderr is not None
        assert "Listening" in proxy.stderr.readline()
        made = {str(path.relative_to(home)): path.stat().st_mode & 0o077 for path in home.rglob("*")}
        proxy.send_signal(signal.SIGTERM)
    assert made.keys() >= {"run/heroku-proxy.json", "interop/gitconfig", "interop/.lock"}
    # The certificate alone is for everybody.
    assert {name for name, mode in made.items() if mode} == {"interop/ca.pem"}
    assert not home.stat().st_mode & 0o077
    assert not home.parent.stat().st_mode & 0o077


def test_the_home_keeps_the_authoritys_key_to_itself(env: dict[str, str]) -> None:
    variables(env)
    folder = Path(env["PENSTOCK_HOME"]) / "interop"
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in (folder / "ca.pem").read_text()
    assert SECRET not in "".join(path.read_text() for path in folder.iterdir() if os.access(path, os.R_OK))
