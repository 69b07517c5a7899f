"""The commands on who you are to the control plane: login, logout, token, whoami."""

import os
import socket

import click

from penstock.cli import output
from penstock.cli.client import Platform, PlatformError
from penstock.cli.options import json_option, read_secret, with_platform
from penstock.cli.output import CliError
from penstock.cli.whereabouts import SAVED_LOGIN, find, save_login

# What the Heroku CLI's logins last.
_LIFE_S = 30 * 24 * 3600


@click.command("auth:login")
@click.option("-i", "--interactive", is_flag=True, help="Ask for email and token even where a token was found.")
@click.option("--token-stdin", is_flag=True, help="Read just a token from standard input, and ask for nothing.")
@click.option(
    "-e", "--expires-in", type=click.IntRange(1, _LIFE_S), default=_LIFE_S, metavar="SECONDS",
    help="How long the login lasts; 30 days at most.",
)  # fmt: skip
@with_platform
def login(platform: Platform, interactive: bool, token_stdin: bool, expires_in: int) -> None:
    """Log in with an email address and an operator token; on the server's own machine there is nothing to do.

    The token is traded for one of this login's own, which ends with it.
    """
    token, control = platform.where.token, platform.where.control
    for name in ("PENSTOCK_CONTROL_TOKEN", "HEROKU_API_KEY"):
        if os.environ.get(name):
            raise CliError(f"Cannot log in with {name} set; unset it first.")
    if token is not None and not (interactive or token_stdin) and (email := _accepted(platform)):
        output.value(f"Logged in as {email}: the token from {token.source} was found.")
        return
    email = ""
    if not token_stdin:
        output.note(f"Enter your credentials for {control}:")
        email = _read_email()
    secret = read_secret("Token")
    try:
        description = f"penstock login on {socket.gethostname()}"[:256]
        made = platform.authorize(email, secret, description=description, expires_in=expires_in)
    except PlatformError as error:
        if error.status == 401:
            raise CliError("Email or token is wrong.", error_id=error.error_id) from error
        raise
    save_login(platform.where.settings, control, made["access_token"]["token"])
    output.value(f"Logged in as {made.get('user', {}).get('email', email)}")
    if find().control != control:
        output.note(f"Other commands reach it with:\n  export PENSTOCK_CONTROL_URL={control}")


@click.command("auth:logout")
@with_platform
def logout(platform: Platform) -> None:
    """End the saved login for the control plane, here and on the server."""
    token = platform.where.token
    if token is not None and token.source == SAVED_LOGIN:
        try:
            platform.delete("/oauth/sessions/~")
        except PlatformError as error:
            if error.status not in (401, 404):
                output.warn(f"The server did not end the login: {error.message}")
        except CliError as error:
            output.warn(f"The server was not told, and the login goes on until it expires: {error.message}")
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
@click.option("-v", "--verbose", is_flag=True, help="Also the role.")
@json_option
@with_platform
def whoami(platform: Platform, verbose: bool, json_: bool) -> None:
    """Print the email address that the token belongs to."""
    account = platform.get("/account")
    if json_:
        output.as_json(account)
        return
    output.value(f"{account['email']} ({account['role']})" if verbose else account["email"])


def _accepted(platform: Platform) -> str | None:
    """Whose the token in use is; None when the server does not take it."""
    try:
        return str(platform.get("/account")["email"])
    except PlatformError as error:
        if error.status != 401:
            raise
        return None


def _read_email() -> str:
    try:
        return str(click.prompt("Email", err=True))
    except click.Abort as abort:
        # click makes one thing of ctrl-C and of the end of the input.
        if not isinstance(abort.__context__, EOFError):
            raise
        output.note("")
        told = "No email on standard input. A script logs in with a token alone: penstock login --token-stdin < FILE"
        raise CliError(told) from None
