"""Limits: listed with where they come from, set field by field, and removed."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from penstock.control import paging
from penstock.control.context import ControlContext
from penstock.control.fields import Text, body_of, only, read, required
from penstock.control.guard import Guard, actor_of
from penstock.control.lifted import UNLIMITED_WORD, bounds
from penstock.control.names import invalid
from penstock.control.present import Id, Named, moment
from penstock.control.routes.bounds.objects import (
    OF_MODEL,
    ON_APP,
    Names,
    Object,
    OnApp,
    Place,
    Places,
    ScopeName,
    describe,
    known_or_gone,
    shown,
    wanted_by,
)
from penstock.control.trail import record
from penstock.domain.access import Permission
from penstock.domain.limits import UNLIMITED, LimitRow, Limits
from penstock.domain.platform import STANDARD_PLAN, Actor
from penstock.store.errors import NotFoundError
from penstock.store.nouns.stores import Stores
from penstock.web.api import Doc, Reply, Request, Route

_MOST = 10**12
FIELDS = Limits.__struct_fields__

Bound = int | Literal["unlimited"] | None
_Number = Annotated[int, Meta(ge=1, le=_MOST)]
_Unlimited = Annotated[Text, Meta(extra_json_schema={"enum": [UNLIMITED_WORD]})]
AskedBound = _Number | _Unlimited | None | UnsetType


class LimitChange(OnApp, frozen=True, kw_only=True):
    """Limits to set: a number, ``unlimited``, or null to say nothing; what is left out stays as it is."""

    requests_per_minute: AskedBound = UNSET
    tokens_per_minute: AskedBound = UNSET
    concurrent_requests: AskedBound = UNSET
    max_tokens: AskedBound = UNSET


class ModelLimitChange(Struct, frozen=True, kw_only=True):
    """The same for a model, whoever uses it."""

    model: Text
    requests_per_minute: AskedBound = UNSET
    tokens_per_minute: AskedBound = UNSET
    concurrent_requests: AskedBound = UNSET
    max_tokens: AskedBound = UNSET


class Limit(Struct, frozen=True, kw_only=True):
    """What an object may do; of one ``model``, or of all together. A null says nothing: the default holds."""

    id: Id
    object: Object
    app: Named | None
    model: str | None
    requests_per_minute: Bound
    tokens_per_minute: Bound
    concurrent_requests: Bound
    max_tokens: Bound
    updated_by: str
    updated_at: datetime


class DefaultLimit(Struct, frozen=True, kw_only=True):
    """What each object of a type may do unless a row of its own says otherwise, field by field. ``source`` is the
    configuration, or what Heroku's plans allow each add-on; the configuration counts first."""

    object_type: ScopeName
    model: str | None
    requests_per_minute: Bound
    tokens_per_minute: Bound
    concurrent_requests: Bound
    max_tokens: Bound
    source: Literal["penstock.toml", "heroku"]


class LimitRoutes:
    """/limits and /apps/APP/limits. Each change is one transaction with its audit event."""

    def __init__(self, stores: Stores, context: ControlContext) -> None:
        self._stores = stores
        self._context = context
        self._guard = Guard(stores)
        self._places = Places(stores, context)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        every = Doc("limit.list", "List all limits that were set", list[Limit], ranges=("id",))
        basis = Doc("limit.defaults", "List the limits of what has none of its own", list[DefaultLimit])
        model = Doc("limit.update-model", "Set limits of a model", Limit, ModelLimitChange, refusals=(404,))
        free = Doc("limit.destroy-model", "Remove the limits of a model", Limit, query=OF_MODEL, refusals=(404, 422))
        found = Doc("limit.list-by-app", "List the limits that are about an app", list[Limit], ranges=("id",))
        under = Doc("limit.defaults-by-app", "List the defaults that an app falls under", list[DefaultLimit])
        put = Doc("limit.update", "Set limits of an app, or of something on it", Limit, LimitChange)
        gone = Doc("limit.destroy", "Remove a row of limits of an app", Limit, query=ON_APP, refusals=(422,))
        path, manage = "/apps/{app}/limits", Permission.LIMITS_MANAGE
        return [
            Route("GET", "/limits", self.list_all, Permission.USAGE_READ, doc=every),
            Route("PATCH", "/limits", self.change_model, manage, doc=model),
            Route("DELETE", "/limits", self.remove_of_model, manage, doc=free),
            Route("GET", "/limits/defaults", self.defaults, Permission.USAGE_READ, doc=basis),
            Route("GET", path, self.list_of_app, Permission.APP_READ, doc=found),
            Route("PATCH", path, self.change, manage, doc=put),
            Route("DELETE", path, self.remove, manage, doc=gone),
            Route("GET", f"{path}/defaults", self.defaults_of_app, Permission.APP_READ, doc=under),
        ]

    def list_all(self, request: Request) -> Reply:
        """GET /limits."""
        self._guard.check(request)
        return self._list(request, None)

    def list_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/limits."""
        return self._list(request, self._guard.app(request, request.params["app"]).id)

    def defaults(self, request: Request) -> Reply:
        """GET /limits/defaults."""
        self._guard.check(request)
        return Reply(200, self._defaults(None))

    def defaults_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/limits/defaults."""
        app = self._guard.app(request, request.params["app"])
        used = (*self._stores.addons.list(app_id=app.id), *self._stores.addons.list(attached_to=app.id))
        return Reply(200, self._defaults({addon.plan for addon in used}))

    def change(self, request: Request) -> Reply:
        """PATCH /apps/APP/limits."""
        self._guard.check(request)
        asked, by = read(request, LimitChange), actor_of(request)
        values = _values(request, asked)
        with self._places.on_app(request, asked, by=by) as place:
            return self._changed(place, values, by)

    def change_model(self, request: Request) -> Reply:
        """PATCH /limits."""
        self._guard.check(request)
        asked, by = read(request, ModelLimitChange), actor_of(request)
        values = _values(request, asked)
        with self._places.of_model(asked.model, by=by) as place:
            return self._changed(place, values, by)

    def remove(self, request: Request) -> Reply:
        """DELETE /apps/APP/limits."""
        self._guard.check(request)
        by = actor_of(request)
        with self._places.on_app(request, wanted_by(request), by=by, removes=True) as place:
            return Reply(200, self._removed(place, by))

    def remove_of_model(self, request: Request) -> Reply:
        """DELETE /limits."""
        self._guard.check(request)
        only(request, OF_MODEL)
        by, model = actor_of(request), required(request.query.get("model"), "model")
        with self._places.of_model(model, by=by, removes=True) as place:
            return Reply(200, self._removed(place, by))

    def _list(self, request: Request, app_id: str | None) -> Reply:
        page = paging.page_of(request)
        with self._stores.db.read():
            rows = self._stores.limits.list(app_id=app_id, page=page)
            names = describe(self._stores, rows)
        return paging.reply(request, page, rows, lambda row: _shown(row, names))

    def _changed(self, place: Place, values: dict[str, int | None], by: Actor) -> Reply:
        before = self._stores.limits.find(place.scope, place.id, place.model, held=True)
        limits = msgspec.structs.replace(before.limits if before else Limits(), **values)
        if limits == Limits():
            # A row that says nothing is none.
            return Reply(200, msgspec.structs.replace(self._removed(place, by), **dict.fromkeys(FIELDS)))
        if before is not None and before.limits == limits:
            return Reply(200, _shown(before, describe(self._stores, [before])))
        row = LimitRow(scope=place.scope, subject_id=place.id, model=place.model, limits=limits, updated_by=by.email)
        made = self._stores.limits.put(row, new=before is None)
        told = {"before": None if before is None else bounds(before.limits), "after": bounds(limits)}
        record(self._stores, by, "limit.set", subject=place.subject(made.id), **told)
        return Reply(200, _shown(made, describe(self._stores, [made])))

    def _removed(self, place: Place, by: Actor) -> Limit:
        found = self._stores.limits.find(place.scope, place.id, place.model, held=True)
        if found is None:
            raise NotFoundError("limit")
        gone = _shown(found, describe(self._stores, [found]))
        self._stores.limits.remove(place.scope, place.id, place.model)
        record(self._stores, by, "limit.remove", subject=place.subject(found.id), before=bounds(found.limits))
        return gone

    def _defaults(self, plans: set[str] | None) -> list[DefaultLimit]:
        """Those of the configuration and, for add-ons on these plans (None: on any), Heroku's."""
        catalogue = self._context.catalogue
        found = [
            DefaultLimit(
                object_type=row.scope,
                model=row.model and known_or_gone(catalogue, row.model),
                source="penstock.toml",
                **{name: getattr(row, name) for name in FIELDS},
            )
            for row in self._context.limit_defaults
        ]
        if self._context.heroku_limits:
            every = plans is None or STANDARD_PLAN in plans
            found += [
                DefaultLimit(object_type="addon", model=model.id, source="heroku", **bounds(model.plan_limits))
                for model in catalogue.models
                if model.plan_limits != Limits() and (every or model.id in (plans or ()))
            ]
        return found


def _values(request: Request, asked: LimitChange | ModelLimitChange) -> dict[str, int | None]:
    """What is to be changed, as the store has it. Raises ApiError."""
    found: dict[str, int | None] = {}
    for name in FIELDS:
        value = getattr(asked, name)
        if value is UNSET:
            continue
        if isinstance(value, str) and value != UNLIMITED_WORD:
            raise invalid(f'{name} must be a number from 1 to {_MOST}, "{UNLIMITED_WORD}" or null.')
        found[name] = UNLIMITED if value == UNLIMITED_WORD else value
    if not found:
        unknown = ", ".join(sorted(body_of(request).keys() - {"addon", "attachment", "key", "model"}))[:200]
        raise invalid(f"Name at least one of {', '.join(FIELDS)}{f', not {unknown}' if unknown else ''}.")
    return found


def _shown(row: LimitRow, names: Names) -> Limit:
    object_, app = shown(names, row)
    return Limit(
        id=row.id,
        object=object_,
        app=app,
        model=row.model or None,
        updated_by=row.updated_by,
        updated_at=moment(required_time(row.updated_at)),
        **bounds(row.limits),
    )


def required_time(at: datetime | None) -> datetime:
    """A time that the store always gives."""
    if at is None:
        raise RuntimeError("a row without a time")
    return at
