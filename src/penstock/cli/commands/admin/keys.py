"""The commands on the keys of an app. A secret is printed once, on stdout, by the command that made it."""

from typing import Any

import click

from penstock.cli import output
from penstock.cli.client import Platform, segment
from penstock.cli.durations import parse_duration, parse_expiry
from penstock.cli.options import app_option, confirm_option, confirmed, json_option, with_platform
from penstock.cli.output import action, app_label


@click.command("keys")
@app_option()
@json_option
@with_platform
def list_keys(platform: Platform, app: str, json_: bool) -> None:
    """List the keys of an app, without their secrets."""
    found = platform.get_all(_path(app))
    if json_:
        output.as_json(found)
        return
    if not found:
        output.value(f"{app_label(app)} has no keys.")
        return
    found.sort(key=lambda key: (key["attachment"]["name"], key["created_at"]))
    output.table(("Key", "Attachment", "Models", "Created", "Expires", "Last used"), [_row(key) for key in found])


@click.command("keys:create")
@app_option()
@click.option("--as", "alias", required=True, metavar="ALIAS", help="The attachment; a new name attaches the add-on.")
@click.option("--addon", metavar="ADDON", help="What to attach under a new name, where the app has several add-ons.")
@click.option("--models", metavar="ID,ID...", help="Only these models.")
@click.option("--expires", metavar="WHEN", help="30d, 12h, or a date such as 2030-12-31.")
@with_platform
def create(
    platform: Platform, app: str, alias: str, addon: str | None, models: str | None, expires: str | None
) -> None:
    """Make a key and print it: one more on an attachment, or the key of a new attachment."""
    body: dict[str, Any] = {"attachment": {"name": alias}}
    if addon:
        body["addon"] = addon
    if models is not None:
        body["models"] = [name.strip() for name in models.split(",")]
    if expires is not None:
        body |= parse_expiry(expires)
    with action(f"Creating a key for {alias} on {app_label(app)}") as running:
        made = platform.post(_path(app), body)
        name = made["attachment"]["name"]
        running.done = "done" if made["extra"] else f"done, set {name}_KEY, {platform.last_release(app)}"
    output.value(made["secret"])


@click.command("keys:rotate")
@click.argument("key", metavar="ALIAS_OR_KEY")
@app_option()
@click.option(
    "--grace", default="10m", show_default=True, metavar="TIME", help="How long the old key goes on; 0 ends it."
)
@with_platform
def rotate(platform: Platform, key: str, app: str, grace: str) -> None:
    """Replace a key and print the new one; the old one goes on for the grace."""
    grace_s = parse_duration(grace)
    with action(f"Rotating {key} on {app_label(app)}") as running:
        made = platform.post(f"{_path(app, key)}/actions/rotate", {"grace_s": grace_s})
        running.done = (
            "done, the old key is refused everywhere" if grace_s == 0 else f"done, the old key ends in {grace}"
        )
    output.value(made["secret"])


@click.command("keys:revoke")
@click.argument("key", metavar="ALIAS_OR_KEY")
@app_option()
@confirm_option
@with_platform
def revoke(platform: Platform, key: str, app: str, confirm: str | None) -> None:
    """Revoke a key, or all keys of an attachment: they are refused everywhere when the command returns."""
    warning = f"This revokes {key} on {app_label(app)} at once; requests that are open on it are cut."
    confirmed(app, confirm, warning=warning)
    with action(f"Revoking {key} on {app_label(app)}") as running:
        gone = platform.delete(_path(app, key))
        running.done = f"done, {', '.join(one['prefix'] for one in gone)}"


def _path(app: str, key: str | None = None) -> str:
    return f"/apps/{segment(app)}/keys" + (f"/{segment(key)}" if key else "")


def _row(key: dict[str, Any]) -> tuple[str, ...]:
    name = key["attachment"]["name"] + (" (extra)" if key["extra"] else "")
    models = ", ".join(key["models"]) if key["models"] else "all"
    return key["prefix"], name, models, key["created_at"], key["expires_at"] or "never", key["last_used_at"] or "never"
