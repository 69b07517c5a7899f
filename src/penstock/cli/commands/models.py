"""The commands on model weights on this machine: list, fetch, add, remove."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from penstock.cli import output
from penstock.cli.options import json_option
from penstock.cli.output import CliError
from penstock.engine.weights import BUILT_IN, Progress, Weights, WeightsError
from penstock.settings.load import load_settings
from penstock.settings.private import private_folder

_REDRAW_S = 0.1
_BAR = 30


@click.command("models:local")
@json_option
def list_weights(json_: bool) -> None:
    """List the model weights on this machine."""
    with _explained():
        models = _weights().list()
    if json_:
        keys = ("id", "path", "size", "sha256", "architecture", "context_length", "source")
        output.as_json([{key: getattr(model, key) for key in keys} for model in models])
        return
    if not models:
        output.value(f"No model weights here yet. Fetch some with: penstock models:pull {next(iter(BUILT_IN))}")
        return
    rows = [(one.id, f"{one.size / 1e6:.1f} MB", one.architecture, one.context_length, one.source) for one in models]
    output.table(("Model", "Size", "Architecture", "Context", "Source"), rows)


@click.command("models:pull")
@click.argument("source", required=False, metavar="[ID | hf:OWNER/REPO/FILE.gguf]")
@click.option("--as", "model_id", metavar="ID", help="The id to enter the model under.")
def pull(source: str | None, model_id: str | None) -> None:
    """Fetch model weights, built-in by ID or from the hub (default: the built-in model)."""
    wanted = source or next(iter(BUILT_IN))
    with _explained(), _progress(wanted) as progress:
        model = _weights(makes_home=True).pull(wanted, model_id=model_id, progress=progress)
    output.value(f"{model.id} {model.path}")


@click.command("models:add")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--as", "model_id", required=True, metavar="ID", help="The id to enter the model under.")
def add(path: Path, model_id: str) -> None:
    """Enter a GGUF file that is on this machine under an id."""
    with _explained(), _progress(model_id) as progress:
        model = _weights(makes_home=True).add(path, model_id, progress=progress)
    output.value(f"{model.id} {model.path}")


@click.command("models:remove")
@click.argument("model_id", metavar="ID")
def remove(model_id: str) -> None:
    """Remove the model weights of that id from this machine; a running server keeps what it has loaded."""
    with _explained():
        _weights().remove(model_id)
    output.value(f"Removed {model_id}")


def _weights(*, makes_home: bool = False) -> Weights:
    home = Path(load_settings().home)
    if makes_home:
        try:
            private_folder(home)
        except OSError as error:
            raise WeightsError(f"{home}: {error.strerror}") from error
    return Weights(home)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except WeightsError as error:
        raise CliError(str(error)) from error


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """A bar on stderr: redrawn in place on a terminal, one line a step elsewhere."""
    terminal = sys.stderr.isatty()
    draw = _drawer(name) if terminal else _liner(name)
    try:
        yield draw
    finally:
        if terminal:
            output.note("")


def _drawer(name: str) -> Progress:
    drawn_at = [0.0]

    def draw(done: int, total: int | None, step: str) -> None:
        now = time.monotonic()
        if now - drawn_at[0] < _REDRAW_S and done != total:
            return
        drawn_at[0] = now
        share = done / total if total else 0.0
        bar = "#" * round(share * _BAR)
        amount = f"{done / 1e6:.1f}/{total / 1e6:.1f} MB {share:4.0%}" if total else f"{done / 1e6:.1f} MB"
        click.echo(f"\r{name}: {step:<8} [{bar:<{_BAR}}] {amount}\x1b[K", err=True, nl=False)

    return draw


def _liner(name: str) -> Callable[[int, int | None, str], None]:
    seen: set[str] = set()

    def line(done: int, total: int | None, step: str) -> None:
        del done
        if step not in seen:
            seen.add(step)
            output.note(f"{name}: {step}{f' ({total / 1e6:.1f} MB)' if total else ''}")

    return line
