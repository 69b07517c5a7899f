"""Budgets: listed with what is spent and held of them, set and removed."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from penstock.control import paging
from penstock.control.context import ControlContext
from penstock.control.fields import Text, only, read, required
from penstock.control.guard import Guard, actor_of
from penstock.control.lifted import budget_told
from penstock.control.names import invalid
from penstock.control.present import Id, Named, moment
from penstock.control.routes.bounds.limits import required_time
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
from penstock.domain import limits, money
from penstock.domain.access import Permission
from penstock.domain.limits import Period, Scope, Spending, period_end
from penstock.domain.platform import Actor
from penstock.settings.tree import BudgetDefault
from penstock.store.errors import NotFoundError
from penstock.store.metering.budgets import BudgetName, DefaultName
from penstock.store.nouns.stores import Stores
from penstock.web.api import Doc, Reply, Request, Route

_PERIODS: tuple[Period, ...] = ("day", "week", "month", "total")
_AMOUNT = re.compile(r"[0-9]{1,10}(\.[0-9]{1,9})?", re.ASCII)
_LARGER = re.compile(r"0*[1-9][0-9]{9,}(\.[0-9]*)?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_ALERTS = (50, 80, 100)
_CHOSEN = {
    "period": "day, week, month or total: there is a budget for each",
    "currency": "Three capital letters; without it, USD",
}

_Money = Annotated[Text, Meta(extra_json_schema={"pattern": f"^{_AMOUNT.pattern}$", "examples": ["12.50"]})]
_PeriodName = Annotated[Text, Meta(extra_json_schema={"enum": list(_PERIODS)})]
_CurrencyName = Annotated[Text, Meta(extra_json_schema={"pattern": f"^{_CURRENCY.pattern}$", "examples": ["USD"]})]
_Alerts = Annotated[list[Annotated[int, Meta(ge=1, le=1000)]], Meta(max_length=20)]


class NewBudget(OnApp, frozen=True, kw_only=True):
    """So much money in each period. ``alerts`` are percentages whose crossing is told; left out, they stay as they
    are."""

    amount: _Money
    period: _PeriodName
    currency: _CurrencyName = "USD"
    alerts: _Alerts | None = None


class NewModelBudget(Struct, frozen=True, kw_only=True):
    """The same for a model, whoever uses it."""

    model: Text
    amount: _Money
    period: _PeriodName
    currency: _CurrencyName = "USD"
    alerts: _Alerts | None = None


class Budget(Struct, frozen=True, kw_only=True):
    """A budget in its present period, from ``starts_at`` to ``ends_at`` (null: the whole time). Requests under way hold
    what they may cost at most; ``remaining`` is what new ones can have. ``alerted`` is the highest of the ``alerts``
    that was told in this period. A budget whose ``source`` is the default was made by the configuration."""

    id: Id
    object: Object
    app: Named | None
    model: str | None
    period: Period
    starts_at: datetime | None
    ends_at: datetime | None
    currency: str
    amount: str
    spent: str
    held: str
    remaining: str
    alerts: list[int]
    alerted: int | None
    source: Literal["operator", "default"]
    updated_by: str
    updated_at: datetime


class DefaultBudget(Struct, frozen=True, kw_only=True):
    """What each object of a type may spend unless a budget of its own for the same model, period and currency says
    otherwise."""

    object_type: ScopeName
    model: str | None
    period: Period
    currency: str
    amount: str
    alerts: list[int]
    source: Literal["penstock.toml"] = "penstock.toml"


class _Wanted(NamedTuple):
    """What a body asks for, checked."""

    amount_nanos: int
    period: Period
    currency: str
    alerts: tuple[int, ...] | None


class BudgetRoutes:
    """/budgets and /apps/APP/budgets. Each change is one transaction with its audit event."""

    def __init__(self, stores: Stores, context: ControlContext) -> None:
        self._stores = stores
        self._context = context
        self._guard = Guard(stores)
        self._places = Places(stores, context)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        every = Doc("budget.list", "List all budgets with what is spent of them", list[Budget], ranges=("id",))
        basis = Doc("budget.defaults", "List the budgets of what has none of its own", list[DefaultBudget])
        model = Doc("budget.update-model", "Set a budget of a model", Budget, NewModelBudget)
        of_one = {**OF_MODEL, **_CHOSEN}
        free = Doc("budget.destroy-model", "Remove a budget of a model", Budget, query=of_one, refusals=(404, 422))
        found = Doc("budget.list-by-app", "List the budgets that are about an app", list[Budget], ranges=("id",))
        under = Doc("budget.defaults-by-app", "List the defaults that an app falls under", list[DefaultBudget])
        put = Doc("budget.update", "Set a budget of an app, or of something on it", Budget, NewBudget)
        of_app = {**ON_APP, **_CHOSEN}
        gone = Doc("budget.destroy", "Remove a budget of an app", Budget, query=of_app, refusals=(422,))
        path, manage = "/apps/{app}/budgets", Permission.LIMITS_MANAGE
        return [
            Route("GET", "/budgets", self.list_all, Permission.USAGE_READ, doc=every),
            Route("PUT", "/budgets", self.put_of_model, manage, doc=model),
            Route("DELETE", "/budgets", self.remove_of_model, manage, doc=free),
            Route("GET", "/budgets/defaults", self.defaults, Permission.USAGE_READ, doc=basis),
            Route("GET", path, self.list_of_app, Permission.APP_READ, doc=found),
            Route("PUT", path, self.put, manage, doc=put),
            Route("DELETE", path, self.remove, manage, doc=gone),
            Route("GET", f"{path}/defaults", self.defaults_of_app, Permission.APP_READ, doc=under),
        ]

    def list_all(self, request: Request) -> Reply:
        """GET /budgets."""
        self._guard.check(request)
        return self._list(request, None)

    def list_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/budgets."""
        return self._list(request, self._guard.app(request, request.params["app"]).id)

    def defaults(self, request: Request) -> Reply:
        """GET /budgets/defaults."""
        self._guard.check(request)
        return self._defaults()

    def defaults_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/budgets/defaults."""
        self._guard.app(request, request.params["app"])
        return self._defaults()

    def put(self, request: Request) -> Reply:
        """PUT /apps/APP/budgets."""
        self._guard.check(request)
        asked, by = read(request, NewBudget), actor_of(request)
        wanted = _checked(asked)
        with self._places.on_app(request, asked, by=by) as place:
            return self._put(place, wanted, by)

    def put_of_model(self, request: Request) -> Reply:
        """PUT /budgets."""
        self._guard.check(request)
        asked, by = read(request, NewModelBudget), actor_of(request)
        wanted = _checked(asked)
        with self._places.of_model(asked.model, by=by) as place:
            return self._put(place, wanted, by)

    def remove(self, request: Request) -> Reply:
        """DELETE /apps/APP/budgets."""
        self._guard.check(request)
        chosen, by = _chosen(request), actor_of(request)
        with self._places.on_app(request, wanted_by(request, _CHOSEN), by=by, removes=True) as place:
            return self._removed(place, chosen, by)

    def remove_of_model(self, request: Request) -> Reply:
        """DELETE /budgets."""
        self._guard.check(request)
        only(request, (*OF_MODEL, *_CHOSEN))
        chosen, by = _chosen(request), actor_of(request)
        model = required(request.query.get("model"), "model")
        with self._places.of_model(model, by=by, removes=True) as place:
            return self._removed(place, chosen, by)

    def _defaults(self) -> Reply:
        found = [
            DefaultBudget(
                object_type=row.scope,
                model=row.model and known_or_gone(self._context.catalogue, row.model),
                period=row.period,
                currency=row.currency,
                amount=money.shown(money.nanos(Decimal(str(row.amount)))),
                alerts=list(row.alerts),
            )
            for row in self._context.budget_defaults
        ]
        return Reply(200, found)

    def _list(self, request: Request, app_id: str | None) -> Reply:
        page = paging.page_of(request)
        in_force = [
            # A default for models is about the budget's object, which says which model it is.
            DefaultName(row.scope, row.period, row.currency, self._about(row))
            for row in self._context.budget_defaults
        ]
        with self._stores.db.read():
            rows = self._stores.budgets.list(app_id=app_id, defaults=in_force, page=page)
            names = describe(self._stores, [row.budget for row in rows])
        return paging.reply(request, page, rows, lambda row: _shown(row, names))

    def _about(self, row: BudgetDefault) -> str:
        if row.model is None or row.scope == Scope.MODEL.value:
            return ""
        return known_or_gone(self._context.catalogue, row.model)

    def _put(self, place: Place, wanted: _Wanted, by: Actor) -> Reply:
        stores = self._stores
        name = BudgetName(place.scope, place.id, wanted.period, wanted.currency, place.model)
        before = stores.budgets.find_named(name, held=True)
        alerts = _ALERTS if before is None else before.alerts
        budget = limits.Budget(
            id="",
            scope=place.scope,
            subject_id=place.id,
            model=place.model,
            period=wanted.period,
            currency=wanted.currency,
            amount_nanos=wanted.amount_nanos,
            alerts=alerts if wanted.alerts is None else wanted.alerts,
            updated_by=by.email,
        )
        made = stores.budgets.put(budget)
        if before is None or budget_told(before) != budget_told(made):
            was = None if before is None else budget_told(before)
            record(stores, by, "budget.set", subject=place.subject(made.id), before=was, after=budget_told(made))
        return self._present(made)

    def _removed(self, place: Place, chosen: tuple[Period, str], by: Actor) -> Reply:
        stores = self._stores
        found = stores.budgets.find_named(BudgetName(place.scope, place.id, *chosen, place.model), held=True)
        if found is None or found.origin == "default":
            raise NotFoundError("budget")
        reply = self._present(found)
        stores.budgets.remove(found.id)
        record(stores, by, "budget.remove", subject=place.subject(found.id), before=budget_told(found))
        return reply

    def _present(self, budget: limits.Budget) -> Reply:
        spending = self._stores.budgets.spending(budget)
        return Reply(200, _shown(spending, describe(self._stores, [budget])))


def _checked(asked: NewBudget | NewModelBudget) -> _Wanted:
    """What is asked for. Raises ApiError."""
    most = f"amount must be at most {money.shown(money.MAX_NANOS)}."
    if not _AMOUNT.fullmatch(asked.amount):
        if _LARGER.fullmatch(asked.amount):
            raise invalid(most)
        raise invalid('amount must be text such as "12.50", with at most 9 digits after the point.')
    try:
        amount = money.nanos(Decimal(asked.amount))
    except ValueError:
        raise invalid(most) from None
    alerts = None if asked.alerts is None else tuple(sorted({*asked.alerts}))
    return _Wanted(amount, _period(asked.period), _currency(asked.currency), alerts)


def _chosen(request: Request) -> tuple[Period, str]:
    """Which budget of an object a query means. Raises ApiError."""
    period = _period(required(request.query.get("period"), "period"))
    return period, _currency(request.query.get("currency", "USD"))


def _period(text: str) -> Period:
    for period in _PERIODS:
        if text == period:
            return period
    raise invalid(f"period must be one of {', '.join(_PERIODS)}.")


def _currency(text: str) -> str:
    if not _CURRENCY.fullmatch(text):
        raise invalid("currency must be three capital letters, such as USD.")
    return text


def _shown(spending: Spending, names: Names) -> Budget:
    budget = spending.budget
    object_, app = shown(names, budget)
    starts = datetime.fromisoformat(spending.starts_on).replace(tzinfo=UTC) if spending.starts_on else None
    left = budget.amount_nanos - spending.spent_nanos - spending.held_nanos
    return Budget(
        id=budget.id,
        object=object_,
        app=app,
        model=budget.model or None,
        period=budget.period,
        starts_at=starts,
        ends_at=None if starts is None else period_end(budget.period, starts),
        currency=budget.currency,
        amount=money.shown(budget.amount_nanos),
        spent=money.shown(spending.spent_nanos),
        held=money.shown(spending.held_nanos),
        remaining=money.shown(max(0, left)),
        alerts=list(budget.alerts),
        alerted=spending.alerted or None,
        source=budget.origin,
        updated_by=budget.updated_by,
        updated_at=moment(required_time(budget.updated_at)),
    )
