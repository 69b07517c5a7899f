"""The defaults of limits and budgets: what ``[[limit]]`` and ``[[budget]]`` rows say, by scope and model."""

import uuid
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation

import msgspec

from penstock.domain.catalogue import Catalogue, Model
from penstock.domain.limits import UNLIMITED, Budget, Limits, Scope
from penstock.domain.money import nanos
from penstock.settings.tree import BudgetDefault, LimitDefault, LimitsSettings

# One for all gateways: the same default budget of the same object must be one budget to them.
_NAMESPACE = uuid.UUID("6f2c3c0e-6f0b-5d0c-9f43-0f5a6f3b8f10")


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """Limits by scope and model id (empty: all together, or in the scope model: any), budgets by scope."""

    heroku: bool
    assumed_output_tokens: int
    limits: Mapping[tuple[Scope, str], Limits]
    budgets: Mapping[Scope, tuple[Budget, ...]]

    def limits_of(self, scope: Scope, model: Model, name: str) -> list[Limits]:
        """What holds for objects of the scope that say nothing themselves, the first that speaks counts. ``name`` is
        the model's id, or empty for all models together."""
        names = (model.id, "") if scope is Scope.MODEL else (name,)
        found = [self.limits[scope, one] for one in names if (scope, one) in self.limits]
        if self.heroku and scope is Scope.ADDON and name:
            found.append(model.plan_limits)
        return found

    def budgets_of(self, scope: Scope, subject_id: str, model: Model) -> Iterable[Budget]:
        """The budgets of an object of the scope, as far as they are about the model."""
        taken = set()
        for row in self.budgets.get(scope, ()):
            about = "" if scope is Scope.MODEL else row.model
            place = (about, row.period, row.currency)
            if row.model not in ("", model.id) or place in taken:
                continue
            taken.add(place)
            # A stable id: workers that have never met must name the same counter.
            named = uuid.uuid5(_NAMESPACE, "\n".join((scope, subject_id, *place)))
            yield msgspec.structs.replace(row, id=str(named), subject_id=subject_id, model=about)


def defaults(
    settings: LimitsSettings,
    limits: Iterable[LimitDefault],
    budgets: Iterable[BudgetDefault],
    *,
    catalogue: Catalogue,
) -> Defaults:
    """The rows, made ready to be looked up. Rows must have been checked (app/serving/defaults.py)."""
    by_place = {
        (Scope(row.scope), model_id(catalogue, row.model)): Limits(
            **{name: _bound(getattr(row, name)) for name in Limits.__struct_fields__}
        )
        for row in limits
    }
    by_scope: dict[Scope, list[Budget]] = {}
    for row in budgets:
        budget = Budget(
            id="",
            scope=Scope(row.scope),
            subject_id="",
            period=row.period,
            amount_nanos=amount_nanos(row),
            currency=row.currency,
            model=model_id(catalogue, row.model),
            alerts=row.alerts,
            origin="default",
        )
        by_scope.setdefault(budget.scope, []).append(budget)
    return Defaults(
        heroku=settings.heroku_defaults,
        assumed_output_tokens=settings.assumed_output_tokens,
        limits=by_place,
        # Those that name a model first: in the scope model they are nearer than those of any model.
        budgets={scope: tuple(sorted(rows, key=lambda row: not row.model)) for scope, rows in by_scope.items()},
    )


def _bound(said: int | str | None) -> int | None:
    return UNLIMITED if isinstance(said, str) else said


def model_id(catalogue: Catalogue, name: str | None) -> str:
    """The id behind a name of the catalogue, empty for none; one that a reload has taken away stays as it is."""
    found = catalogue.find(name) if name else None
    return found.id if found is not None else name or ""


def amount_nanos(row: BudgetDefault) -> int:
    """A row's amount in 10^-9. Raises ValueError for what is no amount: not a number, negative, too fine or large."""
    try:
        amount = Decimal(str(row.amount))
    except InvalidOperation:
        raise ValueError('the amount is not a number; write 50 or "0.25"') from None
    if not amount.is_finite() or amount < 0:
        raise ValueError("the amount is negative or not finite")
    return nanos(amount)
