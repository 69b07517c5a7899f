"""The commands on who shares an app."""

import click

from penstock.cli import output
from penstock.cli.client import Platform, segment
from penstock.cli.options import app_option, json_option, with_platform
from penstock.cli.output import action, app_label

_ROLES = click.Choice(["admin", "member", "viewer"])


@click.command("access")
@app_option()
@json_option
@with_platform
def list_access(platform: Platform, app: str, json_: bool) -> None:
    """List who has access to an app, and in which role."""
    found = platform.get_all(_path(app))
    if json_:
        output.as_json(found)
        return
    output.table(("Email", "Role"), [(one["user"]["email"], one["role"]) for one in found])


@click.command("access:add")
@click.argument("email")
@app_option()
@click.option("--role", type=_ROLES, default="member", show_default=True, help="What they may do to the app.")
@with_platform
def add(platform: Platform, email: str, app: str, role: str) -> None:
    """Share an app with another operator."""
    with action(f"Adding {email} access to the app {app_label(app)} as {role}"):
        platform.post(_path(app), {"user": email, "role": role})


@click.command("access:update")
@click.argument("email")
@app_option()
@click.option("--role", type=_ROLES, required=True, help="What they may do to the app from now on.")
@with_platform
def update(platform: Platform, email: str, app: str, role: str) -> None:
    """Give a collaborator another role on an app."""
    with action(f"Changing {email} on the app {app_label(app)} to {role}"):
        platform.patch(f"{_path(app)}/{segment(email)}", {"role": role})


@click.command("access:remove")
@click.argument("email")
@app_option()
@with_platform
def remove(platform: Platform, email: str, app: str) -> None:
    """Stop sharing an app with an operator."""
    with action(f"Removing {email} access from the app {app_label(app)}"):
        platform.delete(f"{_path(app)}/{segment(email)}")


def _path(app: str) -> str:
    return f"/apps/{segment(app)}/collaborators"
