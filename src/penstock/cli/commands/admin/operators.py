"""The commands on operators and their tokens. A secret is printed once, on stdout, by the command that made it."""

from typing import Any

import click

from penstock.cli import output
from penstock.cli.client import Platform, segment
from penstock.cli.durations import at_most, end_text
from penstock.cli.options import confirm_option, confirmed, json_option, with_platform
from penstock.cli.output import CliError, action

ROLES = click.Choice(["owner", "admin", "member", "viewer"])
_EXPIRES = click.option(
    "--expires", type=at_most("365d"), metavar="TIME", help="Such as 12h or 30d; a year at most. Default: never."
)
_OPERATOR = click.option("--operator", metavar="EMAIL", default="~", help="Whose; yours when not given.")


@click.command("operators")
@json_option
@with_platform
def list_operators(platform: Platform, json_: bool) -> None:
    """List the operators and their roles."""
    found = platform.get_all("/operators")
    if json_:
        output.as_json(found)
        return
    output.table(("Email", "Role", "Since"), [(one["email"], one["role"], one["created_at"]) for one in found])


@click.command("operators:add")
@click.argument("email")
@click.option("--role", type=ROLES, default="member", show_default=True, help="What they may do.")
@_EXPIRES
@with_platform
def add(platform: Platform, email: str, role: str, expires: int | None) -> None:
    """Make an operator and print their first token, with which they log in."""
    terms = _terms("first token", expires)
    with action(f"Adding {email} as {role}"):
        made = platform.post("/operators", {"email": email, "role": role})
    secret = platform.post(f"/operators/{segment(made['id'])}/tokens", terms)["token"]
    output.note(
        f"Hand {made['email']} this token, which is not shown again, and have them run:\n"
        f"  penstock login --control-url {platform.where.control}"
    )
    output.value(secret)


@click.command("operators:update")
@click.argument("email")
@click.option("--role", type=ROLES, help="What they may do from now on.")
@click.option("--email", "new_email", metavar="EMAIL", help="Their new email address.")
@with_platform
def update(platform: Platform, email: str, role: str | None, new_email: str | None) -> None:
    """Change an operator's role or email address."""
    wanted = {name: item for name, item in {"role": role, "email": new_email}.items() if item}
    if not wanted:
        raise click.UsageError("Give --role or --email.")
    with action(f"Changing {email}") as running:
        made = platform.patch(_path(email), wanted)
        running.done = f"done, {made['email']} is {made['role']}"


@click.command("operators:remove")
@click.argument("email")
@confirm_option
@with_platform
def remove(platform: Platform, email: str, confirm: str | None) -> None:
    """Remove an operator: their tokens end at once, their apps become yours."""
    platform.get(_path(email))
    warning = f"This ends all tokens of {email} at once; their apps become yours."
    confirmed(email, confirm, warning=warning)
    with action(f"Removing {email}"):
        platform.delete(_path(email))


@click.command("tokens")
@_OPERATOR
@json_option
@with_platform
def list_tokens(platform: Platform, operator: str, json_: bool) -> None:
    """List tokens, without their secrets."""
    found = platform.get_all(_path(operator, "tokens"))
    if json_:
        output.as_json(found)
        return
    if not found:
        output.value("There are no tokens.")
        return
    output.table(("ID", "Token", "Description", "Created", "Expires", "Last used"), [_row(one) for one in found])


@click.command("tokens:create")
@_OPERATOR
@click.option("--description", metavar="TEXT", default="penstock tokens:create", help="What it is for.")
@_EXPIRES
@with_platform
def create_token(platform: Platform, operator: str, description: str, expires: int | None) -> None:
    """Make a token and print it."""
    made = platform.post(_path(operator, "tokens"), _terms(description, expires))
    ends = made["expires_at"]
    if ends and expires is None:
        output.note(f"It expires at {ends}, with the token that you are logged in with.")
    output.value(made["token"])


@click.command("tokens:revoke")
@click.argument("token_id", metavar="ID")
@_OPERATOR
@with_platform
def revoke_token(platform: Platform, token_id: str, operator: str) -> None:
    """Revoke a token by its id, or by the beginning of the token that `penstock tokens` shows."""
    path = _path(operator, "tokens")
    matches = [one for one in platform.get_all(path) if token_id in (one["id"], one["prefix"])]
    if len(matches) != 1:
        whose = "you have" if operator == "~" else f"{operator} has"
        raise CliError(f"{'No' if not matches else 'More than one'} token that {whose} is {token_id}.")
    with action(f"Revoking {matches[0]['prefix']} ({matches[0]['description']})"):
        platform.delete(f"{path}/{segment(matches[0]['id'])}")


def _path(operator: str, *rest: str) -> str:
    return "/".join(("/operators", segment(operator), *rest))


def _terms(description: str, expires: int | None) -> dict[str, Any]:
    return {"description": description} | ({} if expires is None else {"expires_in": expires})


def _row(token: dict[str, Any]) -> tuple[str, ...]:
    ends, used = end_text(token["expires_at"]), token["last_used_at"] or "never"
    return token["id"], token["prefix"], output.printable(token["description"]), token["created_at"], ends, used
