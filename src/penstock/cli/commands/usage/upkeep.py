"""The commands on the ledger in the database that the settings name: prove it, list its prices, reprice a period."""

import re
import sys
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from penstock.cli import output
from penstock.cli.commands.admin.database import warned
from penstock.cli.commands.usage import columns, writers
from penstock.cli.durations import parse_moment
from penstock.cli.options import json_option
from penstock.cli.output import CliError
from penstock.domain.catalogue import Rate
from penstock.domain.money import rate_number, shown
from penstock.settings.load import load_settings
from penstock.settings.tree import PriceRow, Settings

if TYPE_CHECKING:
    from penstock.store.metering.rerate import Rerated

_COLUMNS: columns.Columns = {
    "model": "text",
    "requests": "text",
    "old": "text",
    "currency": "text",
    "new": "text",
    "new_currency": "text",
    "difference": "text",
}


class _Priced(msgspec.Struct):
    """A row of a file of prices; whatever else a ``[[model]]`` of penstock.toml has is not looked at."""

    id: str
    price: PriceRow | None = None


class _Prices(msgspec.Struct):
    model: list[_Priced]


@click.command("ledger:verify")
@click.option("--head", metavar="HEAD", help="What it printed as the head before must still be in the ledger.")
@json_option
def verify_ledger(head: str | None, json_: bool) -> int:
    """Follow the chain of all entries and add up all sums; exits 1 when something is wrong. Changes nothing."""
    from penstock.app import database  # noqa: PLC0415 - the store is slow to import

    try:
        found = database.verify_ledger(warned(load_settings()), head)
    except ValueError:
        raise click.UsageError(f"Not a head of a ledger: {head}") from None
    if json_:
        output.as_json({name: getattr(found, name) for name in found.__struct_fields__})
    else:
        # Behind the first that does not fit, nothing is proven.
        whole = found.broken is None
        told: dict[str, object] = {
            "Entries": found.entries if whole else f"{found.entries}, up to number {found.last} of {found.newest}",
            "Last": found.last,
            "Days": found.days,
            "Budgets": found.budgets,
            "Head": found.head,
        }
        output.fields(told, empty=True)
        output.value("" if found.faults else "\nThe ledger is whole.")
    for fault in found.faults:
        output.error(fault)
    if found.more:
        output.error(f"and {found.more} more")
    return 1 if found.faults else 0


@click.command("ledger:prices")
@json_option
def prices(json_: bool) -> None:
    """List the versions of prices that the ledger knows, charged or not, per million tokens."""
    from penstock.app import database  # noqa: PLC0415 - as above

    found = database.list_prices(warned(load_settings()))
    if json_:
        output.as_json([msgspec.to_builtins(one) for one in found])
    elif not found:
        output.value("No prices yet.")
    else:
        titles = ("Version", "Input", "Cached", "Cache write", "Output", "Currency", "Source", "First seen")
        output.table(titles, [(one.version, *_cells(one.rate), f"{one.first_seen_at:%Y-%m-%d}") for one in found])


def _cells(rate: Rate) -> tuple[str, ...]:
    rates = (rate.input, rate.cached_input, rate.cache_write, rate.output)
    return (*("-" if one is None else f"{one:f}" for one in rates), rate.currency, output.printable(rate.source))


class _Wanted(NamedTuple):
    since: int
    until: int
    file: Path | None
    version: str | None
    models: tuple[str, ...]
    json_: bool
    csv_: bool


@click.command("ledger:rerate")
@click.option("--since", type=parse_moment, required=True, metavar="TIME", help="2026-11-01, 24h, 30d.")
@click.option("--until", type=parse_moment, default="0s", metavar="TIME", help="Before that time; default: now.")
@click.option("--prices", "file", type=click.Path(path_type=Path), metavar="FILE", help="[[model]] rows with a price.")
@click.option("--price-version", "version", metavar="V", help="The prices of a version that ledger:prices lists.")
@click.option("-m", "--model", "models", multiple=True, metavar="MODEL", help="To which models V goes; repeatable.")
@json_option
@click.option("--csv", "csv_", is_flag=True, help="Print CSV.")
def rerate(**options: Any) -> None:
    """Say what a past period would have cost at other prices, by model. The ledger stays as it is."""
    from penstock.app import database  # noqa: PLC0415 - as above

    wanted = _Wanted(**options)
    if (wanted.file is None) == (wanted.version is None):
        raise click.UsageError("Give one of --prices FILE and --price-version V.")
    if wanted.json_ and wanted.csv_:
        raise click.UsageError("--json and --csv exclude each other.")
    if wanted.since >= wanted.until:
        raise click.UsageError("--until must be later than --since.")
    if wanted.file is not None and wanted.models:
        raise click.UsageError("--model says whose price --price-version is; FILE of --prices names models itself.")
    settings = warned(load_settings())
    rates = _of_version(settings, wanted) if wanted.file is None else read_prices(wanted.file)
    rows = [_row(one) for one in database.rerate_ledger(settings, wanted.since, wanted.until, rates)]
    if unused := sorted({*rates} - {row["model"] for row in rows}) if rows else []:
        output.warn(f"The ledger has no entry in that time of {', '.join(unused)[:500]}.")
    if wanted.json_:
        output.as_json(rows)
    elif wanted.csv_:
        writers.write_csv(sys.stdout, _COLUMNS, [rows])
    elif not rows:
        output.value("No entries in that time; of those older than ledger.retention_days only sums are left.")
    else:
        output.table(("Model", "Requests", "Old", "New", "Difference"), [_line(row) for row in rows])


def _row(one: "Rerated") -> columns.Row:
    same = one.currency == one.new_currency
    return {
        "model": one.model,
        "requests": one.requests,
        "old": shown(one.old_nanos),
        "currency": one.currency,
        "new": shown(one.new_nanos) if one.changed else None,
        "new_currency": one.new_currency if one.changed else None,
        "difference": shown(one.new_nanos - one.old_nanos) if one.changed and same else None,
    }


def _line(row: columns.Row) -> tuple[str, ...]:
    new = "no other price" if row["new"] is None else f"{row['new']} {row['new_currency']}"
    return row["model"], str(row["requests"]), f"{row['old']} {row['currency']}", new, row["difference"] or "-"


def _of_version(settings: Settings, wanted: _Wanted) -> dict[str, Rate]:
    from penstock.app import database  # noqa: PLC0415 - as above

    version = str(wanted.version)
    rate = next((one.rate for one in database.list_prices(settings) if one.version == version), None)
    if rate is None:
        raise CliError(f"There is no price version {version}; penstock ledger:prices lists them.")
    models = wanted.models or database.models_at(settings, version)
    if not models:
        raise CliError(f"No entry was charged at {version}; say with --model whose price it is to be.")
    return dict.fromkeys(models, rate)


def read_prices(path: Path) -> dict[str, Rate]:
    """The rates by model of a file with ``[[model]]`` rows, such as penstock.toml. Raises CliError."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
        rows = msgspec.convert(data, _Prices).model
        found = {row.id: _rate(row.id, row.price) for row in rows if row.price is not None}
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise CliError(f"{path} is no file of prices: it is no text in UTF-8.") from None
    except msgspec.ValidationError as error:
        raise CliError(f"{path} is no file of prices: {_in_words(str(error))}") from None
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise CliError(f"{path} is no file of prices: {error}") from None
    if not found:
        raise CliError(f"{path} has no [[model]] with an id and a price.")
    return found


def _in_words(said: str) -> str:
    """What msgspec says, such as "Expected `str`, got `int` - at `$.model[0].id`", for a reader."""
    what, _, place = said.partition(" - at `$.")
    place = re.sub(r"\[(\d+)\]", lambda row: f" row {int(row[1]) + 1}, ", place.rstrip("`")).replace(", .", ", ")
    if "regex" in what:
        what = "must be three capital letters, such as USD"
    elif unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        what = f"there is no field {unknown[1]}"
    elif missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        what = f"{missing[1]} is missing"
    else:
        what = re.sub("^Expected", "must be", what.replace("`", "")).replace("array", "[[...]] rows")
        what = what.replace("object", "a table").replace("str", "text").replace(", got", ", not")
    return f"{place.strip(', ')}: {what}" if place else what


def _rate(model: str, row: PriceRow) -> Rate:
    numbers: dict[str, Decimal] = {}
    for name in ("input", "output", "cached_input", "cache_write"):
        if (value := getattr(row, name)) is None:
            continue
        try:
            numbers[name] = rate_number(value)
        except ValueError as error:
            raise ValueError(f"model {model!r}, price.{name}: {error}") from None
    return Rate(currency=row.currency, **numbers)  # type: ignore[arg-type]
