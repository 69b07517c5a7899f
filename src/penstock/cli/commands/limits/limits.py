"""The commands on limits: list, set, unset."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from penstock.cli import output
from penstock.cli.client import Platform, PlatformError, segment
from penstock.cli.commands.limits.objects import Place, cells, default_cells, in_order, note_models, on_object
from penstock.cli.options import all_option, app_option, json_option, with_platform
from penstock.cli.output import action

F = TypeVar("F", bound=Callable[..., Any])

_TITLES = {
    "requests_per_minute": "Requests/min",
    "tokens_per_minute": "Tokens/min",
    "concurrent_requests": "At once",
    "max_tokens": "Max tokens",
}
_WORDS = ("unlimited", "default")
_SOURCES = {"heroku": "Heroku's plans"}


@click.command("limits")
@app_option(required=False)
@all_option("Those of all apps, whatever HEROKU_APP says.")
@json_option
@with_platform
def list_limits(platform: Platform, app: str | None, json_: bool) -> None:
    """List limits and where they come from: those that are about an app, or all."""
    path = f"/apps/{segment(app)}/limits" if app else "/limits"
    found = in_order(platform.get_all(path))
    defaults = platform.get(f"{path}/defaults")
    if json_:
        output.as_json({"limits": found, "defaults": defaults})
        return
    rows = [(*cells(row, app), *_bounds(row), row["updated_by"]) for row in found]
    rows += [(*default_cells(row), *_bounds(row), _SOURCES.get(row["source"], row["source"])) for row in defaults]
    if rows:
        output.table(("Object", "Model", *_TITLES.values(), "Set by"), rows)
    else:
        output.value("There are no limits.")
    note_models("limits", app)


def _parse_bound(text: str) -> str:
    if text in _WORDS or (text.isascii() and text.isdigit() and int(text) > 0):
        return text
    raise click.BadParameter(f"{text!r} is neither a number above 0 nor unlimited nor default.")


def _bound_option(name: str, meaning: str) -> Callable[[F], F]:
    return click.option(f"--{name}", type=_parse_bound, metavar="N|unlimited|default", help=meaning)


@click.command("limits:set")
@on_object
@_bound_option("requests-per-minute", "Requests in any 60 seconds.")
@_bound_option("tokens-per-minute", "Tokens, input and output, in any 60 seconds.")
@_bound_option("concurrent-requests", "Requests under way at once.")
@_bound_option("max-tokens", "Output tokens of one request.")
@with_platform
def set_limits(
    platform: Platform,
    place: Place,
    requests_per_minute: str | None,
    tokens_per_minute: str | None,
    concurrent_requests: str | None,
    max_tokens: str | None,
) -> None:
    """Set limits of an app, of something on it, or of a model; those that are not named stay as they are."""
    texts = (requests_per_minute, tokens_per_minute, concurrent_requests, max_tokens)
    bounds = dict(zip(_TITLES, texts, strict=True))
    asked = {name: _value(text) for name, text in bounds.items() if text is not None}
    if not asked:
        raise click.UsageError(f"Name a limit: {', '.join('--' + name.replace('_', '-') for name in _TITLES)}.")
    with action(f"Setting limits of {place.label}") as running:
        try:
            made = platform.patch(place.path("limits"), {**place.body, **asked})
        except PlatformError as error:
            # Where there is no row, the defaults hold, which is what was asked for.
            if error.resource != "limit" or any(value is not None for value in asked.values()):
                raise
            running.done = "done, the defaults hold"
            return
        running.done = f"done, {_said(made)}"


@click.command("limits:unset")
@on_object
@with_platform
def unset(platform: Platform, place: Place) -> None:
    """Remove the limits of an app, of something on it, or of a model: the defaults hold again."""
    with action(f"Removing limits of {place.label}"):
        platform.delete(place.path("limits") + place.query())


def _value(text: str) -> int | str | None:
    if text == "default":
        return None
    return text if text == "unlimited" else int(text)


def _bounds(row: dict[str, Any]) -> list[str]:
    return [_cell(row[name]) for name in _TITLES]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _said(row: dict[str, Any]) -> str:
    """The whole row, so that what was set before is not overlooked."""
    said = [f"{title.lower()} {_cell(row[name])}" for name, title in _TITLES.items() if row[name] is not None]
    return ", ".join(said) or "the defaults hold"
