"""The commands on the credentials of upstreams that the store keeps. A secret comes from stdin and is never printed."""

import click

from penstock.cli import output
from penstock.cli.client import Platform, segment
from penstock.cli.options import json_option, read_secret, with_platform
from penstock.cli.output import action
from penstock.settings.load import load_settings


@click.command("credentials")
@json_option
@with_platform
def list_credentials(platform: Platform, json_: bool) -> None:
    """List the stored credentials of providers, without their secrets."""
    found = platform.get("/credentials")
    if json_:
        output.as_json(found)
        return
    if not found:
        output.value("There are no stored credentials.")
        return
    rows = [(one["name"], one["fingerprint"], one["updated_at"], one["updated_by"]) for one in found]
    output.table(("Name", "Fingerprint", "Updated", "By"), rows)


@click.command("credentials:set")
@click.argument("name")
@with_platform
def set_credential(platform: Platform, name: str) -> None:
    """Store the credential of the provider NAME, read from standard input or a hidden prompt."""
    value = read_secret("Credential")
    with action(f"Setting the credential {name}") as running:
        made = platform.put(f"/credentials/{segment(name)}", {"value": value})
        running.done = f"done, fingerprint {made['fingerprint']}"
    if name not in _asking():
        output.warn(f"no [[provider]] row that this shell reads is called {name} and has api_key_stored = true")


def _asking() -> set[str]:
    """The providers of the configuration of here that take their credential from the store."""
    return {row.name for row in load_settings().provider if row.api_key_stored}


@click.command("credentials:remove")
@click.argument("name")
@with_platform
def remove(platform: Platform, name: str) -> None:
    """Remove a stored credential: its provider is called no more."""
    with action(f"Removing the credential {name}"):
        platform.delete(f"/credentials/{segment(name)}")
