"""A provider's own account of usage: CSV, JSON lines or a JSON list in whatever columns, as sums by day and model or by
request."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
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
_NUMBER = re.compile(r"-?(\d{1,30}|\d{1,3}(,\d{3}){1,9})(\.\d{1,30})?([eE][+-]?\d{1,2})?", re.ASCII)


class Figures(NamedTuple):
    """Tokens and money of one day and model, or of one request; ``cost`` is None where it is not known."""

    input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)
    cost: Decimal | None = None

    def plus(self, other: "Figures") -> "Figures":
        """The sums."""
        known = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Figures(self.input + other.input, self.output + other.output, sum(known, Decimal(0)) if known else None)


# (day, model), or (request id,).
Place = tuple[str, ...]
# Where a row stands, for messages, and its cells.
_Row = tuple[str, Mapping[str, Any]]


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
    except UnicodeDecodeError:
        raise CliError(f"{path} is no text in UTF-8; it has to be CSV or JSON.") from None
    except (ValueError, csv.Error) as error:
        raise CliError(f"{path}: {error}") from None


def _rows(lines: Iterable[str]) -> Iterator[_Row]:
    """Objects of JSON lines or of a list, or rows of CSV, as the first line shows."""
    lines = iter(lines)
    first = next((line for line in lines if line.strip()), "")
    if first.lstrip().startswith("["):
        yield from _listed(first + "".join(lines))
    elif first.lstrip().startswith("{"):
        for number, line in enumerate(_again(first, lines), 1):
            if line.strip():
                yield f"line {number}", _object(_json(line, number), f"line {number}")
    else:
        reader = csv.DictReader(_again(first, lines))
        for row in reader:
            if None in row:
                raise ValueError(f"line {reader.line_num} has more cells than the header has columns")
            yield f"line {reader.line_num}", row


def _listed(text: str) -> Iterator[_Row]:
    found = _json(text, 1)
    for number, row in enumerate(found if isinstance(found, list) else [found], 1):
        yield f"row {number}", _object(row, f"row {number}")


def _json(text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = line + error.lineno - 1
        raise ValueError(f"line {at} is no whole JSON: {error.msg.lower()} (column {error.colno})") from None


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no object such as {{...}}")
    return row


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _account(rows: Iterator[_Row], named: Mapping[str, str]) -> Account:
    figures: dict[Place, Figures] = {}
    days: set[str] = set()
    columns: dict[str, tuple[str, ...]] = {}
    for where, row in rows:
        columns = columns or _columns(row, named)
        try:
            day = _day(row, columns["day"][0])
            place = (_text(row, columns["request_id"][0]),) if "request_id" in columns else (day, _model(row, columns))
            sums = {name: _sum(row, columns[name], name) for name in COUNTED if name in columns}
        except ValueError as error:
            raise ValueError(f"{where}, {error}") from None
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
    return _text(row, columns["model"][0])


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None or not str(value).strip():
        raise ValueError(f"column {column}: there is nothing in it")
    return str(value).strip()


def _sum(row: Mapping[str, Any], names: Iterable[str], field: str) -> Decimal:
    found = Decimal(0)
    for name in names:
        text = str(row.get(name) if row.get(name) is not None else "").strip().removeprefix("$")
        if not text:
            continue
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"column {name}: {text[:40]!r} is no number; write it as 1234 or 12.50")
        number = Decimal(text.replace(",", ""))
        if number < 0 and field != "cost":
            raise ValueError(f"column {name}: {text[:40]} is negative, and no count of tokens is")
        found += number
    return found


def _day(row: Mapping[str, Any], column: str) -> str:
    """The UTC day of a date, a time, or seconds or milliseconds of Unix time."""
    text = _text(row, column)
    try:
        if not re.fullmatch(r"\d{9,14}(\.\d{1,9})?", text, re.ASCII):
            at = datetime.fromisoformat(text)
            at = at.astimezone(UTC) if at.tzinfo else at
        else:
            number = float(text)
            at = datetime.fromtimestamp(number / 1000 if number > _MILLIS else number, UTC)
        if not 1970 <= at.year < 9000:
            raise ValueError
        return at.date().isoformat()
    except (ValueError, OverflowError):
        wanted = "2026-11-23, 2026-11-23T12:00:00Z or seconds of Unix time"
        raise ValueError(f"column {column}: {text[:40]!r} is no day; write it as {wanted}") from None
