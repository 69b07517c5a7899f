"""What an object may do: limits and budgets, and the leases by which gateway workers share them."""

from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Literal

import msgspec

UNLIMITED = -1
Period = Literal["day", "week", "month", "total"]
MINUTE_S = 60


class Scope(StrEnum):
    """The kinds of objects that have limits and budgets, from the narrowest to the widest."""

    KEY = "key"
    ATTACHMENT = "attachment"
    ADDON = "addon"
    APP = "app"
    MODEL = "model"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds; None where nothing is said, so that the next more general row counts, and ``UNLIMITED`` for none.

    The two per minute hold in every sliding window of 60 seconds; ``max_tokens`` bounds the output of one request.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    max_tokens: int | None = None


class LimitRow(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one object, by id (of a model: its catalogue id); ``model`` is empty for all models together. ``id`` is
    the row's own, which the store gives."""

    scope: Scope
    subject_id: str
    limits: Limits
    model: str = ""
    id: str = ""
    updated_by: str = ""
    updated_at: datetime | None = None


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """So much money for one object in each calendar period (UTC; weeks begin on Monday), in 10^-9 of ``currency``.

    ``alerts`` are percentages at which crossing is told, once in a period. Spend in another currency does not count.
    """

    id: str
    scope: Scope
    subject_id: str
    period: Period
    amount_nanos: int
    currency: str = "USD"
    model: str = ""
    alerts: tuple[int, ...] = (50, 80, 100)
    origin: Literal["operator", "default"] = "operator"
    updated_by: str = ""
    updated_at: datetime | None = None


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """How far a budget is used in the period that began on ``starts_on`` (empty: the whole time): what the ledger has,
    and what requests under way hold beside it. ``alerted`` is the highest threshold that was told in it, in percent,
    0 for none."""

    budget: Budget
    starts_on: str
    spent_nanos: int = 0
    held_nanos: int = 0
    alerted: int = 0


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How an app is treated in queues (``weight``, ``reserve_percent``), whether its answers are cached and for how
    long, and for how many days its prompts and answers are kept; None: not at all."""

    weight: int = 1
    reserve_percent: int = 0
    cache_ttl_s: int | None = None
    content_days: int | None = None


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What every gateway worker knows at all times: limits and budgets of models, and apps with a reserved share
    (percent by app id)."""

    revision: int
    limits: tuple[LimitRow, ...] = ()
    budgets: tuple[Budget, ...] = ()
    reserves: dict[str, int] = {}


class Counter(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that workers share by leases: ``limit`` units of a rate in each minute, of permits at once, or of
    money (10^-9) in a budget's period. ``budget`` is set for money; ``starts_on`` is then the period's."""

    id: str
    kind: Literal["rate", "permit", "money"]
    limit: int
    budget: Budget | None = None
    starts_on: str = ""


class LeaseAsk(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of one counter in an exchange with the store.

    ``used`` units of a rate were used since the last exchange, and ``returned`` ones that it told of within the last
    minute were not used after all. It keeps ``keep`` of the units of a rate that it holds, and has so many permits in
    use or kept. Of money it gives back ``returned``; ``keep`` is what its requests hold, for a lease that was lost.

    It ``wants`` so many more: for ``needs`` of them callers wait, the others are to have in stock. ``least`` is what it
    cannot do with less of (all or nothing below it). An ask with the ``seq`` of the one before is that one again, whose
    answer was lost: it is answered alike and done once.
    """

    counter: Counter
    seq: int
    used: int = 0
    returned: int = 0
    keep: int = 0
    wants: int = 0
    needs: int = 0
    least: int = 0


class LeaseGrant(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: ``granted`` more units, with which the worker has ``holds``; ``left`` units that nobody holds or has
    used; ``spent`` is what a budget's ledger has, and ``held`` what others hold; ``frees_in_s`` is after how many
    seconds what was refused comes back at the latest, None when that is not known, and ``full_in_s`` after how many
    all that was used of a rate has come back."""

    granted: int
    left: int
    holds: int = 0
    spent: int = 0
    held: int = 0
    frees_in_s: float | None = None
    full_in_s: float = 0.0


def granted_of(ask: LeaseAsk, free: int) -> int:
    """How many of the free units an ask gets: all that its callers wait for, or what there is if that is enough for
    one of them, and for its stock no more than a quarter of the rest, so that some is left for others."""
    if ask.wants <= 0 or free < max(ask.least, 1):
        return 0
    needed = min(max(ask.needs, ask.least), ask.wants, free)
    stock = (free - needed) // 4 if needed else max(1, free // 4)
    return min(ask.wants, needed + stock)


def period_start(period: Period, at: datetime) -> str:
    """The first day of the period around a time, as ``2026-11-01``; empty for the whole time."""
    day = at.astimezone(UTC).date()
    if period == "total":
        return ""
    if period == "week":
        day -= timedelta(days=day.weekday())
    elif period == "month":
        day = day.replace(day=1)
    return day.isoformat()


def period_end(period: Period, at: datetime) -> datetime | None:
    """When the period around a time ends, and the next begins; None for the whole time."""
    if period == "total":
        return None
    start = date.fromisoformat(period_start(period, at))
    if period == "day":
        after = start + timedelta(days=1)
    elif period == "week":
        after = start + timedelta(days=7)
    else:
        after = (start + timedelta(days=31)).replace(day=1)
    return datetime(after.year, after.month, after.day, tzinfo=UTC)


def period_days(period: Period, starts_on: str) -> tuple[int, int] | None:
    """The first day of the period that begins so and the first behind it, in days since 1970; None for the whole
    time."""
    if not starts_on:
        return None
    start = datetime.fromisoformat(starts_on).replace(tzinfo=UTC)
    end = period_end(period, start)
    assert end is not None
    return int(start.timestamp()) // 86_400, int(end.timestamp()) // 86_400
