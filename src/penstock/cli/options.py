"""The options and arguments that many commands share, with the Heroku CLI's names."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click
from click.core import ParameterSource

from penstock.cli import output
from penstock.cli.output import CliError

if TYPE_CHECKING:
    from penstock.cli.client import Platform

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_ALL = "penstock.all_apps"


def filled(text: str) -> str:
    """The type of an option that chooses. A variable that a script forgot to set must not choose everything: raises
    BadParameter."""
    if not text.strip():
        raise click.BadParameter("it must not be empty; leave the option out to choose nothing by it.")
    return text


def app_option(*, required: bool = True) -> Callable[[F], F]:
    """-a/--app, from HEROKU_APP when not given."""
    return click.option(
        "-a", "--app", envvar="HEROKU_APP", show_envvar=True, required=required, metavar="APP", help="The app.",
        type=filled, callback=_chosen_app,
    )  # fmt: skip


def all_option(meaning: str) -> Callable[[F], F]:
    """-A/--all beside an app_option that is not required: no app, whatever HEROKU_APP says."""
    return click.option(
        "-A", "--all", is_flag=True, is_eager=True, expose_value=False, callback=_note_all, help=meaning
    )


def _note_all(ctx: click.Context, _option: click.Parameter, given: bool) -> None:
    ctx.meta[_ALL] = given


def _chosen_app(ctx: click.Context, option: click.Parameter, app: str | None) -> str | None:
    if not ctx.meta.get(_ALL):
        return app
    if app is not None and ctx.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE:
        raise click.UsageError("-a and -A exclude each other.")
    return None


def as_option(f: F) -> F:
    """--as NAME."""
    return click.option("--as", "alias", metavar="NAME", help="Name of the attachment; prefixes the config vars.")(f)


def confirm_option(f: F) -> F:
    """-c/--confirm NAME."""
    return click.option("-c", "--confirm", metavar="NAME", help="The name again, instead of the question.")(f)


def json_option(f: F) -> F:
    """-j/--json."""
    return click.option("-j", "--json", "json_", is_flag=True, help="Print JSON.")(f)


def shell_option(f: F) -> F:
    """-s/--shell."""
    return click.option("-s", "--shell", is_flag=True, help="Print KEY=value lines for a shell.")(f)


def with_platform(f: "Callable[Concatenate[Platform, P], R]") -> Callable[P, R]:
    """Call the command with an open Platform first; adds --control-url."""

    @wraps(f)
    def command(*args: P.args, **kwargs: P.kwargs) -> R:
        from penstock.cli.client import Platform  # noqa: PLC0415 - the HTTP client is slow to import

        control_url = kwargs.pop("control_url", None)
        with Platform(str(control_url) if control_url else None) as platform:
            return f(platform, *args, **kwargs)

    help_text = "The control plane's address (default: PENSTOCK_CONTROL_URL, or the running server's)."
    return click.option("--control-url", metavar="URL", help=help_text)(command)


def packed(kind: Callable[..., T]) -> "Callable[[Callable[[Platform, T], R]], Callable[..., R]]":
    """Hand the command's options over as one value, built by ``kind(**options)``; stands below the option lines."""

    def wrap(f: "Callable[[Platform, T], R]") -> Callable[..., R]:
        @wraps(f)
        def command(platform: "Platform", **options: Any) -> R:
            return f(platform, kind(**options))

        return command

    return wrap


def confirmed(name: str, given: str | None, *, warning: str) -> None:
    """Return when the person typed ``name`` (in ``--confirm`` or when asked); raise CliError otherwise."""
    if given is not None:
        if given != name:
            raise CliError(f"Confirmation {given} did not match {name}. Aborted.")
        return
    if not sys.stdin.isatty():
        raise CliError(f"{warning}\nTo proceed, re-run this command with --confirm {name}")
    output.warn(f"{warning}\nTo proceed, type {name} or re-run this command with --confirm {name}")
    typed = click.prompt("", prompt_suffix="> ", err=True, default="", show_default=False)
    if typed.strip() != name:
        raise CliError(f"Confirmation did not match {name}. Aborted.")


def read_secret(label: str) -> str:
    """A secret from a hidden prompt, or the first line of standard input. Raises CliError."""
    # A hidden prompt needs a terminal; a script pipes the secret in, so that it never stands in argv.
    if sys.stdin.isatty():
        return str(click.prompt(label, hide_input=True, err=True)).strip()
    line = sys.stdin.readline().strip()
    if not line:
        raise CliError(f"No {label.lower()} on standard input.")
    return line
