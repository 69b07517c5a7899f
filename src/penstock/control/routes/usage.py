"""What was used and what it costs: sums over the ledger, and its single entries. Read only."""

from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from penstock.control import paging
from penstock.control.context import ControlContext
from penstock.control.fields import only
from penstock.control.guard import Guard
from penstock.control.names import invalid, is_id
from penstock.control.present import Named
from penstock.control.routes.audit import parse_time
from penstock.domain.access import Permission
from penstock.domain.ledger import LedgerEntry, UsageRow
from penstock.domain.money import shown
from penstock.store.errors import NotFoundError
from penstock.store.metering.usage import GROUPS, Chosen, Cursor, UsageStore
from penstock.store.nouns.stores import Stores
from penstock.web.api import ApiError, Doc, Reply, Request, Route

_LONGEST = 256
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_QUERY = {
    "since": "Only what was admitted from a time on: ISO 8601, a date, or how long ago, such as 24h",
    "until": "Only what was admitted before a time",
    "model": "Only of a model, by its id or an alias",
    "key": "Only of a key, by its id or prefix",
}
_REQUEST = {"request": "Only this request, by its x-request-id"}
_APP = {"app": "Only of an app: its id or name; one that is gone, by its id or the name that it had"}
_BY = {"by": f"One sum for each of these, together: any of {', '.join(GROUPS)}, separated by commas"}


class KeyRef(Struct, frozen=True):
    """A key, which may be gone."""

    id: str
    prefix: str


class IdRef(Struct, frozen=True):
    """An object, which may be gone."""

    id: str


class UsageSum(Struct, frozen=True, kw_only=True):
    """Sums of one group in one currency; the group's fields are those that ``by`` names. Money is text; ``cost`` is
    what the upstreams ask, as far as it is known and in the same currency."""

    app: Named | UnsetType = UNSET
    key: KeyRef | UnsetType = UNSET
    model: str | UnsetType = UNSET
    target: str | UnsetType | None = UNSET
    day: date | UnsetType = UNSET
    currency: str
    requests: int
    failed: int
    estimated: int
    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    amount: str
    cost: str


class Tokens(Struct, frozen=True, kw_only=True):
    """Token counts in one convention for all vendors: cached reads and cache writes are parts of the input, reasoning
    is a part of the output."""

    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int


class UsageAttempt(Struct, frozen=True, kw_only=True):
    """One upstream call. Times are milliseconds from its begin."""

    target: str
    outcome: str
    first_token_ms: float | None
    total_ms: float


class UsageEntry(Struct, frozen=True, kw_only=True):
    """One admitted request. ``cursor`` is its place in the order of admission; ``stand_in_id`` the embedded model that
    answered in place of a provider; ``raw_usage`` the upstream's own account. Times are milliseconds from admission."""

    request_id: str
    cursor: str
    seq: int
    hash: str
    app: Named
    addon: IdRef
    attachment: IdRef
    key: KeyRef
    asked: str
    model: str
    target: str | None
    stand_in: bool
    stand_in_id: str | None
    stream: bool
    attempts: list[UsageAttempt]
    outcome: str
    cached_answer: bool
    estimated: bool
    usage: Tokens
    raw_usage: Any
    price_version: str | None
    amount: str
    currency: str
    cost: str | None
    cost_currency: str | None
    admitted_at: datetime
    settled_at: datetime
    queued_ms: float | None
    first_token_ms: float | None
    total_ms: float


class UsageRoutes:
    """/usage and /apps/APP/usage."""

    def __init__(self, stores: Stores, context: ControlContext) -> None:
        self._context = context
        self._guard = Guard(stores)
        self._stores = stores

    def routes(self) -> list[Route]:
        """The table of this noun."""
        sums, rows = list[UsageSum], list[UsageEntry]
        every = Doc("usage.sums", "Sum up usage, of the apps that the caller may read", sums, query=_BY | _APP | _QUERY)
        of_app = Doc("usage.sums_of_app", "Sum up the usage of an app", sums, query=_BY | _QUERY)
        entries = Doc(
            "usage.entries",
            "List single requests, of the apps that the caller may read; by seq, of the whole ledger",
            rows,
            ranges=("cursor", "seq"),
            query=_APP | _QUERY | _REQUEST,
        )
        entries_of_app = Doc(
            "usage.entries_of_app", "List single requests of an app", rows, ranges=("cursor",), query=_QUERY | _REQUEST
        )
        table = [
            ("/usage", self.sums, every),
            ("/apps/{app}/usage", self.sums, of_app),
            ("/usage/entries", self.entries, entries),
            ("/apps/{app}/usage/entries", self.entries, entries_of_app),
        ]
        return [
            Route("GET", path, handler, Permission.APP_READ, doc=msgspec.structs.replace(doc, refusals=(404, 422)))
            for path, handler, doc in table
        ]

    def sums(self, request: Request) -> Reply:
        """GET /usage and GET /apps/APP/usage."""
        self._only(request, _BY)
        by = [name.strip() for name in request.query.get("by", "").split(",") if name.strip()]
        if unknown := [name for name in by if name not in GROUPS]:
            raise invalid(f"by: {unknown[0][:40]!r} is none of {', '.join(GROUPS)}.")
        rows = UsageStore(self._stores.db).sums(self._chosen(request), tuple(dict.fromkeys(by)))
        return Reply(200, [_sum(row) for row in rows])

    def entries(self, request: Request) -> Reply:
        """GET /usage/entries and GET /apps/APP/usage/entries, oldest first."""
        self._only(request, _REQUEST)
        chosen, page = self._chosen(request), paging.page_of(request)
        if page.by == "seq" and chosen != Chosen():
            raise invalid(
                "Range: seq goes through the whole ledger; with app, key, model, request, since or until, use cursor."
            )
        try:
            rows = UsageStore(self._stores.db).entries(chosen, page)
        except ValueError as error:
            raise invalid(f"Range: {error}.") from None
        return paging.reply(request, page, rows, _entry)

    def _chosen(self, request: Request) -> Chosen:
        since, until = _moment(request, "since"), _moment(request, "until")
        if since is not None and until is not None and since >= until:
            raise invalid("until must be later than since.")
        of = self._of(request)
        key, model, request_id = (_text(request, name) for name in ("key", "model", "request"))
        usage = UsageStore(self._stores.db)
        if key is not None:
            of_key = msgspec.structs.replace(of, key=key)
            if not usage.has_key(of_key) and not usage.knows(of_key):
                raise _unknown("key", key)
        if model is not None:
            found = self._context.catalogue.find(model)
            model = found.id if found else model
            if found is None and not usage.knows(msgspec.structs.replace(of, model=model)):
                raise invalid(f"model: {model[:100]!r} is not a model, neither in the catalogue nor in the ledger.")
        return msgspec.structs.replace(of, key=key, model=model, request_id=request_id, since_us=since, until_us=until)

    def _of(self, request: Request) -> Chosen:
        """Whose usage is asked for. Raises ApiError and NotFoundError for what was never there."""
        if "app" in request.params:
            return Chosen(app_id=self._guard.app(request, request.params["app"]).id)
        visible_to = self._guard.visible_to(request, Permission.USAGE_READ)
        app = _text(request, "app")
        if app is None:
            return Chosen(visible_to=visible_to)
        try:
            return Chosen(app_id=self._guard.app(request, app).id)
        except NotFoundError:
            # The ledger outlives the app, for those who may read all of it.
            if visible_to is not None:
                raise
            gone = Chosen(app_id=app) if is_id(app) else Chosen(app_name=app)
            if not UsageStore(self._stores.db).knows(gone):
                raise _unknown("app", app) from None
            return gone

    def _only(self, request: Request, more: Collection[str]) -> None:
        only(request, (*_QUERY, *more, *(() if "app" in request.params else _APP)))


def _unknown(noun: str, ref: str) -> ApiError:
    return ApiError(404, "not_found", f"There is no {noun} {ref[:100]}, neither now nor in the ledger.", resource=noun)


def _text(request: Request, name: str) -> str | None:
    text = request.query.get(name)
    if text is not None and (not 0 < len(text) <= _LONGEST or "\0" in text):
        raise invalid(f"{name} must have 1 to {_LONGEST} characters.")
    return text


def _moment(request: Request, name: str) -> int | None:
    """Microseconds of Unix time."""
    text = request.query.get(name)
    return None if text is None else (parse_time(text, name) - _EPOCH) // timedelta(microseconds=1)


def _sum(row: UsageRow) -> UsageSum:
    group: dict[str, Any] = {name: row.group[name] for name in ("model", "day") if name in row.group}
    if "day" in group:
        group["day"] = date.fromisoformat(group["day"])
    if "target" in row.group:
        group["target"] = row.group["target"] or None
    if "app_id" in row.group:
        group["app"] = Named(row.group["app_id"], row.group["app_name"])
    if "key_id" in row.group:
        group["key"] = KeyRef(row.group["key_id"], row.group["key_prefix"])
    same = {name: getattr(row, name) for name in UsageSum.__struct_fields__ if hasattr(row, name)}
    return UsageSum(**group, **same, amount=shown(row.amount_nanos), cost=shown(row.cost_nanos))


def _entry(entry: LedgerEntry) -> UsageEntry:
    same = ("request_id", "seq", "asked", "model", "target", "stream", "outcome", "cached_answer", "price_version")
    more = ("currency", "cost_currency", "queued_ms", "total_ms")
    return UsageEntry(
        **{name: getattr(entry, name) for name in (*same, *more)},
        cursor=str(Cursor(entry.admitted_us, entry.seq)),
        hash=entry.hash.hex(),
        app=Named(entry.app_id, entry.app_name),
        addon=IdRef(entry.addon_id),
        attachment=IdRef(entry.attachment_id),
        key=KeyRef(entry.key_id, entry.key_prefix),
        stand_in=entry.stand_in is not None,
        stand_in_id=entry.stand_in,
        attempts=[UsageAttempt(target=t, outcome=o, first_token_ms=f, total_ms=e) for t, o, f, e in _attempts(entry)],
        estimated=entry.usage.estimated,
        usage=Tokens(**{name: getattr(entry.usage, name) for name in Tokens.__struct_fields__}),
        raw_usage=_raw(entry.raw_usage),
        amount=shown(entry.amount_nanos),
        cost=None if entry.cost_nanos is None else shown(entry.cost_nanos),
        admitted_at=_EPOCH + timedelta(microseconds=entry.admitted_us),
        settled_at=_EPOCH + timedelta(microseconds=entry.settled_us),
        first_token_ms=entry.first_event_ms,
    )


def _attempts(entry: LedgerEntry) -> list[tuple[str, str, float | None, float]]:
    return msgspec.json.decode(entry.attempts, type=list[tuple[str, str, float | None, float]])


def _raw(text: str | None) -> Any:
    """The upstream's JSON; what was cut or is none, as the text that it is."""
    try:
        return None if text is None else msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
