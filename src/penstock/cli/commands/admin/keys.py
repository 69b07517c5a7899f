"""The commands on the keys of an app. A secret is printed once, on stdout, by the command that made it."""

from typing import Any

import click

from penstock.cli import output
from penstock.cli.client import Platform, segment
from penstock.cli.durations import at_most, duration_text, end_text, parse_expiry
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
    output.table(("Key", "Attachment", "Models", "Created", "Expires", "Last used"), _rows(found))


@click.command("keys:create")
@app_option()
@click.option("--as", "alias", required=True, metavar="ALIAS", help="The attachment; a new name attaches the add-on.")
@click.option("--addon", metavar="ADDON", help="What to attach under a new name, where the app has several add-ons.")
@click.option("--models", metavar="ID,ID...", help="Only these models.")
@click.option("--expires", type=parse_expiry, metavar="WHEN", help="30d, 12h, or a date such as 2030-12-31.")
@with_platform
def create(
    platform: Platform, app: str, alias: str, addon: str | None, models: str | None, expires: dict[str, Any] | None
) -> None:
    """Make a key and print it: one more on an attachment, or the key of a new attachment."""
    body: dict[str, Any] = {"attachment": {"name": alias}}
    if addon:
        body["addon"] = addon
    if models is not None:
        body["models"] = [name.strip() for name in models.split(",")]
    body |= expires or {}
    with action(f"Creating a key for {alias} on {app_label(app)}") as running:
        made = platform.post(_path(app), body)
        name = made["attachment"]["name"]
        running.done = "done" if made["extra"] else f"done, set {name}_KEY, {platform.last_release(app)}"
    output.value(made["secret"])


@click.command("keys:rotate")
@click.argument("key", metavar="ALIAS_OR_KEY")
@app_option()
@click.option(
    "--grace", type=at_most("7d"), default="10m", show_default=True, metavar="TIME",
    help="How long the old key goes on, 7d at most; 0 ends it.",
)  # fmt: skip
@with_platform
def rotate(platform: Platform, key: str, app: str, grace: int) -> None:
    """Replace a key and print the new one; the old one goes on for the grace."""
    with action(f"Rotating {key} on {app_label(app)}") as running:
        made = platform.post(f"{_path(app, key)}/actions/rotate", {"grace_s": grace})
        ends = f"the old key ends in {duration_text(grace)}" if grace else "the old key is refused everywhere"
        running.done = f"done, {ends}"
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


def _rows(keys: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    # Of an attachment's own keys the config var has the newest; of two in one second, that whose end is later.
    own = sorted(
        (key for key in keys if not key["extra"]), key=lambda key: (key["created_at"], key["expires_at"] or "~")
    )
    shown = {key["attachment"]["id"]: key["id"] for key in own}
    rows: list[tuple[str, ...]] = []
    for key in keys:
        name, current = key["attachment"]["name"], shown.get(key["attachment"]["id"]) == key["id"]
        place = "extra" if key["extra"] else f"in {name}_KEY" if current else "rotated"
        models = ", ".join(key["models"]) if key["models"] else "all"
        ends, used = end_text(key["expires_at"]), key["last_used_at"] or "never"
        rows.append((key["prefix"], f"{name} ({place})", models, key["created_at"], ends, used))
    return rows
