"""The commands on add-ons: list, create, show and destroy."""

from typing import Any

import click

from penstock.cli import output, provisioning, resources
from penstock.cli.client import Platform, segment
from penstock.cli.options import app_option, confirm_option, confirmed, json_option, packed, with_platform
from penstock.cli.output import CliError, action, app_label

_EXPANDED = {"Accept": "application/vnd.heroku+json; version=3.sdk", "Accept-Expansion": "addon_service,plan"}
_STANDARD = (resources.SERVICE, f"{resources.SERVICE}:standard")
_NEXT = "\N{BOX DRAWINGS LIGHT VERTICAL AND RIGHT}\N{BOX DRAWINGS LIGHT HORIZONTAL}"
_LAST = "\N{BOX DRAWINGS LIGHT UP AND RIGHT}\N{BOX DRAWINGS LIGHT HORIZONTAL}"


@click.command("addons")
@app_option(required=False)
@click.option("-A", "--all", "all_", is_flag=True, help="The add-ons of all apps, whatever HEROKU_APP says.")
@json_option
@with_platform
def list_addons(platform: Platform, app: str | None, all_: bool, json_: bool) -> None:
    """List the add-ons and attachments of an app, or of all apps."""
    app = None if all_ else app
    if app is None:
        addons = platform.get_all("/addons", headers=_EXPANDED)
        if json_:
            output.as_json(addons)
        else:
            _print_all(addons)
        return
    addons = platform.get_all(f"/apps/{segment(app)}/addons", headers=_EXPANDED)
    attachments = platform.get_all("/addon-attachments")
    known = {addon["id"] for addon in addons}
    for attachment in attachments:
        if attachment["app"]["name"] == app and attachment["addon"]["id"] not in known:
            known.add(attachment["addon"]["id"])
            addons.append(_foreign(platform, attachment))
    for addon in addons:
        addon["attachments"] = [one for one in attachments if one["addon"]["id"] == addon["id"]]
    if json_:
        output.as_json(addons)
    else:
        _print_app(app, addons)


@click.command("addons:create")
@click.argument("plan", metavar="SERVICE:PLAN")
@provisioning.order_options
@with_platform
@packed(provisioning.Order)
def create(platform: Platform, order: provisioning.Order) -> None:
    """Create an add-on and attach it to an app. What follows a double dash goes to the service: -- --region=us."""
    provisioning.provision(platform, order)
    if order.plan in _STANDARD:
        output.value("Use penstock ai:models:list to view the models that it opens.")
    else:
        output.value(f"Use penstock ai:models:info -a {order.app} to view the model resource.")


@click.command("addons:info")
@click.argument("addon")
@app_option(required=False)
@json_option
@with_platform
def info(platform: Platform, addon: str, app: str | None, json_: bool) -> None:
    """Show an add-on, by name, id or attachment alias."""
    found = resources.find_addon(platform, addon, app)
    attachments = platform.get_all(f"/addons/{segment(found['id'])}/addon-attachments")
    if json_:
        output.as_json({**found, "attachments": attachments})
        return
    output.header(found["name"])
    output.fields(
        {
            "Attachments": [f"{one['app']['name']}::{one['name']}" for one in attachments],
            "Installed at": found["created_at"],
            "Owning app": found["app"]["name"],
            "Plan": found["plan"]["name"],
            "Price": provisioning.price_text(_price(found)),
            "State": provisioning.state_text(found["state"]),
        }
    )


@click.command("addons:destroy")
@click.argument("addons", nargs=-1, required=True, metavar="ADDON...")
@app_option(required=False)
@click.option("-f", "--force", is_flag=True, help="Also when it is attached to other apps.")
@confirm_option
@with_platform
def destroy(platform: Platform, addons: tuple[str, ...], app: str | None, force: bool, confirm: str | None) -> None:
    """Destroy add-ons; when the command returns, all their keys are refused everywhere."""
    for name in addons:
        remove(platform, resources.find_addon(platform, name, app), app=app, confirm=confirm, force=force)


def remove(platform: Platform, addon: dict[str, Any], *, app: str | None, confirm: str | None, force: bool) -> None:
    """Destroy one add-on after the confirmation (the owning app's name). Raises PlatformError, CliError."""
    owner = addon["app"]["name"]
    if app and owner != app:
        raise CliError(f"{addon['name']} is on {owner} not {app}")
    confirmed(owner, confirm, warning=f"This will destroy {addon['name']} and revoke its keys.")
    with action(f"Destroying {addon['name']} on {app_label(owner)}") as running:
        path = f"/apps/{segment(addon['app']['id'])}/addons/{segment(addon['id'])}"
        after = platform.delete(path, {"force": force})
        if after.get("state") == "deprovisioning":
            running.done = "pending"
        elif after.get("state") not in ("deprovisioned", None):
            raise CliError(f"The add-on was unable to be destroyed, with status {after.get('state')}.")


def _foreign(platform: Platform, attachment: dict[str, Any]) -> dict[str, Any]:
    owner, addon = attachment["addon"]["app"]["name"], attachment["addon"]["id"]
    found = platform.get(f"/apps/{segment(owner)}/addons/{segment(addon)}", headers=_EXPANDED)
    return dict(found)


def _price(addon: dict[str, Any]) -> dict[str, Any]:
    # What was agreed when the add-on was made counts, not the plan's price of today.
    return {**(addon["plan"].get("price") or {}), **(addon.get("billed_price") or {})}


def _print_all(addons: list[dict[str, Any]]) -> None:
    if not addons:
        output.value("No add-ons.")
        return
    rows = [
        (one["app"]["name"], one["name"], one["plan"]["name"], provisioning.price_text(_price(one)), _state(one))
        for one in sorted(addons, key=lambda one: (_app(one), one["plan"]["name"], one["name"]))
    ]
    output.table(("Owning App", "Add-on", "Plan", "Price", "State"), rows)


def _print_app(app: str, addons: list[dict[str, Any]]) -> None:
    if not addons:
        output.value(f"No add-ons for app {app}.")
        return
    rows: list[tuple[str, ...]] = []
    for addon in sorted(addons, key=lambda one: (_app(one) != app, one["plan"]["name"], one["name"])):
        service, _, plan = addon["plan"]["name"].partition(":")
        rows.append((f"{service} ({addon['name']})", plan, provisioning.price_text(_price(addon)), _state(addon)))
        mine = sorted(addon["attachments"], key=lambda one: (_app(one) != app, _app(one), one["name"]))
        for one in mine:
            branch = _LAST if one is mine[-1] else _NEXT
            where = "" if _app(one) == app else f" on {app_label(_app(one))} app"
            rows.append((f" {branch} as {one['name']}{where}", "", "", ""))
    output.table(("Add-on", "Plan", "Price", "State"), rows)
    output.value(f"\nThe table above shows add-ons and the attachments to the current app ({app}) or other apps.")


def _app(thing: dict[str, Any]) -> str:
    return str(thing["app"]["name"])


def _state(addon: dict[str, Any]) -> str:
    return provisioning.state_text(addon["state"])
