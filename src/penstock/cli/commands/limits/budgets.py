"""The commands on budgets: list, set, unset."""

import re
from typing import Any, NamedTuple

import click

from penstock.cli import output
from penstock.cli.client import Platform, segment
from penstock.cli.commands.limits.objects import Place, cells, default_cells, in_order, note_models, on_object
from penstock.cli.options import all_option, app_option, json_option, packed, with_platform
from penstock.cli.output import action

_PERIODS = ("day", "week", "month", "total")
_TITLES = ("Object", "Model", "Per", "Amount", "Spent", "Held", "Left", "Begins anew", "Alerts", "Set by")
_AMOUNT = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)


class _Wanted(NamedTuple):
    """The options of budgets:set."""

    amount: str
    place: Place
    per: str
    currency: str
    alerts: tuple[int, ...]
    no_alerts: bool


@click.command("budgets")
@app_option(required=False)
@all_option("Those of all apps, whatever HEROKU_APP says.")
@json_option
@with_platform
def list_budgets(platform: Platform, app: str | None, json_: bool) -> None:
    """List budgets with what is spent of them: those that are about an app, or all."""
    path = f"/apps/{segment(app)}/budgets" if app else "/budgets"
    found = in_order(platform.get_all(path))
    defaults = platform.get(f"{path}/defaults")
    if json_:
        output.as_json({"budgets": found, "defaults": defaults})
        return
    rows = [*(_row(row, app) for row in found), *(_default_row(row) for row in defaults)]
    if rows:
        output.table(_TITLES, rows)
    else:
        output.value("There are no budgets.")
    note_models("budgets", app)


def _parse_amount(text: str) -> str:
    if not _AMOUNT.fullmatch(text):
        raise click.BadParameter(f"{text!r} is no amount; write it as 50 or 12.50.")
    return text


def _chosen(f: Any) -> Any:
    period = click.option("--per", type=click.Choice(_PERIODS), required=True, help="The period, by the UTC calendar.")
    currency = click.option("--currency", metavar="CODE", default="USD", show_default=True, help="The currency.")
    return period(currency(f))


@click.command("budgets:set")
@click.argument("amount", type=_parse_amount)
@_chosen
@on_object
@click.option("--alert", "alerts", type=click.IntRange(1, 1000), multiple=True, metavar="PERCENT",
              help="Tell when so much is spent; may be repeated (default: 50, 80 and 100).")  # fmt: skip
@click.option("--no-alerts", is_flag=True, help="Tell nothing.")
@with_platform
@packed(_Wanted)
def set_budget(platform: Platform, wanted: _Wanted) -> None:
    """Set a budget of an app, of something on it, or of a model: so much money in each period."""
    place, alerts = wanted.place, [*wanted.alerts]
    if alerts and wanted.no_alerts:
        raise click.UsageError("--alert and --no-alerts exclude each other.")
    told = {"alerts": alerts} if alerts or wanted.no_alerts else {}
    body = {**place.body, "amount": wanted.amount, "period": wanted.per, "currency": wanted.currency, **told}
    with action(f"Setting the budget of {place.label}") as running:
        made = platform.put(place.path("budgets"), body)
        each = "in total" if made["period"] == "total" else f"per {made['period']}"
        running.done = f"done, {_money(made, 'amount')} {each}, {_money(made, 'remaining')} left"


@click.command("budgets:unset")
@_chosen
@on_object
@with_platform
def unset(platform: Platform, place: Place, per: str, currency: str) -> None:
    """Remove a budget of an app, of something on it, or of a model."""
    with action(f"Removing the budget of {place.label}"):
        platform.delete(place.path("budgets") + place.query(period=per, currency=currency))


def _row(row: dict[str, Any], app: str | None) -> tuple[str, ...]:
    told = f" (told {row['alerted']}%)" if row["alerted"] else ""
    by = "penstock.toml" if row["source"] == "default" else row["updated_by"]
    sums = (_money(row, name) for name in ("amount", "spent", "held", "remaining"))
    return (*cells(row, app), row["period"], *sums, (row["ends_at"] or "never")[:10], _alerts(row) + told, by)


def _default_row(row: dict[str, Any]) -> tuple[str, ...]:
    return (*default_cells(row), row["period"], _money(row, "amount"), *"----", _alerts(row), row["source"])


def _alerts(row: dict[str, Any]) -> str:
    return ", ".join(f"{percent}%" for percent in row["alerts"]) or "none"


def _money(row: dict[str, Any], name: str) -> str:
    """``12.50 USD``: two digits at least."""
    whole, _, fraction = str(row[name]).partition(".")
    return f"{whole}.{fraction:0<2} {row['currency']}"
