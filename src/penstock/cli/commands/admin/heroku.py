"""The real Heroku CLI, led to this installation: one command of it, an environment for a shell, the proxy of both."""

import fcntl
import json
import os
import shlex
import signal
import subprocess

import click

from penstock.cli import output
from penstock.cli.output import CliError
from penstock.cli.whereabouts import Whereabouts, find
from penstock.settings.private import private_folder

_REGISTRY_COMMANDS = ("plugins:add", "plugins:install", "plugins:update", "update")
_LOGIN_COMMANDS = ("auth:login", "login")
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_control_option = click.option("--control-url", metavar="URL", help="The control plane's address.")


@click.command("heroku", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--cli", envvar="PENSTOCK_HEROKU_CLI", metavar="PATH", help="The real CLI (default: heroku on PATH).")
@_control_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="ARGS...")
def heroku(cli: str | None, control_url: str | None, arguments: tuple[str, ...]) -> int:
    """Run the installed Heroku CLI against this installation. Options of ours stand before ARGS."""
    from penstock.cli.interop import environment, proxy  # noqa: PLC0415 - cryptography is slow to import

    program = environment.find_cli(cli)
    command = arguments[0] if arguments else ""
    if command in _REGISTRY_COMMANDS:
        raise CliError(f"{command} needs the npm registry, which lies outside: run heroku {command} without penstock.")
    where = find(control_url)
    relay, authority = environment.proxy_of(where)
    with proxy.running(relay) as url:
        variables = environment.redirection(where, url, authority.certificate_path)
        if command not in _LOGIN_COMMANDS:
            variables |= environment.credentials(where)
        code = _run([program, *arguments], environment.child_environment(variables))
    for name in sorted(relay.refused):
        _warn_of(name)
    return code


@click.command("heroku:env")
@_control_option
def env(control_url: str | None) -> None:
    """Print the exports that lead a shell's Heroku CLI here, for eval; a running penstock heroku:proxy is needed."""
    from penstock.cli.interop import environment  # noqa: PLC0415 - as above

    where = find(control_url)
    variables = environment.redirection(where, _running_proxy(where), environment.folder(where) / "ca.pem")
    for name, item in (variables | environment.credentials(where)).items():
        output.value(f"export {name}={shlex.quote(item)}")


@click.command("heroku:proxy")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port on 127.0.0.1 (default: a free one).")
@_control_option
def proxy_command(port: int, control_url: str | None) -> None:
    """Run the proxy that the environment of heroku:env leads to, until ctrl-C or SIGTERM."""
    from penstock.cli.interop import environment, proxy  # noqa: PLC0415 - as above

    where = find(control_url)
    relay, _ = environment.proxy_of(where)
    relay.on_refusal = _warn_of
    file = environment.proxy_file(where)
    private_folder(file.parent)
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    # Held until this process ends, however it ends: what a killed proxy left behind leads nobody to a stranger's port.
    held = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise CliError("Another penstock heroku:proxy runs on this home: use it, or stop it first.") from None
    os.ftruncate(held, 0)
    with proxy.running(relay, port) as url:
        os.write(held, json.dumps({"proxy": url, "control": where.control}).encode())
        output.note(f'Listening on {url}. In the shell of the Heroku CLI: eval "$(penstock heroku:env)"')
        signal.sigwait(_ENDINGS)
        file.unlink(missing_ok=True)


def _warn_of(destination: str) -> None:
    output.warn(f"{destination} was refused: the proxy leads to this installation only.")


def _running_proxy(where: Whereabouts) -> str:
    from penstock.cli.interop import environment  # noqa: PLC0415 - as above

    try:
        with environment.proxy_file(where).open(encoding="utf-8") as file:
            said = json.load(file) if _is_held(file.fileno()) else {}
    except (OSError, ValueError):
        said = {}
    if said.get("control") != where.control:
        raise CliError(
            f"No proxy for {where.control} runs. Start it first, and leave it running: penstock heroku:proxy"
        )
    return str(said["proxy"])


def _is_held(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _run(command: list[str], env: dict[str, str]) -> int:
    """Run with our stdio to the end; what ends us ends the child. Its exit code, 128 + N for a signal N."""
    early: list[int] = []
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: early.append(number))
    # The terminal sends ctrl-C to both: the child decides what it means, from before it can say a word.
    signal.signal(signal.SIGINT, lambda *_: None)
    child = subprocess.Popen(command, env=env)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: child.send_signal(number))
    for number in early:
        child.send_signal(number)
    code = child.wait()
    return code if code >= 0 else 128 - code
