"""What gateway workers are told: with each key what its objects may do, and to all of them what holds for models."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from penstock.domain.limits import Budget, LimitRow, Policy, Scope, Shared
from penstock.store.database import Database
from penstock.store.governance import app_policies, budgets, governance_revision, limits
from penstock.store.metering.limits import limit_row
from penstock.store.metering.spending import budget_of
from penstock.store.metering.subjects import Subject, among, describe

# What a key stands for, from the narrowest: the columns of a look-up by which its objects are named.
_OBJECTS = {
    Scope.KEY: "key_id",
    Scope.ATTACHMENT: "attachment_id",
    Scope.ADDON: "addon_id",
    Scope.APP: "app_id",
}
# Left joined to what a key stands for.
POLICY_COLUMNS = (
    app_policies.c.weight,
    app_policies.c.reserve_percent,
    app_policies.c.cache_ttl_s,
    app_policies.c.content_days,
)


class GovernanceStore:
    """What every gateway worker knows at all times, under a number that each change of it moves on."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def revision(self) -> int:
        """The number of changes ever made."""
        with self._db.read() as connection:
            return int(connection.execute(select(governance_revision.c.revision)).scalar_one())

    def shared(self) -> Shared:
        """All of it, of one moment."""
        reserves = select(app_policies.c.app_id, app_policies.c.reserve_percent)
        with self._db.read() as connection:
            revision = int(connection.execute(select(governance_revision.c.revision)).scalar_one())
            of_models = connection.execute(select(limits).where(limits.c.scope == Scope.MODEL.value)).all()
            spent = select(budgets).where(budgets.c.scope == Scope.MODEL.value, budgets.c.origin == "operator")
            budget_rows = connection.execute(spent).all()
            reserved = connection.execute(reserves.where(app_policies.c.reserve_percent > 0)).all()
        return Shared(
            revision=revision,
            limits=tuple(limit_row(row) for row in of_models),
            budgets=tuple(budget_of(row) for row in budget_rows),
            reserves={row.app_id: row.reserve_percent for row in reserved},
        )

    def set_on(self, scope: Scope, subject_id: str) -> tuple[tuple[LimitRow, ...], tuple[Budget, ...]]:
        """The limits and budgets that operators have set on an object, by ``id``."""
        of_it = {table: (table.c.scope == scope.value, table.c.subject_id == subject_id) for table in (limits, budgets)}
        own = budgets.c.origin == "operator"
        with self._db.read() as connection:
            rows = connection.execute(select(limits).where(*of_it[limits]).order_by(limits.c.id)).all()
            theirs = connection.execute(select(budgets).where(*of_it[budgets], own).order_by(budgets.c.id)).all()
        return tuple(limit_row(row) for row in rows), tuple(budget_of(row) for row in theirs)

    def describe(self, subjects: Iterable[tuple[Scope, str]]) -> dict[tuple[Scope, str], Subject]:
        """Those of the objects that are there, for people to read."""
        with self._db.read() as connection:
            return describe(connection, subjects)


class Bounds:
    """What operators have set on the objects of some keys; made for each look-up, in its transaction."""

    def __init__(self, connection: Connection, keys: Sequence[Row[Any]]) -> None:
        ids = {scope: list({getattr(key, column): None for key in keys}) for scope, column in _OBJECTS.items()}
        self._limits: dict[str, list[LimitRow]] = {}
        self._budgets: dict[str, list[Budget]] = {}
        if not keys:
            return
        for row in connection.execute(select(limits).where(among(limits, ids))):
            self._limits.setdefault(row.subject_id, []).append(limit_row(row))
        set_by_operators = select(budgets).where(among(budgets, ids), budgets.c.origin == "operator")
        for row in connection.execute(set_by_operators):
            self._budgets.setdefault(row.subject_id, []).append(budget_of(row))

    def limits(self, key: Row[Any]) -> tuple[LimitRow, ...]:
        """Those of a key and of all that it stands for."""
        return tuple(_flat(self._limits.get(getattr(key, column), ()) for column in _OBJECTS.values()))

    def budgets(self, key: Row[Any]) -> tuple[Budget, ...]:
        """The same, budgets; those that a default made are left out."""
        return tuple(_flat(self._budgets.get(getattr(key, column), ()) for column in _OBJECTS.values()))


def policy_of(row: Row[Any]) -> Policy:
    """The policy of an app, from a row with ``POLICY_COLUMNS``, which are all NULL for an app without one."""
    if row.weight is None:
        return Policy()
    return Policy(
        weight=row.weight,
        reserve_percent=row.reserve_percent,
        cache_ttl_s=row.cache_ttl_s,
        content_days=row.content_days,
    )


def _flat(groups: Iterable[Iterable[Any]]) -> Iterable[Any]:
    return (item for group in groups for item in group)
