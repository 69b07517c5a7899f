"""The commands on who you are to the control plane: login, logout, token, whoami."""

import os
import sys

import click

from penstock.cli import output
from penstock.cli.client import Platform, PlatformError
from penstock.cli.options import with_platform
from penstock.cli.output import CliError
from penstock.cli.whereabouts import save_login


@click.command("auth:login")
@click.option("-i", "--interactive", is_flag=True, help="Ask for email and token even where a token was found.")
@click.option("-e", "--expires-in", expose_value=False, hidden=True)
@with_platform
def login(platform: Platform, interactive: bool) -> None:
    """Log in with an email address and an operator token; on the server's own machine there is nothing to do."""
    token, control = platform.where.token, platform.where.control
    for name in ("PENSTOCK_CONTROL_TOKEN", "HEROKU_API_KEY"):
        if os.environ.get(name):
            raise CliError(f"Cannot log in with {name} set; unset it first.")
    if token is not None and not interactive:
        try:
            email = platform.get("/account")["email"]
        except PlatformError as error:
            if error.status != 401:
                raise
        else:
            output.value(f"Logged in as {email}: the token from {token.source} was found.")
            return
    output.note(f"Enter your credentials for {control}:")
    email = click.prompt("Email", err=True)
    secret = _read_secret("Token")
    try:
        made = platform.authorize(email, secret)
    except PlatformError as error:
        if error.status == 401:
            raise CliError("Email or token is wrong.", error_id=error.error_id) from error
        raise
    save_login(platform.where.settings, control, made["access_token"]["token"])
    output.value(f"Logged in as {made.get('user', {}).get('email', email)}")


@click.command("auth:logout")
@with_platform
def logout(platform: Platform) -> None:
    """Forget the saved login for the control plane."""
    save_login(platform.where.settings, platform.where.control, None)
    output.note("Logged out.")


@click.command("auth:token")
@with_platform
def token(platform: Platform) -> None:
    """Print the token in use."""
    found = platform.where.token
    if found is None:
        raise CliError(f"Not logged in to {platform.where.control}. Log in with: penstock auth:login")
    output.note(f"The token from {found.source}. Whoever has it can do everything that you can.")
    output.value(found.secret)


@click.command("auth:whoami")
@with_platform
def whoami(platform: Platform) -> None:
    """Print the email address that the token belongs to."""
    output.value(platform.get("/account")["email"])


def _read_secret(label: str) -> str:
    # A hidden prompt needs a terminal; a script pipes the secret in, so that it never stands in argv.
    if sys.stdin.isatty():
        return str(click.prompt(label, hide_input=True, err=True)).strip()
    line = sys.stdin.readline().strip()
    if not line:
        raise CliError(f"No {label.lower()} on standard input.")
    return line
