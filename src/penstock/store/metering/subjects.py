"""What limits and budgets are set on: keys, attachments, add-ons, apps and models, by scope and id."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, Table, and_, delete, insert, null, or_, select

from penstock.domain.ids import new_id
from penstock.domain.limits import Scope
from penstock.store.errors import NotFoundError
from penstock.store.governance import budget_periods, budgets, ledger_head, limits
from penstock.store.schema import addons, api_keys, apps, attachments

_TABLES: dict[Scope, Table] = {
    Scope.KEY: api_keys,
    Scope.ATTACHMENT: attachments,
    Scope.ADDON: addons,
    Scope.APP: apps,
}
# Bound variables of one statement; both databases take many more.
_BATCH = 500


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What a row is about, for people: a key's name is its prefix, a model's its id; ``attachment`` is a key's, and
    ``app_id`` is None for a model."""

    name: str
    app_id: str | None = None
    app_name: str | None = None
    attachment: str | None = None


def hold(connection: Connection, scope: Scope, subject_id: str) -> None:
    """Keeps an object from being removed until the transaction ends. Raises NotFoundError when it is gone."""
    table = _TABLES.get(scope)
    if table is None:
        return
    found = select(table.c.id).where(table.c.id == subject_id).with_for_update(read=True, key_share=True)
    if connection.execute(found).first() is None:
        raise NotFoundError(scope.value)


def forget(connection: Connection, scope: Scope, subject_ids: Sequence[str]) -> None:
    """Removes the limits and budgets of objects that have just been removed themselves, in that order, so that what is
    set on one meanwhile is seen here."""
    for ids in _batches(subject_ids):
        named = {table: (table.c.scope == scope.value, table.c.subject_id.in_(ids)) for table in (limits, budgets)}
        connection.execute(delete(limits).where(*named[limits]))
        if connection.execute(select(budgets.c.id).where(*named[budgets]).limit(1)).first() is not None:
            hold_spending(connection)
            connection.execute(delete(budgets).where(*named[budgets]))


def hold_spending(connection: Connection) -> None:
    """Keeps the ledger from adding to budgets until the transaction ends: it never finds one gone that it has just
    read."""
    connection.execute(select(ledger_head.c.seq).with_for_update())


def pass_on(connection: Connection, old_id: str, new_id_: str) -> None:
    """Gives a key's successor its limits, and its budgets with what is spent of them."""
    for row in connection.execute(select(limits).where(_is(limits, Scope.KEY, old_id))).all():
        connection.execute(insert(limits).values({**row._mapping, "id": new_id(), "subject_id": new_id_}))
    for row in connection.execute(select(budgets).where(_is(budgets, Scope.KEY, old_id))).all():
        budget_id = new_id()
        connection.execute(insert(budgets).values({**row._mapping, "id": budget_id, "subject_id": new_id_}))
        spent = select(budget_periods).where(budget_periods.c.budget_id == row.id)
        for period in connection.execute(spent).all():
            connection.execute(insert(budget_periods).values({**period._mapping, "budget_id": budget_id}))


def of_app(table: Table, app_id: str) -> ColumnElement[bool]:
    """The rows of ``limits`` or ``budgets`` that are about an app: its own, and those of its add-ons, of the add-ons
    that are attached to it, of its attachments and of their keys."""
    here = attachments.c.app_id == app_id
    keys = select(api_keys.c.id).join(attachments, attachments.c.id == api_keys.c.attachment_id).where(here)
    addon_ids = select(addons.c.id).where(addons.c.app_id == app_id)
    below: dict[Scope, Select[Any]] = {
        Scope.ADDON: addon_ids.union(select(attachments.c.addon_id).where(here)),  # type: ignore[dict-item]
        Scope.ATTACHMENT: select(attachments.c.id).where(here),
        Scope.KEY: keys,
    }
    return or_(
        _is(table, Scope.APP, app_id),
        *(and_(table.c.scope == scope.value, table.c.subject_id.in_(ids)) for scope, ids in below.items()),
    )


def among(table: Table, ids: Mapping[Scope, Sequence[str]]) -> ColumnElement[bool]:
    """The rows of ``limits`` or ``budgets`` of those objects."""
    return or_(*(and_(table.c.scope == scope.value, table.c.subject_id.in_(of)) for scope, of in ids.items()))


def describe(connection: Connection, subjects: Iterable[tuple[Scope, str]]) -> dict[tuple[Scope, str], Subject]:
    """Each of the objects that is there, by scope and id."""
    wanted: dict[Scope, list[str]] = {}
    for scope, id_ in dict.fromkeys(subjects):
        wanted.setdefault(scope, []).append(id_)
    found = {(Scope.MODEL, id_): Subject(name=id_) for id_ in wanted.pop(Scope.MODEL, [])}
    for scope, ids in wanted.items():
        query = _DESCRIBED[scope]
        for batch in _batches(ids):
            for row in connection.execute(query.where(_TABLES[scope].c.id.in_(batch))):
                found[scope, row.id] = Subject(
                    name=row.name, app_id=row.app_id, app_name=row.app_name, attachment=row.attachment
                )
    return found


def _is(table: Table, scope: Scope, subject_id: str) -> ColumnElement[bool]:
    return and_(table.c.scope == scope.value, table.c.subject_id == subject_id)


def _batches(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[at : at + _BATCH] for at in range(0, len(ids), _BATCH))


def _described(table: Table, name: ColumnElement[str], attachment: ColumnElement[Any] | None = None) -> Select[Any]:
    columns = (table.c.id, name.label("name"), apps.c.id.label("app_id"), apps.c.name.label("app_name"))
    return select(*columns, (null() if attachment is None else attachment).label("attachment"))


_DESCRIBED: dict[Scope, Select[Any]] = {
    Scope.APP: _described(apps, apps.c.name),
    Scope.ADDON: _described(addons, addons.c.name).join(apps, apps.c.id == addons.c.app_id),
    Scope.ATTACHMENT: _described(attachments, attachments.c.name).join(apps, apps.c.id == attachments.c.app_id),
    Scope.KEY: _described(api_keys, api_keys.c.prefix, attachments.c.name)
    .join(attachments, attachments.c.id == api_keys.c.attachment_id)
    .join(apps, apps.c.id == attachments.c.app_id),
}
