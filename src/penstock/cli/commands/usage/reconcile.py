"""ledger:reconcile: what the ledger says beside what a provider says."""

import re
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

import click

from penstock.cli import output
from penstock.cli.client import Platform
from penstock.cli.commands.usage.account import FIELDS, Account, Figures, Place, read_account
from penstock.cli.commands.usage.show import ALL, Asked
from penstock.cli.options import filled, json_option, packed, with_platform
from penstock.domain.access import Permission, Role, permissions

# What the targets of the embedded model begin with.
_EMBEDDED = "embedded:"


class _Wanted(NamedTuple):
    file: Path
    provider: str | None
    column: tuple[tuple[str, str], ...]
    tolerance: Decimal
    currency: str
    json_: bool


class _Difference(NamedTuple):
    place: Place
    what: str
    ledger: Decimal
    file: Decimal

    def as_json(self) -> dict[str, Any]:
        keys = ("request_id",) if len(self.place) == 1 else ("day", "model")
        figures = {"ledger": f"{self.ledger:f}", "file": f"{self.file:f}", "difference": f"{self.file - self.ledger:f}"}
        return {**dict(zip(keys, self.place, strict=True)), "what": self.what, **figures}


def _column(text: str) -> tuple[str, str]:
    field, _, name = text.partition("=")
    if field not in FIELDS or not name:
        raise click.BadParameter(f"{text!r} is no FIELD=COLUMN; the fields are {', '.join(FIELDS)}.")
    return field, name


def _currency(text: str) -> str:
    if not re.fullmatch(r"[A-Z]{3}", text):
        raise click.BadParameter(f"{text!r} is no currency; write three capital letters, such as USD.")
    return text


def _percent(text: str) -> Decimal:
    try:
        found = Decimal(text.removesuffix("%"))
    except InvalidOperation:
        found = Decimal(-1)
    if not (found.is_finite() and 0 <= found <= 100):
        raise click.BadParameter(f"{text!r} is no percentage from 0 to 100.")
    return found


@click.command("ledger:reconcile")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--provider", type=filled, metavar="NAME", help="Only what this provider served.")
@click.option("--column", type=_column, multiple=True, metavar="FIELD=COLUMN", help="Where a field is; repeatable.")
@click.option("--tolerance", type=_percent, default="0", metavar="PERCENT", help="What may differ; default: nothing.")
@click.option(
    "--currency", type=_currency, default="USD", show_default=True, metavar="CODE", help="That of the costs in FILE."
)
@json_option
@with_platform
@packed(_Wanted)
def reconcile(platform: Platform, wanted: _Wanted) -> int:
    """Compare the ledger with FILE, a provider's own account (CSV or JSON lines), by day and model, or by request where
    FILE has our ids; exits 1 when they differ."""
    account = read_account(wanted.file, dict(wanted.column))
    until = (date.fromisoformat(account.days[1]) + timedelta(days=1)).isoformat()
    asked = Asked(None, None, None, account.days[0], until)
    ours = (_by_request if account.by_request else _by_day)(platform, asked, wanted)
    _warn(platform, account, ours, wanted)
    found = list(_differences(account, ours, wanted.tolerance))
    if wanted.json_:
        output.as_json([one.as_json() for one in found])
        return 1 if found else 0
    days = account.days[0] if account.days[0] == account.days[1] else f"{account.days[0]} to {account.days[1]}"
    if not found:
        output.value(f"The ledger and {wanted.file} agree: {days}, {len(account.figures)} compared.")
        return 0
    titles = ("Request",) if account.by_request else ("Day", "Model")
    rows = [
        (*map(output.printable, one.place), one.what, f"{one.ledger:f}", f"{one.file:f}", f"{one.file - one.ledger:+f}")
        for one in found
    ]
    output.table((*titles, "What", "Ledger", "File", "Difference"), rows)
    return 1


def _by_day(platform: Platform, asked: Asked, wanted: _Wanted) -> dict[Place, Figures]:
    found: dict[Place, Figures] = {}
    for row in platform.get(asked.path("", by="day,target")):
        if (model := _served(row["target"], wanted)) is not None:
            # A sum has no cost where none of its requests has one that is known.
            cost = Decimal(row["cost"]) if row["currency"] == wanted.currency and Decimal(row["cost"]) else None
            figures = Figures(Decimal(row["input_tokens"]), Decimal(row["output_tokens"]), cost)
            place = (row["day"], model)
            found[place] = found.get(place, Figures()).plus(figures)
    return found


def _by_request(platform: Platform, asked: Asked, wanted: _Wanted) -> dict[Place, Figures]:
    found: dict[Place, Figures] = {}
    for page in platform.pages(asked.path("/entries"), headers=ALL):
        for entry in page:
            if _served(entry["target"], wanted) is not None:
                usage, known = entry["usage"], entry["cost"] is not None
                cost = Decimal(entry["cost"]) if known and entry["cost_currency"] == wanted.currency else None
                figures = Figures(Decimal(usage["input_tokens"]), Decimal(usage["output_tokens"]), cost)
                found[(entry["request_id"],)] = figures
    return found


def _served(target: str | None, wanted: _Wanted) -> str | None:
    """The provider's own name of the model, where it is the provider that is looked at."""
    provider, _, model = (target or "").partition("/")
    if wanted.provider is None:
        # The embedded model is nobody's bill.
        return None if provider.startswith(_EMBEDDED) else model or None
    return model if model and wanted.provider == provider else None


def _warn(platform: Platform, account: Account, ours: dict[Place, Figures], wanted: _Wanted) -> None:
    """Says what this comparison cannot know."""
    role = Role(platform.get("/account")["role"])
    if Permission.USAGE_READ not in permissions(role):
        output.warn(f"As {role} you read the usage of your own apps alone: what others used is not in this comparison.")
    if not ours:
        who = f"that {wanted.provider} served " if wanted.provider else ""
        output.warn(f"The ledger has nothing {who}in these days.")
    unknown = sum(1 for place, figures in ours.items() if figures.cost is None and place in account.figures)
    if unknown and "cost" in account.counted:
        known = f"the catalogue has no price of that upstream in {wanted.currency}"
        output.warn(f"Costs were not compared in {unknown} of {len(account.figures)} places: {known}.")


def _differences(account: Account, ours: dict[Place, Figures], tolerance: Decimal) -> Iterator[_Difference]:
    none = Figures(cost=Decimal(0))
    for place in sorted({*ours, *account.figures}):
        ledger, file = ours.get(place, none), account.figures.get(place, none)
        for what in account.counted:
            if what == "cost" and ledger.cost is None:
                continue
            one = _Difference(place, what, getattr(ledger, what), getattr(file, what))
            if abs(one.ledger - one.file) * 100 > tolerance * max(abs(one.ledger), abs(one.file)):
                yield one
