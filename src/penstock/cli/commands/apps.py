"""The commands on apps: create, list, show and destroy."""

from typing import Any

import click

from penstock.cli import output
from penstock.cli.client import Platform, PlatformError, segment
from penstock.cli.options import app_option, confirm_option, confirmed, json_option, shell_option, with_platform
from penstock.cli.output import action, app_label


@click.command("apps:create")
@click.argument("name", required=False, envvar="HEROKU_APP")
@click.option("-a", "--app", "app", hidden=True, metavar="APP")
@click.option("--region", metavar="REGION", help="Region of the app.")
@click.option("-n", "--no-remote", is_flag=True, expose_value=False, help="Accepted: no git remote is ever made.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@with_platform
def create(platform: Platform, name: str | None, app: str | None, region: str | None, json_: bool) -> None:
    """Create an app, with a name of its own making when no NAME is given."""
    name = app or name
    wanted = {key: item for key, item in {"name": name, "region": region}.items() if item}
    with action(f"Creating {app_label(name) if name else 'app'}") as running:
        made = platform.post("/apps", wanted)
        if not name:
            running.done += f", {app_label(made['name'])}"
        if region:
            running.done += f", region is {made['region']['name']}"
    if json_:
        output.as_json(made)
    else:
        output.value(" | ".join(filter(None, (made["web_url"], made.get("git_url")))))


@click.command("apps")
@click.option("-A", "--all", "all_", is_flag=True, help="All apps that you may read.")
@json_option
@with_platform
def list_apps(platform: Platform, all_: bool, json_: bool) -> None:
    """List your apps, and those that others share with you."""
    apps = sorted(platform.get_all("/apps" if all_ else "/users/~/apps"), key=lambda app: str(app["name"]))
    if json_:
        output.as_json(apps)
        return
    if not apps:
        output.value("You have no apps.")
        return
    if all_:
        _section("Apps", apps)
        return
    email = platform.get("/account")["email"]
    own = [app for app in apps if app["owner"]["email"] == email]
    shared = [app for app in apps if app["owner"]["email"] != email]
    _section(f"{email} Apps", own)
    if own and shared:
        output.value()
    _section("Collaborated Apps", shared)


@click.command("apps:info")
@click.argument("name", required=False)
@app_option(required=False)
@json_option
@shell_option
@with_platform
def info(platform: Platform, name: str | None, app: str | None, json_: bool, shell: bool) -> None:
    """Show an app: owner, region, add-ons."""
    wanted = _one_app(name, app, "penstock apps:info --app my-app")
    addons = platform.get_all(f"/apps/{segment(wanted)}/addons")
    found = platform.get(f"/apps/{segment(wanted)}")
    collaborators = _others(platform, wanted, found)
    if json_:
        output.as_json({"app": found, "addons": addons, "collaborators": collaborators})
        return
    shown = {
        "Addons": sorted(addon["plan"]["name"] for addon in addons),
        "Collaborators": collaborators,
        "Git URL": found.get("git_url"),
        "Owner": found["owner"]["email"],
        "Region": found.get("region", {}).get("name"),
        "Stack": found.get("stack", {}).get("name"),
        "Web URL": found.get("web_url"),
    }
    if shell:
        for title, item in shown.items():
            key = title.lower().replace(" ", "_")
            output.value(f"{key}={','.join(item) if isinstance(item, list) else item or ''}")
        return
    output.header(found["name"])
    output.fields(shown)


@click.command("apps:destroy")
@click.argument("name", required=False)
@app_option(required=False)
@confirm_option
@with_platform
def destroy(platform: Platform, name: str | None, app: str | None, confirm: str | None) -> None:
    """Destroy an app with all its add-ons; when the command returns, their keys are refused everywhere."""
    wanted = _one_app(name, app, "penstock apps:destroy APPNAME")
    platform.get(f"/apps/{segment(wanted)}")
    confirmed(wanted, confirm, warning=f"This will delete {app_label(wanted)} including all add-ons.")
    with action(f"Destroying {app_label(wanted)} (including all add-ons)"):
        platform.delete(f"/apps/{segment(wanted)}")


def _section(title: str, apps: list[dict[str, Any]]) -> None:
    if apps:
        output.header(title)
    for app in apps:
        region = app.get("region", {}).get("name", "us")
        output.value(app["name"] if region == "us" else f"{app['name']} ({region})")


def _one_app(name: str | None, app: str | None, usage: str) -> str:
    if not (name or app):
        raise click.UsageError(f"No app specified, and HEROKU_APP is not set.\nUSAGE: {usage}")
    return str(name or app)


def _others(platform: Platform, app: str, found: dict[str, Any]) -> list[str]:
    try:
        everyone = platform.get_all(f"/apps/{segment(app)}/collaborators")
    except PlatformError:
        return []
    return sorted(one["user"]["email"] for one in everyone if one["user"]["email"] != found["owner"]["email"])
