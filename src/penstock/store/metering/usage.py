"""Reads the ledger: sums from its days, single entries from its indexes. No question reads all entries."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from operator import ge, gt, le, lt
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    Subquery,
    and_,
    case,
    func,
    literal_column,
    or_,
    select,
    union_all,
)

from penstock.domain.ledger import DAY_US, NOT_FAILED, LedgerEntry, UsageRow
from penstock.store.database import Database
from penstock.store.governance import ledger_days, ledger_entries, ledger_head
from penstock.store.metering.ledger import entry_of
from penstock.store.metering.seals import DAY_SUMS
from penstock.store.paging import Page, cut
from penstock.store.schema import api_keys, apps, attachments, collaborators

# By what sums can be grouped: the column that tells the groups apart.
GROUPS = {"app": "app_id", "key": "key_id", "model": "model", "target": "target", "day": "day"}
# What else each group is called; the newest word counts.
_LABELS = {"app": "app_name", "key": "key_prefix"}
_TOKENS = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
# Apps of one operator that are asked for one by one, and how many of them in one statement.
_FEW, _AT_ONCE = 1000, 100
_EPOCH = date(1970, 1, 1)

_days, _entries = ledger_days.c, ledger_entries.c
# Columns of the days as an entry has them. Literals, for a parameter is another one at each of its places.
_MADE: dict[str, ColumnElement[Any]] = {
    "target": func.coalesce(_entries.target, literal_column("''")),
    "day": _entries.admitted_us // literal_column(str(DAY_US), BigInteger),
}
_COUNTED: dict[str, ColumnElement[Any]] = {
    "requests": func.count(),
    "failed": func.sum(case((_entries.outcome.in_(NOT_FAILED), 0), else_=1)),
    "estimated": func.sum(case((_entries.estimated, 1), else_=0)),
    **{name: func.sum(_entries[name]) for name in (*_TOKENS, "amount_nanos")},
    "cost_nanos": func.sum(
        case((_entries.cost_currency == _entries.currency, func.coalesce(_entries.cost_nanos, 0)), else_=0)
    ),
}


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """Which usage: of an app by id or, when it is gone, by the name that it had; of a key by id or prefix; of a model;
    admitted from ``since_us`` on and before ``until_us`` (microseconds of Unix time). ``visible_to`` is the operator,
    by id, whose apps alone count; None for one who sees all. ``request_id`` chooses among single entries only."""

    app_id: str | None = None
    app_name: str | None = None
    key: str | None = None
    model: str | None = None
    request_id: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    visible_to: str | None = None


class Cursor(NamedTuple):
    """Where an entry stands in the order of admission."""

    admitted_us: int
    seq: int

    def __str__(self) -> str:
        return f"{self.admitted_us}-{self.seq}"


def cursor(text: str) -> Cursor:
    """A place as ``Cursor`` writes it. Raises ValueError."""
    at, _, seq = text.partition("-")
    # int() takes more than digits, and no column takes more than these.
    if not (at.isascii() and at.isdigit() and seq.isascii() and seq.isdigit() and len(at) < 19 and len(seq) < 19):
        raise ValueError("a cursor is two numbers, such as 1795426436123456-42")
    return Cursor(int(at), int(seq))


class _Span(NamedTuple):
    """Days since 1970, ``first`` included and ``end`` not, each None without a bound."""

    first: int | None
    end: int | None


class UsageStore:
    """The ledger for readers."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def sums(self, chosen: Chosen, by: Sequence[str] = ()) -> list[UsageRow]:
        """Sums by all of ``by`` (of GROUPS) together and by currency, in that order. Whole days come from the sums by
        day, which outlive the entries; where a bound cuts through a day, its entries are summed. A day whose entries
        are not all kept any more counts whole."""
        span, cuts = _parts(chosen.since_us, chosen.until_us)
        found: dict[tuple[Any, ...], UsageRow] = {}
        with self._db.read() as connection:
            spans = [] if span is None else [span]
            for since, until in cuts:
                if _is_kept(connection, day := since // DAY_US):
                    at = (_entries.admitted_us >= since, _entries.admitted_us < until)
                    _merge(found, _rows(connection, _of_entries(chosen, by).where(*at), by))
                else:
                    spans.append(_Span(day, day + 1))
            for each in spans:
                _merge(found, _rows(connection, _of_days(chosen, by).where(*_within(each)), by))
            return _named(connection, [found[group] for group in sorted(found)])

    def entries(self, chosen: Chosen, page: Page) -> list[LedgerEntry]:
        """One page of entries by ``cursor``, the order of their admission, or by ``seq`` through the whole ledger: for
        that, ``chosen`` must be empty. Raises ValueError for a cursor that is none."""
        with self._db.read() as connection:
            if page.by == "seq":
                wanted = cut(select(_entries.admitted_us, _entries.seq), page, {"seq": _entries.seq})
                places = [Cursor(*row) for row in connection.execute(wanted)]
            else:
                places = _places(connection, chosen, page)
            rows = connection.execute(select(ledger_entries).where(_entries.seq.in_([place.seq for place in places])))
            by_seq = {row.seq: row for row in rows}
        return [entry_of(by_seq[place.seq]) for place in places]

    def walk(self, since_us: int, until_us: int, *, at_once: int = 5000) -> Iterator[list[LedgerEntry]]:
        """All entries admitted in a period, in lists of so many, each of one transaction of its own."""
        page = Page(by="cursor", size=at_once - 1)
        while found := self.entries(Chosen(since_us=since_us, until_us=until_us), page):
            yield found
            last = Cursor(found[-1].admitted_us, found[-1].seq)
            page = Page(by="cursor", first=str(last), after=True, size=at_once - 1)

    def knows(self, chosen: Chosen) -> bool:
        """Whether the ledger has anything at all of that app, key and model, whenever."""
        with self._db.read() as connection:
            found = select(_days.day).where(*_filters(_days, chosen)).limit(1)
            return connection.execute(found).first() is not None

    def has_key(self, chosen: Chosen) -> bool:
        """Whether there is a key of that id or prefix, on that app or those apps."""
        query = select(api_keys.c.id).join(attachments, attachments.c.id == api_keys.c.attachment_id)
        query = query.where((api_keys.c.id == chosen.key) | (api_keys.c.prefix == chosen.key))
        if chosen.app_id is not None:
            query = query.where(attachments.c.app_id == chosen.app_id)
        if chosen.visible_to is not None:
            query = query.where(attachments.c.app_id.in_(_theirs(chosen.visible_to)))
        with self._db.read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def models_at(self, price_version: str) -> list[str]:
        """The models that were ever charged by a version of prices. Reads all entries: for upkeep."""
        query = select(_entries.model).where(_entries.price_version == price_version).distinct()
        with self._db.read() as connection:
            return sorted(connection.execute(query).scalars())


def _parts(since_us: int | None, until_us: int | None) -> tuple[_Span | None, list[tuple[int, int]]]:
    """A period as its whole days, if it has any, and the pieces of days at its ends."""
    first = None if since_us is None else -(-since_us // DAY_US)
    end = None if until_us is None else until_us // DAY_US
    if since_us is not None and until_us is not None:
        if since_us >= until_us:
            return None, []
        if first is not None and end is not None and first > end:
            return None, [(since_us, until_us)]
    cuts = []
    if since_us is not None and first is not None and since_us < first * DAY_US:
        cuts.append((since_us, first * DAY_US))
    if until_us is not None and end is not None and end * DAY_US < until_us:
        cuts.append((end * DAY_US, until_us))
    return (None if first is not None and first == end else _Span(first, end)), cuts


def _is_kept(connection: Connection, day: int) -> bool:
    """Whether all entries of a day are still there."""
    return bool(day * DAY_US >= connection.execute(select(ledger_head.c.pruned_us)).scalar_one())


def _within(span: _Span) -> list[ColumnElement[bool]]:
    bounds = []
    if span.first is not None:
        bounds.append(_days.day >= span.first)
    if span.end is not None:
        bounds.append(_days.day < span.end)
    return bounds


def _of_days(chosen: Chosen, by: Sequence[str]) -> Select[Any]:
    columns = {name: _days[GROUPS[name]] for name in by}
    sums = [func.sum(_days[name]).label(name) for name in DAY_SUMS]
    labels = [func.max(_days[_LABELS[name]]).label(_LABELS[name]) for name in by if name in _LABELS]
    query = select(*columns.values(), _days.currency, *labels, *sums).group_by(*columns.values(), _days.currency)
    return query.where(*_filters(_days, chosen))


def _of_entries(chosen: Chosen, by: Sequence[str]) -> Select[Any]:
    columns = {name: _MADE[name] if name in _MADE else _entries[GROUPS[name]] for name in by}
    groups = [column.label(GROUPS[name]) for name, column in columns.items()]
    sums = [_COUNTED[name].label(name) for name in DAY_SUMS]
    labels = [func.max(_entries[_LABELS[name]]).label(_LABELS[name]) for name in by if name in _LABELS]
    query = select(*groups, _entries.currency, *labels, *sums).group_by(*columns.values(), _entries.currency)
    return query.where(*_filters(_entries, chosen))


def _filters(columns: Any, chosen: Chosen) -> list[ColumnElement[bool]]:
    """What ``chosen`` says of anything but time, for either table."""
    found = _subject(columns, chosen)
    if chosen.visible_to is not None:
        found.append(columns.app_id.in_(_theirs(chosen.visible_to)))
    return found


def _subject(columns: Any, chosen: Chosen) -> list[ColumnElement[bool]]:
    found = []
    if chosen.app_id is not None:
        found.append(columns.app_id == chosen.app_id)
    if chosen.app_name is not None:
        found.append(columns.app_name == chosen.app_name)
    if chosen.key is not None:
        # An id is longer than any prefix.
        found.append((columns.key_id if len(chosen.key) == 36 else columns.key_prefix) == chosen.key)
    if chosen.model is not None:
        found.append(columns.model == chosen.model)
    if chosen.request_id is not None and columns is _entries:
        found.append(columns.request_id == chosen.request_id)
    return found


def _theirs(operator_id: str) -> Any:
    """The ids of the apps that an operator owns or shares."""
    owned = select(apps.c.id).where(apps.c.owner_id == operator_id)
    return owned.union_all(select(collaborators.c.app_id).where(collaborators.c.operator_id == operator_id))


def _rows(connection: Connection, query: Select[Any], by: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], UsageRow]]:
    for row in connection.execute(query):
        place = (*(getattr(row, GROUPS[name]) for name in by), row.currency)
        sums = {name: int(getattr(row, name)) for name in DAY_SUMS}
        yield place, UsageRow(group=_group(row, by), currency=row.currency, **sums)


def _group(row: Row[Any], by: Sequence[str]) -> dict[str, str]:
    group = {GROUPS[name]: str(getattr(row, GROUPS[name])) for name in by}
    group |= {_LABELS[name]: getattr(row, _LABELS[name]) for name in by if name in _LABELS}
    if "day" in group:
        group["day"] = (_EPOCH + timedelta(days=int(group["day"]))).isoformat()
    return group


def _merge(found: dict[tuple[Any, ...], UsageRow], rows: Iterable[tuple[tuple[Any, ...], UsageRow]]) -> None:
    for place, row in rows:
        had = found.get(place)
        sums = {name: getattr(row, name) + (getattr(had, name) if had else 0) for name in DAY_SUMS}
        found[place] = msgspec.structs.replace(row, **sums)


def _named(connection: Connection, rows: list[UsageRow]) -> list[UsageRow]:
    """With the names that apps have now; one that is gone keeps the last it had."""
    if not rows or "app_id" not in rows[0].group:
        return rows
    ids = sorted({row.group["app_id"] for row in rows})
    names: dict[str, str] = {}
    for first in range(0, len(ids), _FEW):
        query = select(apps.c.id, apps.c.name).where(apps.c.id.in_(ids[first : first + _FEW]))
        names |= {row.id: row.name for row in connection.execute(query)}
    for row in rows:
        row.group["app_name"] = names.get(row.group["app_id"], row.group["app_name"])
    return rows


def _places(connection: Connection, chosen: Chosen, page: Page) -> list[Cursor]:
    """Where the entries of a page stand, one more than its size where there are more."""
    near = _near(connection, chosen)
    if near is None:
        return []
    query = _cut_by_time(select(_entries.admitted_us, _entries.seq).where(*_subject(_entries, near)), near, page)
    if near.visible_to is None:
        return [Cursor(*row) for row in connection.execute(query)]
    theirs = connection.execute(_theirs(near.visible_to).limit(_FEW + 1)).scalars().all()
    if len(theirs) > _FEW:
        query = query.where(_entries.app_id.in_(_theirs(near.visible_to)))
        return [Cursor(*row) for row in connection.execute(query)]
    found: list[Cursor] = []
    # Each app's own part of its index, and of those the first: no database walks several parts in step by itself.
    for first in range(0, len(theirs), _AT_ONCE):
        parts = [_of_app(query, app) for app in sorted(theirs)[first : first + _AT_ONCE]]
        found += [Cursor(*row) for row in connection.execute(union_all(*(select(part) for part in parts)))]
    return sorted(set(found), reverse=page.descending)[: page.size + 1]


def _of_app(query: Select[Any], app_id: str) -> Subquery:
    return query.where(_entries.app_id == app_id).subquery()


def _near(connection: Connection, chosen: Chosen) -> Chosen | None:
    """``chosen`` with the days in which its key or model was used at all, and the app, for entries are found by these;
    None when there are none."""
    if chosen.key is None and chosen.model is None and chosen.app_name is None:
        return chosen
    ends = (func.min(_days.day), func.max(_days.day), func.min(_days.app_id), func.max(_days.app_id))
    first, last, app_id, other = connection.execute(select(*ends).where(*_filters(_days, chosen))).one()
    if first is None:
        return None
    since, until = first * DAY_US, (last + 1) * DAY_US
    return msgspec.structs.replace(
        chosen,
        app_id=app_id if app_id == other else chosen.app_id,
        # Whose it is has been asked of the days.
        visible_to=None if app_id == other else chosen.visible_to,
        since_us=since if chosen.since_us is None else max(since, chosen.since_us),
        until_us=until if chosen.until_us is None else min(until, chosen.until_us),
    )


def _cut_by_time(query: Select[Any], chosen: Chosen, page: Page) -> Select[Any]:
    at, seq = _entries.admitted_us, _entries.seq
    if chosen.since_us is not None:
        query = query.where(at >= chosen.since_us)
    if chosen.until_us is not None:
        query = query.where(at < chosen.until_us)
    if page.first is not None:
        query = query.where(_beyond(cursor(str(page.first)), up=not page.descending, whole=not page.after))
    if page.last is not None:
        query = query.where(_beyond(cursor(str(page.last)), up=page.descending, whole=True))
    order = (at.desc(), seq.desc()) if page.descending else (at, seq)
    return query.order_by(*order).limit(page.size + 1)


def _beyond(place: Cursor, *, up: bool, whole: bool) -> ColumnElement[bool]:
    """Which entries stand after a place, or before it; ``whole`` with the one at it."""
    at, seq = _entries.admitted_us, _entries.seq
    beside = (ge if whole else gt) if up else (le if whole else lt)
    # The first half alone is what an index finds.
    return and_(
        (ge if up else le)(at, place.admitted_us),
        or_((gt if up else lt)(at, place.admitted_us), beside(seq, place.seq)),
    )
