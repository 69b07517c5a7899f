"""The commands on config vars: show, get, set and unset."""

import re
import shlex

import click

from penstock.cli import output
from penstock.cli.client import Platform, segment
from penstock.cli.options import app_option, json_option, shell_option, with_platform
from penstock.cli.output import CliError, action, app_label

# A config var may also have dots and dashes.
_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@click.command("config")
@app_option()
@json_option
@shell_option
@with_platform
def list_config(platform: Platform, app: str, json_: bool, shell: bool) -> None:
    """Show all config vars of an app."""
    found = _vars(platform, app)
    if shell:
        _print_assignments(found)
    elif json_:
        output.as_json(found)
    else:
        output.header(f"{app_label(app)} Config Vars")
        output.fields(found, empty=True)


@click.command("config:get")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@app_option()
@json_option
@shell_option
@with_platform
def get(platform: Platform, keys: tuple[str, ...], app: str, json_: bool, shell: bool) -> None:
    """Print the value of each KEY on its own line; an empty line for one that is not set."""
    found = _vars(platform, app)
    if json_:
        shown = [{"key": key, "value": found.get(key)} for key in keys]
        output.as_json(shown[0] if len(shown) == 1 else shown)
        return
    wanted = {key: found.get(key, "") for key in keys}
    if shell:
        _print_assignments(wanted)
        return
    for key in keys:
        output.value(wanted[key])


@click.command("config:set")
@click.argument("pairs", nargs=-1, required=True, metavar="KEY=VALUE...")
@app_option()
@with_platform
def set_vars(platform: Platform, pairs: tuple[str, ...], app: str) -> None:
    """Set config vars of an app."""
    wanted: dict[str, str] = {}
    for pair in pairs:
        key, equals, item = pair.partition("=")
        if not equals or not key:
            raise CliError(f"{pair} is invalid. Must be in the format FOO=bar.")
        wanted[key] = item
    with action(f"Setting {', '.join(wanted)} and restarting {app_label(app)}") as running:
        after = platform.patch(f"/apps/{segment(app)}/config-vars", wanted)
        running.done = f"done, {platform.last_release(app)}"
    output.fields({key: after[key] for key in wanted if key in after}, empty=True)


@click.command("config:unset")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@app_option()
@with_platform
def unset(platform: Platform, keys: tuple[str, ...], app: str) -> None:
    """Remove config vars from an app."""
    with action(f"Unsetting {', '.join(keys)} and restarting {app_label(app)}") as running:
        platform.patch(f"/apps/{segment(app)}/config-vars", dict.fromkeys(keys))
        running.done = f"done, {platform.last_release(app)}"


def _print_assignments(found: dict[str, str]) -> None:
    for key, item in found.items():
        if _SHELL_NAME.fullmatch(key):
            output.value(f"{key}={shlex.quote(item)}")
        else:
            output.note(f"{key} is left out: no shell takes that as a variable's name.")


def _vars(platform: Platform, app: str) -> dict[str, str]:
    found: dict[str, str] = platform.get(f"/apps/{segment(app)}/config-vars")
    return found
