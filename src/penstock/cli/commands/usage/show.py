"""The commands that show and export usage."""

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

import click

from penstock.cli import output
from penstock.cli.client import Platform
from penstock.cli.commands.usage import columns, writers
from penstock.cli.durations import parse_moment
from penstock.cli.options import all_option, app_option, filled, json_option, packed, with_platform
from penstock.cli.output import CliError

# All entries of a period, in the server's longest pages.
ALL = {"Range": "cursor ..; max=1000"}
_SHOWN = 50
_NEWEST = {"Range": f"cursor ..; max={_SHOWN}, order=desc"}
_TITLES = {"app": "App", "key": "Key", "model": "Model", "target": "Target", "day": "Day"}
_SUMS = ("requests", "failed", "estimated", "input_tokens", "cached_input_tokens", "cache_write_tokens")
_MORE = ("output_tokens", "reasoning_tokens", "amount", "cost", "currency")

F = TypeVar("F", bound=Callable[..., Any])


class Asked(NamedTuple):
    """Which usage is asked for."""

    app: str | None
    key: str | None
    model: str | None
    since: str | None
    until: str | None
    request: str | None = None

    def path(self, what: str, **more: str) -> str:
        """The path of the Platform API."""
        given = {name: item for name, item in self._asdict().items() if item} | more
        return f"/usage{what}?{urlencode(given)}" if given else f"/usage{what}"


def chosen_options(f: F) -> F:
    """-a, --key, --model, --since, --until."""
    for option in (
        click.option("--until", type=filled, metavar="TIME", help="Only before that time."),
        click.option(
            "--since",
            type=filled,
            metavar="TIME",
            help="Only from a time on: 2026-11-01, 2026-11-01T12:00:00Z, 24h, 7d.",
        ),
        click.option("-m", "--model", type=filled, metavar="MODEL", help="Only of a model."),
        click.option("--key", type=filled, metavar="KEY", help="Only of a key, by its prefix or id."),
        all_option("Of all apps, whatever HEROKU_APP says."),
        app_option(required=False),
    ):
        f = option(f)
    return f


class _Show(NamedTuple):
    app: str | None
    key: str | None
    model: str | None
    since: str | None
    until: str | None
    by: tuple[str, ...]
    entries: bool
    request: str | None
    json_: bool
    csv_: bool

    @property
    def asked(self) -> Asked:
        return Asked(*self[:5], self.request)


@click.command("usage")
@chosen_options
@click.option("--by", type=click.Choice([*_TITLES]), multiple=True, help="One sum for each (model); repeatable.")
@click.option("--entries", is_flag=True, help="Single requests instead of sums.")
@click.option("--request", type=filled, metavar="ID", help="Only this request, by the x-request-id of its answer.")
@json_option
@click.option("--csv", "csv_", is_flag=True, help="Print CSV.")
@with_platform
@packed(_Show)
def show(platform: Platform, wanted: _Show) -> None:
    """Show what was used and what it costs, of an app or of all that you may read."""
    if wanted.json_ and wanted.csv_:
        raise click.UsageError("--json and --csv exclude each other.")
    single = wanted.entries or wanted.request is not None
    if single and wanted.by:
        raise click.UsageError(f"--by sums up; leave it or {'--entries' if wanted.entries else '--request'} out.")
    if single:
        _show_entries(platform, wanted)
        return
    by = wanted.by or ("model",)
    found = platform.get(wanted.asked.path("", by=",".join(by)))
    if wanted.json_:
        output.as_json(found)
    elif wanted.csv_:
        names: columns.Columns = dict.fromkeys((*_names(by), *_SUMS, *_MORE), "text")
        writers.write_csv(sys.stdout, names, [[_flat(row, by) for row in found]])
    else:
        _table(found, by, wanted.asked)


def _show_entries(platform: Platform, wanted: _Show) -> None:
    path = wanted.asked.path("/entries")
    if wanted.json_:
        writers.write_list(sys.stdout, platform.pages(path, headers=ALL))
        return
    if wanted.csv_:
        pages = ([columns.plain(entry) for entry in page] for page in platform.pages(path, headers=ALL))
        writers.write_csv(sys.stdout, columns.PLAIN, pages)
        return
    found = next(platform.pages(path, headers=_NEWEST))
    if not found:
        _nothing(wanted.asked)
        return
    rows = [_line(entry) for entry in reversed(found)]
    output.table(("Admitted", "App", "Model", "Target", "Outcome", "In", "Out", "Amount", "Request"), rows)
    if len(found) == _SHOWN:
        output.note(f"The newest {_SHOWN}; --json and --csv give all, --since and --until a part.")


def _line(entry: dict[str, Any]) -> tuple[str, ...]:
    usage = entry["usage"]
    target = f"{entry['stand_in_id']} (stand-in)" if entry["stand_in"] else entry["target"] or "-"
    cells = (f"{entry['admitted_at'][:19]}Z", entry["app"]["name"], entry["model"], target, entry["outcome"])
    counts = (usage["input_tokens"], f"{'~' if entry['estimated'] else ''}{usage['output_tokens']}")
    money = "no price" if entry["price_version"] is None else f"{entry['amount']} {entry['currency']}"
    return tuple(output.printable(str(cell)) for cell in (*cells, *counts, money, entry["request_id"]))


def _table(found: list[dict[str, Any]], by: tuple[str, ...], asked: Asked) -> None:
    if not found:
        _nothing(asked)
        return
    counts = ("requests", "failed", "input_tokens", "cached_input_tokens", "output_tokens")
    rows = []
    for row in found:
        flat = _flat(row, by)
        group = [output.printable(str(flat[name] or "-")) for name in by]
        rows.append((*group, *(str(row[name]) for name in counts), f"{row['amount']} {row['currency']}"))
    for currency in sorted({row["currency"] for row in found}) if len(found) > 1 else []:
        same = [row for row in found if row["currency"] == currency]
        total = sum((Decimal(row["amount"]) for row in same), Decimal(0))
        sums = (str(sum(row[name] for row in same)) for name in counts)
        rows.append(("total", *[""] * (len(by) - 1), *sums, f"{total:f} {currency}"))
    titles = (*(_TITLES[name] for name in by), "Requests", "Failed", "Input", "Cached", "Output", "Amount")
    output.table(titles, rows)


def _nothing(asked: Asked) -> None:
    output.value("No usage.")
    now = datetime.now(UTC).timestamp() * 1_000_000
    since, until = (_moment(text) for text in (asked.since, asked.until))
    if since is not None and since > now:
        output.note("That time is still to come.")
    elif until is None or until > now:
        output.note("A request shows up here within a second of its end.")


def _moment(text: str | None) -> int | None:
    """What the server has read as a time already."""
    return None if text is None else parse_moment(text)


def _names(by: tuple[str, ...]) -> list[str]:
    return [name for each in by for name in ((each, f"{each}_id") if each in ("app", "key") else (each,))]


def _flat(row: dict[str, Any], by: tuple[str, ...]) -> dict[str, Any]:
    flat = dict(row)
    for name, word in (("app", "name"), ("key", "prefix")):
        if name in by:
            flat |= {name: row[name][word], f"{name}_id": row[name]["id"]}
    return flat


class _Export(NamedTuple):
    app: str | None
    key: str | None
    model: str | None
    since: str | None
    until: str | None
    format_: str
    focus: bool
    file: str

    @property
    def asked(self) -> Asked:
        # What is admitted meanwhile is for the next export.
        return Asked(*self[:4], self.until or datetime.now(UTC).isoformat())


@click.command("usage:export")
@chosen_options
@click.option("--format", "format_", type=click.Choice(writers.FORMATS), required=True, help="Of the file.")
@click.option("--focus", is_flag=True, help="With the columns of the FinOps specification FOCUS.")
@click.option("-o", "--output", "file", required=True, metavar="FILE", help="Where to; - for standard output.")
@with_platform
@packed(_Export)
def export(platform: Platform, wanted: _Export) -> None:
    """Write single requests, one row each, to a file; an existing one is replaced when the new one is whole."""
    if wanted.format_ == "parquet":
        writers.parquet_library()
    names = columns.FOCUS if wanted.focus else columns.PLAIN
    pages = platform.pages(wanted.asked.path("/entries"), headers=ALL)
    if wanted.file == "-":
        if wanted.format_ == "parquet":
            raise CliError("Parquet is no text; name a file with -o.")
        _write(sys.stdout, wanted, pages)
        return
    path = Path(wanted.file)
    with output.action(f"Exporting to {path}") as running, writers.replacing(path) as draft:
        if wanted.format_ == "parquet":
            count = writers.write_parquet(draft, names, _rows(pages, wanted))
        else:
            with draft.open("w", encoding="utf-8", newline="") as out:
                count = _write(out, wanted, pages)
        running.done = f"done, {count} requests"


def _write(out: Any, wanted: _Export, pages: Iterator[list[Any]]) -> int:
    if wanted.format_ == "csv":
        return writers.write_csv(out, columns.FOCUS if wanted.focus else columns.PLAIN, _rows(pages, wanted))
    return writers.write_lines(out, _rows(pages, wanted) if wanted.focus else pages)


def _rows(pages: Iterator[list[Any]], wanted: _Export) -> Iterator[list[columns.Row]]:
    shape = columns.focus if wanted.focus else columns.plain
    return ([shape(entry) for entry in page] for page in pages)
