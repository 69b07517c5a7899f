"""What commands print: values on stdout, progress and errors on stderr, in the Heroku CLI's forms."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click


class CliError(Exception):
    """A command cannot go on; the message is shown without a traceback and the program exits with ``exit_code``."""

    def __init__(self, message: str, *, exit_code: int = 1, error_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.error_id = error_id


class Action:
    """A running piece of work; ``done`` is what stands after the dots when it succeeds."""

    def __init__(self) -> None:
        self.done = "done"


@contextmanager
def action(text: str) -> Iterator[Action]:
    """Print ``text... done`` on stderr around the work, or ``text... !`` when it fails."""
    click.echo(f"{text}... ", err=True, nl=False)
    running = Action()
    try:
        yield running
    except BaseException:
        click.echo("!", err=True)
        raise
    click.echo(running.done, err=True)


def app_label(name: str) -> str:
    """An app's name as progress lines show it."""
    return f"\N{BLACK HEXAGON} {name}"


def value(text: str = "") -> None:
    """One line on stdout."""
    click.echo(text)


def note(text: str) -> None:
    """One line on stderr."""
    click.echo(text, err=True)


def warn(text: str) -> None:
    """A warning on stderr, in the Heroku CLI's form."""
    _bullet("Warning", text)


def error(text: str) -> None:
    """An error on stderr, in the Heroku CLI's form."""
    _bullet("Error", text)


def _bullet(label: str, text: str) -> None:
    mark = " \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
    first, *rest = printable(text).split("\n")
    click.echo(f"{mark}   {label}: {first}", err=True)
    for line in rest:
        click.echo(f"{mark}   {line}".rstrip(), err=True)


def printable(text: str) -> str:
    """``text`` without control characters: a server's message must not steer the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def as_json(data: Any) -> None:
    """Any JSON value on stdout, indented."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def header(text: str) -> None:
    """A section's title on stdout."""
    click.echo(f"=== {text}\n")


def fields(data: Mapping[str, Any], *, empty: bool = False) -> None:
    """Aligned ``Name: value`` lines on stdout; empty values are left out unless asked for, lists take a line each."""
    shown = {name: item for name, item in data.items() if empty or item not in (None, "", [])}
    width = max((len(name) for name in shown), default=0) + 1
    for name, item in shown.items():
        lines = [str(part) for part in item] if isinstance(item, list) else [str(item)]
        click.echo(f"{name + ':':<{width}} {lines[0]}".rstrip(" "))
        for line in lines[1:]:
            click.echo(f"{'':<{width}} {line}")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns under their titles on stdout."""
    body = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[index]) for line in [list(columns), *body]) for index in range(len(columns))]
    for line in [list(columns), ["\N{BOX DRAWINGS LIGHT HORIZONTAL}" * width for width in widths], *body]:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def tolerate_narrow_terminals() -> None:
    """Replace what a stream's encoding cannot show, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
