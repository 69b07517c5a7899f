"""The commands on the ledger in the database that the settings name: prove it, list its prices, reprice a period."""

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
from penstock.domain.money import shown
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
        told: dict[str, object] = {
            "Entries": found.entries,
            "Last": found.last,
            "Days": found.days,
            "Budgets": found.budgets,
        }
        told["Head"] = found.head
        output.fields(told, empty=True)
        output.value("" if found.faults else "\nThe ledger is whole.")
    for fault in found.faults:
        output.error(fault)
    return 1 if found.faults else 0


@click.command("ledger:prices")
@json_option
def prices(json_: bool) -> None:
    """List the versions of prices that the ledger has seen, per million tokens."""
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
    settings = warned(load_settings())
    rates = _of_version(settings, wanted) if wanted.file is None else read_prices(wanted.file)
    rows = [_row(one) for one in database.rerate_ledger(settings, wanted.since, wanted.until, rates)]
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
        rows = msgspec.convert(tomllib.loads(path.read_text("utf-8")), _Prices).model
        found = {row.id: _rate(row.price) for row in rows if row.price is not None}
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError, ArithmeticError) as error:
        raise CliError(f"{path} is no file of prices: {error or 'a price is no number'}") from None
    if not found:
        raise CliError(f"{path} has no [[model]] with an id and a price.")
    return found


def _rate(row: PriceRow) -> Rate:
    given = (row.input, row.output, row.cached_input, row.cache_write)
    entry, out, cached, write = (None if one is None else Decimal(str(one)) for one in given)
    if any(one is not None and not (one.is_finite() and one >= 0) for one in (entry, out, cached, write)):
        raise ArithmeticError("a price is negative or not finite")
    return Rate(
        input=entry or Decimal(0), output=out or Decimal(0), cached_input=cached, cache_write=write,
        currency=row.currency,
    )  # fmt: skip
