"""A provider's own account of usage: CSV or JSON lines in whatever columns, as sums by day and model or by request."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

from penstock.cli.output import CliError

# The field of an account, and how its column is called, in lower case without anything but letters and digits.
_KNOWN = {
    "day": ("day", "date", "usagedate", "timestamp", "time", "starttime", "chargeperiodstart", "createdat", "datetime"),
    "model": ("model", "modelid", "modelname", "skuid", "deployment"),
    "input": ("inputtokens", "prompttokens", "inputtokencount", "contexttokens", "ncontexttokenstotal", "xinputtokens"),
    "output": ("outputtokens", "completiontokens", "outputtokencount", "ngeneratedtokenstotal", "xoutputtokens"),
    "cost": ("cost", "amount", "totalcost", "costusd", "billedcost", "amountvalue"),
    # A provider's own number of a request is none of ours.
    "request_id": ("xrequestid", "clientrequestid"),
}
FIELDS = tuple(_KNOWN)
COUNTED = ("input", "output", "cost")
# Later than any date in seconds, earlier than any in milliseconds.
_MILLIS = 10**11


class Figures(NamedTuple):
    """Tokens and money of one day and model, or of one request."""

    input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)

    def plus(self, other: "Figures") -> "Figures":
        """The sums."""
        return Figures(self.input + other.input, self.output + other.output, self.cost + other.cost)


# (day, model), or (request id,).
Place = tuple[str, ...]


class Account(NamedTuple):
    """Figures by place; ``counted`` are those that the file has, ``days`` its first and last, ``by_request`` what its
    places are."""

    figures: dict[Place, Figures]
    counted: tuple[str, ...]
    days: tuple[str, str]
    by_request: bool


def read_account(path: Path, named: Mapping[str, str]) -> Account:
    """The account in a file; ``named`` are columns by field, several joined by ``+`` for their sum. Raises CliError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return _account(_rows(lines), named)
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise CliError(f"{path}: {error}") from None


def _rows(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Objects of JSON lines, or rows of CSV, as the first line shows."""
    lines = iter(lines)
    first = next(lines, "")
    if not first.lstrip().startswith("{"):
        yield from csv.DictReader(_again(first, lines))
        return
    for number, line in enumerate(_again(first, lines), 1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no object")
            yield row


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _account(rows: Iterator[dict[str, Any]], named: Mapping[str, str]) -> Account:
    figures: dict[Place, Figures] = {}
    days: set[str] = set()
    columns: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(rows, 2):
        columns = columns or _columns(row, named)
        try:
            day = _day(row[columns["day"][0]])
            place = (str(row[columns["request_id"][0]]),) if "request_id" in columns else (day, _model(row, columns))
            sums = {name: _sum(row, columns[name]) for name in COUNTED if name in columns}
        except (KeyError, InvalidOperation, ValueError, OverflowError) as error:
            raise ValueError(f"line {number} cannot be read: {error!r}") from None
        figures[place] = figures.get(place, Figures()).plus(Figures(**sums))
        days.add(day)
    if not figures:
        raise ValueError("there is no row in it")
    counted = tuple(name for name in COUNTED if name in columns)
    return Account(figures, counted, (min(days), max(days)), "request_id" in columns)


def _columns(row: Mapping[str, Any], named: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The columns of each field that the file has."""
    found: dict[str, tuple[str, ...]] = {}
    for field, words in _KNOWN.items():
        if field in named:
            found[field] = tuple(name.strip() for name in named[field].split("+"))
            if missing := [name for name in found[field] if name not in row]:
                raise ValueError(f"there is no column {missing[0]}; it has {', '.join(map(str, row))[:500]}")
            continue
        same = {re.sub(r"[^a-z0-9]", "", str(name).lower()): str(name) for name in row}
        if column := next((same[word] for word in words if word in same), None):
            found[field] = (column,)
    needed = ("day",) if "request_id" in found else ("day", "model")
    lost = [name for name in needed if name not in found] or ([] if {*COUNTED} & {*found} else ["input"])
    if lost:
        has = ", ".join(map(str, row))[:500]
        raise ValueError(f"no column looks like {lost[0]}; name it with --column {lost[0]}=NAME. It has {has}")
    return found


def _model(row: Mapping[str, Any], columns: Mapping[str, tuple[str, ...]]) -> str:
    return str(row[columns["model"][0]])


def _sum(row: Mapping[str, Any], names: Iterable[str]) -> Decimal:
    cells = [str(row[name]).replace(",", "").strip().lstrip("$") for name in names if row[name] not in (None, "")]
    found = sum((Decimal(cell) for cell in cells), Decimal(0))
    if not found.is_finite():
        raise ValueError("a figure is not finite")
    return found


def _day(value: Any) -> str:
    """The UTC day of a date, a time, or seconds or milliseconds of Unix time."""
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        at = datetime.fromisoformat(text)
        return (at.astimezone(UTC) if at.tzinfo else at).date().isoformat()
    return datetime.fromtimestamp(number / 1000 if number > _MILLIS else number, UTC).date().isoformat()
