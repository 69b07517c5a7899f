"""Times as people write them on the command line: ``30d``, ``1h30m``, or a date."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import click

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:\d{1,9}[wdhms])+", re.ASCII)
_PART = re.compile(r"(\d+)([wdhms])", re.ASCII)


def parse_duration(text: str) -> int:
    """Seconds of ``90s``, ``10m``, ``12h``, ``30d``, ``2w`` or several in a row; ``0`` needs no unit. Raises
    BadParameter."""
    if text == "0":
        return 0
    if not _DURATION.fullmatch(text):
        raise click.BadParameter(f"{text!r} is no duration; write it as 90s, 10m, 12h, 30d or 1h30m.")
    return sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def at_most(longest: str) -> Callable[[str], int]:
    """``parse_duration`` with a bound. The type of an option, so that a refusal names it."""

    def parse(text: str) -> int:
        seconds = parse_duration(text)
        if seconds > parse_duration(longest):
            raise click.BadParameter(f"{text} is too long; {longest} is the longest.")
        return seconds

    return parse


def parse_expiry(text: str) -> dict[str, int | str]:
    """The field of the Platform API for a duration from now, or for a date or time (UTC where no zone is given).
    Raises BadParameter."""
    if _DURATION.fullmatch(text):
        return {"expires_in": at_most("3650d")(text)}
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is neither a duration such as 30d nor a date such as 2030-12-31."
        raise click.BadParameter(message) from None
    return {"expires_at": (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()}


def duration_text(seconds: int) -> str:
    """``1h30m``, as parse_duration reads it."""
    shown = ""
    for unit, length in _UNITS.items():
        count, seconds = divmod(seconds, length)
        shown += f"{count}{unit}" if count else ""
    return shown or "0s"


def end_text(at: str | None) -> str:
    """When something ends, a time of the Platform API, for a table; it says so when that is past."""
    if at is None:
        return "never"
    return f"{at} (expired)" if datetime.fromisoformat(at) <= datetime.now(UTC) else at


def parse_moment(text: str) -> int:
    """Microseconds of Unix time of a date or time (UTC where no zone is given), or of how long ago. Raises
    BadParameter."""
    if _DURATION.fullmatch(text):
        return int((datetime.now(UTC).timestamp() - parse_duration(text)) * 1_000_000)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a date such as 2026-11-01 nor how long ago, as 30d.") from None
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)
