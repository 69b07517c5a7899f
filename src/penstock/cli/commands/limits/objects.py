"""What a limit or budget is set on, as options name it and as tables show it."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

import click

from penstock.cli import output
from penstock.cli.client import segment
from penstock.cli.options import all_option, app_option, filled

F = TypeVar("F", bound=Callable[..., Any])

_ORDER = ("app", "addon", "attachment", "key", "model")
_WORDS = {"addon": "add-on"}
_PARTS = ("key", "attachment", "addon")


class Place(NamedTuple):
    """What the options name: an app or something on it, of all models or one; or a model alone."""

    app: str | None
    body: dict[str, str]

    def path(self, noun: str) -> str:
        """Of ``limits`` or ``budgets`` in the Platform API."""
        return f"/apps/{segment(self.app)}/{noun}" if self.app else f"/{noun}"

    def query(self, **more: str) -> str:
        """What a DELETE names, as the end of its path."""
        named = {**self.body, **more}
        return f"?{urlencode(named)}" if named else ""

    @property
    def label(self) -> str:
        """For progress lines."""
        part = next((f"{_WORDS.get(name, name)} {self.body[name]}" for name in _PARTS if name in self.body), None)
        model = self.body.get("model")
        if not self.app:
            return f"the model {model}"
        where = output.app_label(self.app)
        return f"{f'{part} on {where}' if part else where}{f', {model} alone' if model else ''}"


def on_object(f: F) -> Callable[..., Any]:
    """The options that name an object, handed over as ``place``; stands above ``with_platform``."""

    @wraps(f)
    def command(**options: Any) -> Any:
        given = {name: options.pop(name) for name in (*_PARTS, "model")}
        app = options.pop("app")
        return f(place=_place(app, {name: item for name, item in given.items() if item is not None}), **options)

    wrapped: Callable[..., Any] = command
    for option in (
        click.option(
            "--model", type=filled, metavar="ID", help="This model alone; without an app, the model whoever uses it."
        ),
        click.option("--addon", type=filled, metavar="NAME", help="An add-on of the app, by its name or an alias."),
        click.option("--attachment", type=filled, metavar="NAME", help="An attachment on the app."),
        click.option("--key", type=filled, metavar="KEY", help="A key of the app, by prefix or id."),
        all_option("No app: the model whoever uses it, though HEROKU_APP names an app."),
        app_option(required=False),
    ):
        wrapped = option(wrapped)
    return wrapped


def _place(app: str | None, body: dict[str, str]) -> Place:
    parts = [f"--{name}" for name in _PARTS if name in body]
    if len(parts) > 1:
        raise click.UsageError(f"{' and '.join(parts)} exclude each other.")
    if parts and not app:
        raise click.UsageError(f"{parts[0]} needs the app that it is on: -a APP.")
    if not app and "model" not in body:
        raise click.UsageError("Name an app (-a APP) or a model (--model ID).")
    return Place(app, body)


def cells(row: dict[str, Any], app: str | None) -> tuple[str, str]:
    """The object and the model of a row, in the list of one app or of everything."""
    found, owner = row["object"], row["app"]
    name = f"{_WORDS.get(found['type'], found['type'])} {found['name']}"
    if owner and found["type"] != "app" and owner["name"] != app:
        name += f" ({owner['name']})"
    return name, row["model"] or "all"


def default_cells(row: dict[str, Any]) -> tuple[str, str]:
    """The same of a default, which is about every object of a type."""
    if row["object_type"] == "model":
        return f"model {row['model'] or '(each)'}", "all"
    return f"each {_WORDS.get(row['object_type'], row['object_type'])}", row["model"] or "all"


def note_models(noun: str, app: str | None) -> None:
    """Says what the list of one app cannot have: what is set on a model is everybody's."""
    if app:
        output.note(f"{noun.title()} of models bound every app too: penstock {noun} -A lists them.")


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Apps first, then what is on them, by name."""
    return sorted(rows, key=lambda row: (_ORDER.index(row["object"]["type"]), *cells(row, None)))
