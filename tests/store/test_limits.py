"""Limits and budgets in the store: what is set, what gateway workers are told of it, and what goes with its object."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import String, insert, select

from penstock.domain.ids import secret_hash
from penstock.domain.limits import UNLIMITED, Limits, Policy, Scope, Spending, period_start
from penstock.domain.platform import Attachment, Principal
from penstock.store.errors import NotFoundError
from penstock.store.governance import app_policies, budget_periods, budgets, leases, ledger_days, ledger_head, limits
from penstock.store.metering.budgets import BudgetName, DefaultName
from penstock.store.metering.spending import open_period
from penstock.store.nouns.keys import ApiKeySecret
from penstock.store.nouns.stores import Stores
from penstock.store.paging import Page
from tests.store.nouns import NOW, add_all, add_app, add_attachment, budget_of, limit_of


def subjects(attachment: Attachment, key: ApiKeySecret) -> dict[Scope, str]:
    """All that a key stands for."""
    return {
        Scope.KEY: key.key.id,
        Scope.ATTACHMENT: attachment.id,
        Scope.ADDON: attachment.addon_id,
        Scope.APP: attachment.app_id,
    }


def principal(stores: Stores, key: ApiKeySecret) -> Principal:
    found = stores.keys.find_principal(secret_hash(key.secret))
    assert found is not None
    return found


def changed(stores: Stores, act: Callable[[], object]) -> tuple[list[bytes] | None, int]:
    """The keys that followers are told of, and how far the number of what all know moves."""
    keys, shared = stores.keys.revision(), stores.governance.revision()
    act()
    return stores.keys.changes_since(keys)[1], stores.governance.revision() - shared


def spent(stores: Stores, attachment: Attachment, day: datetime, nanos: int, **named: str) -> None:
    """A day's sums in the ledger."""
    numbers = {column.name: 0 for column in ledger_days.c if not isinstance(column.type, String)}
    names = {"key_id": "k", "model": "m", "target": "p/m", "currency": "USD", "key_prefix": "inf-", "app_name": "shop"}
    ids = {"app_id": attachment.app_id, "addon_id": attachment.addon_id, "attachment_id": attachment.id}
    at = {"day": (day.date() - datetime(1970, 1, 1, tzinfo=UTC).date()).days, "amount_nanos": nanos}
    with stores.db.write() as connection:
        connection.execute(insert(ledger_days).values({**numbers, **names, **ids, **at, **named}))


def test_a_row_is_put_found_listed_and_removed(stores: Stores) -> None:
    attachment = add_all(stores)
    made = stores.limits.put(limit_of(Scope.APP, attachment.app_id, requests_per_minute=5, max_tokens=UNLIMITED))
    assert made.limits == Limits(requests_per_minute=5, max_tokens=UNLIMITED)
    assert stores.limits.get(Scope.APP, attachment.app_id) == made
    again = stores.limits.put(limit_of(Scope.APP, attachment.app_id, tokens_per_minute=7))
    assert (again.id, again.limits) == (made.id, Limits(tokens_per_minute=7))
    other = stores.limits.put(limit_of(Scope.APP, attachment.app_id, model="m"))
    assert {row.id for row in stores.limits.list()} == {made.id, other.id}
    assert stores.limits.remove(Scope.APP, attachment.app_id) == again
    assert stores.limits.list() == (other,)
    with pytest.raises(NotFoundError):
        stores.limits.get(Scope.APP, attachment.app_id)
    with pytest.raises(NotFoundError):
        stores.limits.remove(Scope.APP, attachment.app_id)


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope is not Scope.MODEL])
def test_nothing_is_set_on_what_is_not_there(stores: Stores, scope: Scope) -> None:
    with pytest.raises(NotFoundError) as caught:
        stores.limits.put(limit_of(scope, "none"))
    assert caught.value.noun == scope.value
    with pytest.raises(NotFoundError):
        stores.budgets.put(budget_of(scope, "none"))


def test_a_page_begins_where_the_one_before_ended(stores: Stores) -> None:
    for number in range(5):
        stores.limits.put(limit_of(Scope.MODEL, f"m{number}"))
        stores.budgets.put(budget_of(Scope.MODEL, f"m{number}"))
    found = stores.limits.list(page=Page(by="id", size=2))
    rest = stores.limits.list(page=Page(by="id", first=found[1].id, after=True, size=3))
    assert (len(found), len({row.id for row in (*found[:2], *rest)})) == (3, 5)
    assert [row.budget.id for row in stores.budgets.list(page=Page(by="id", size=4))] == sorted(
        row.budget.id for row in stores.budgets.list()
    )


def test_a_key_comes_with_what_is_set_on_all_that_it_stands_for(stores: Stores) -> None:
    attachment, elsewhere = add_all(stores), add_all(stores, "cart")
    key, other = stores.keys.add(attachment.id), stores.keys.add(elsewhere.id)
    rows, bought = [], []
    for scope, id_ in subjects(attachment, key).items():
        rows += [stores.limits.put(limit_of(scope, id_)), stores.limits.put(limit_of(scope, id_, model="m"))]
        bought.append(stores.budgets.put(budget_of(scope, id_)))
        stores.budgets.put(budget_of(scope, id_, period="day", origin="default"))
    stores.limits.put(limit_of(Scope.MODEL, "m"))
    with stores.db.write() as connection:
        policy = Policy(weight=3, reserve_percent=20, cache_ttl_s=60)
        values = msgspec.structs.asdict(policy) | {"app_id": attachment.app_id, "updated_at": NOW}
        connection.execute(insert(app_policies).values(values))
    found = principal(stores, key)
    assert (found.addon_name, found.policy) == (attachment.addon_name, policy)
    assert {row.id for row in found.limits} == {row.id for row in rows}
    assert [row.scope for row in found.limits[::2]] == list(subjects(attachment, key))
    assert found.budgets == tuple(bought)
    apart = principal(stores, other)
    assert (apart.limits, apart.budgets, apart.policy) == ((), (), Policy())
    many = stores.keys.find_principals([secret_hash(key.secret), secret_hash(other.secret)])
    assert (many[found.key_hash], many[apart.key_hash]) == (found, apart)


def test_a_change_makes_workers_read_the_keys_again_that_it_is_about(stores: Stores) -> None:
    attachment = add_all(stores)
    shared = add_attachment(stores, add_app(stores, "cart"), stores.addons.get(attachment.addon_id), "SHARED")
    key, beside = stores.keys.add(attachment.id), stores.keys.add(attachment.id, extra=True)
    guest = stores.keys.add(shared.id)
    expected = {
        Scope.KEY: {key},
        Scope.ATTACHMENT: {key, beside},
        Scope.ADDON: {key, beside, guest},
        Scope.APP: {key, beside},
    }
    for scope, id_ in subjects(attachment, key).items():
        hashes = {secret_hash(one.secret) for one in expected[scope]}
        for act in (
            lambda scope=scope, id_=id_: stores.limits.put(limit_of(scope, id_)),
            lambda scope=scope, id_=id_: stores.limits.remove(scope, id_),
            lambda scope=scope, id_=id_: stores.budgets.put(budget_of(scope, id_)),
            lambda scope=scope, id_=id_: stores.budgets.remove(
                next(row.budget.id for row in stores.budgets.list() if row.budget.subject_id == id_)
            ),
        ):
            told, moved = changed(stores, act)
            assert (set(told or ()), moved) == (hashes, 0), scope


def test_what_is_set_on_models_reaches_all_workers(stores: Stores) -> None:
    before = stores.governance.shared()
    assert (before.limits, before.budgets, before.reserves) == ((), (), {})
    told, moved = changed(stores, lambda: stores.limits.put(limit_of(Scope.MODEL, "m")))
    assert (told, moved) == ([], 1)
    budget = stores.budgets.put(budget_of(Scope.MODEL, "m"))
    app = add_app(stores)
    stores.limits.put(limit_of(Scope.APP, app.id))
    with stores.db.write() as connection:
        reserve = {"app_id": app.id, "weight": 1, "reserve_percent": 20, "updated_at": NOW}
        connection.execute(insert(app_policies).values(reserve))
    found = stores.governance.shared()
    assert found.revision == stores.governance.revision() == before.revision + 2
    assert [row.subject_id for row in found.limits] == ["m"]
    assert (found.budgets, found.reserves) == ((budget,), {app.id: 20})


def test_a_budget_begins_with_what_its_period_has_spent_and_shows_what_is_held(stores: Stores) -> None:
    attachment, now = add_all(stores), datetime.now(UTC)
    spent(stores, attachment, now, 3)
    spent(stores, attachment, now, 5, currency="EUR")
    spent(stores, attachment, now - timedelta(days=40), 100)
    month = stores.budgets.put(budget_of(Scope.APP, attachment.app_id, 10))
    total = stores.budgets.put(budget_of(Scope.APP, attachment.app_id, 1000, period="total"))
    held = {"holder": "w", "seq": 1, "last_grant": 0, "expires_s": 0.0}
    with stores.db.write() as connection:
        for holder, granted in (("w", 4), ("v", 2)):
            counter = f"b:{month.id}:{period_start('month', now)}"
            connection.execute(
                insert(leases).values({**held, "counter": counter, "holder": holder, "granted": granted})
            )
    found = {row.budget.id: row for row in stores.budgets.list(app_id=attachment.app_id)}
    assert found[month.id] == Spending(budget=month, starts_on=period_start("month", now), spent_nanos=3, held_nanos=6)
    assert (found[total.id].starts_on, found[total.id].spent_nanos) == ("", 103)
    later = stores.budgets.list(at=now + timedelta(days=40))
    assert [row.spent_nanos for row in later if row.budget.id == month.id] == [0]


def test_another_amount_keeps_the_budget_and_what_is_spent(stores: Stores) -> None:
    attachment = add_all(stores)
    made = stores.budgets.put(budget_of(Scope.APP, attachment.app_id, 10, origin="default"))
    with stores.db.write() as connection:
        connection.execute(budget_periods.update().values(spent_nanos=7))
    again = stores.budgets.put(budget_of(Scope.APP, attachment.app_id, 5, alerts=(90,)))
    assert (again.id, again.amount_nanos, again.alerts, again.origin) == (made.id, 5, (90,), "operator")
    assert stores.budgets.spending(again).spent_nanos == 7
    name = BudgetName(Scope.APP, attachment.app_id, "month")
    assert stores.budgets.find_named(name) == again == stores.budgets.get(made.id)
    assert stores.budgets.remove(made.id) == again
    assert (stores.budgets.find(made.id), stores.budgets.list()) == (None, ())
    with pytest.raises(NotFoundError):
        stores.budgets.remove(made.id)


def test_budgets_of_defaults_are_listed_while_the_configuration_names_them(stores: Stores) -> None:
    app = add_app(stores)
    made = stores.budgets.put(budget_of(Scope.APP, app.id, origin="default"))
    assert stores.budgets.list() == ()
    assert stores.budgets.list(defaults=[DefaultName("app", "day", "USD")]) == ()
    found = stores.budgets.list(app_id=app.id, defaults=[DefaultName("app", "month", "USD")])
    assert [row.budget.id for row in found] == [made.id]


def test_what_is_removed_takes_its_limits_and_budgets_along(stores: Stores) -> None:
    attachment = add_all(stores)
    keys = [stores.keys.add(attachment.id, extra=True) for _ in range(2)]
    owned = subjects(attachment, keys[0]) | {Scope.MODEL: "m"}
    for scope, id_ in [*owned.items(), (Scope.KEY, keys[1].key.id)]:
        stores.limits.put(limit_of(scope, id_))
        stores.budgets.put(budget_of(scope, id_))
    left = [Scope.KEY, *owned]
    for scope, remove in (
        (Scope.KEY, lambda: stores.keys.remove_key(keys[0].key.id)),
        (Scope.KEY, lambda: stores.keys.remove(attachment.id)),
        (Scope.ATTACHMENT, lambda: stores.attachments.remove(attachment.id)),
        (Scope.ADDON, lambda: stores.addons.remove(attachment.addon_id)),
        (Scope.APP, lambda: stores.apps.remove(attachment.app_id)),
    ):
        remove()
        left.remove(scope)
        assert sorted(row.scope for row in stores.limits.list()) == sorted(left)
        assert sorted(row.budget.scope for row in stores.budgets.list()) == sorted(left)
    with stores.db.read() as connection:
        assert len(connection.execute(select(budget_periods)).all()) == 1


def test_expired_keys_take_theirs_along_too(stores: Stores) -> None:
    attachment, now = add_all(stores), datetime.now(UTC)
    key = stores.keys.add(attachment.id, expires_at=now - timedelta(days=2))
    stores.limits.put(limit_of(Scope.KEY, key.key.id))
    assert stores.keys.purge(attachment.app_id, now) == 1
    assert stores.limits.list() == ()


def test_a_keys_successor_has_its_limits_and_goes_on_with_its_budget(stores: Stores) -> None:
    attachment = add_all(stores)
    key = stores.keys.add(attachment.id)
    stores.limits.put(limit_of(Scope.KEY, key.key.id, model="m", max_tokens=9))
    stores.budgets.put(budget_of(Scope.KEY, key.key.id, 10))
    with stores.db.write() as connection:
        connection.execute(budget_periods.update().values(spent_nanos=7))
    heir = stores.keys.rotate(key.key, grace=timedelta(minutes=10))
    assert len(stores.limits.list()) == len(stores.budgets.list()) == 2
    found = principal(stores, heir)
    assert [(row.subject_id, row.model, row.limits.max_tokens) for row in found.limits] == [(heir.key.id, "m", 9)]
    assert stores.budgets.spending(found.budgets[0]).spent_nanos == 7
    last = stores.keys.rotate(heir.key, grace=timedelta(0))
    assert {row.subject_id for row in stores.limits.list()} == {last.key.id}
    assert [(row.budget.subject_id, row.spent_nanos) for row in stores.budgets.list()] == [(last.key.id, 7)]


def test_what_is_set_while_its_object_is_removed_does_not_stay_behind(postgres_stores: Stores) -> None:
    stores = postgres_stores
    attachment = add_all(stores)
    removed, go_on = threading.Event(), threading.Event()

    def remove() -> None:
        with stores.db.write():
            stores.attachments.remove(attachment.id)
            removed.set()
            assert go_on.wait(20)

    with ThreadPoolExecutor(2) as pool:
        removing = pool.submit(remove)
        assert removed.wait(20)
        setting = pool.submit(stores.limits.put, limit_of(Scope.ATTACHMENT, attachment.id))
        go_on.set()
        removing.result(20)
        with pytest.raises(NotFoundError):
            setting.result(20)
    with stores.db.read() as connection:
        assert connection.execute(select(limits)).all() == []


def test_a_key_made_beside_a_change_of_its_apps_limits_is_read_again_or_read_after_it(postgres_stores: Stores) -> None:
    stores = postgres_stores
    attachment = add_all(stores)
    set_, go_on = threading.Event(), threading.Event()
    before = stores.keys.revision()

    def bound() -> None:
        with stores.db.write():
            stores.limits.put(limit_of(Scope.APP, attachment.app_id))
            set_.set()
            assert go_on.wait(20)

    with ThreadPoolExecutor(1) as pool:
        bounding = pool.submit(bound)
        assert set_.wait(20)
        key = stores.keys.add(attachment.id)
        assert principal(stores, key).limits == ()
        seen = stores.keys.revision()
        go_on.set()
        bounding.result(20)
    assert seen > before
    assert stores.keys.changes_since(seen)[1] == [secret_hash(key.secret)]
    assert len(principal(stores, key).limits) == 1


def test_two_who_set_the_same_budget_at_once_make_one(postgres_stores: Stores) -> None:
    stores = postgres_stores
    app = add_app(stores)
    start = threading.Barrier(8)

    def put(amount: int) -> None:
        start.wait(20)
        stores.db.retrying(lambda: stores.budgets.put(budget_of(Scope.APP, app.id, amount)))

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(put, amount) for amount in range(1, 9)]:
            done.result(60)
    with stores.db.read() as connection:
        assert len(connection.execute(select(budgets)).all()) == 1
        assert len(connection.execute(select(budget_periods)).all()) == 1


def test_a_key_that_goes_while_its_budget_is_spent_leaves_no_period_behind(postgres_stores: Stores) -> None:
    stores = postgres_stores
    attachment = add_all(stores)
    key = stores.keys.add(attachment.id)
    budget = stores.budgets.put(budget_of(Scope.KEY, key.key.id))
    read, go_on = threading.Event(), threading.Event()

    def spend() -> None:
        with stores.db.write() as connection:
            connection.execute(select(ledger_head.c.seq).with_for_update())
            assert connection.execute(select(budgets.c.id)).scalars().all() == [budget.id]
            read.set()
            assert go_on.wait(20)
            assert open_period(connection, budget, "2026-01-01") == 0

    with ThreadPoolExecutor(2) as pool:
        spending = pool.submit(spend)
        assert read.wait(20)
        removing = pool.submit(stores.keys.remove_key, key.key.id)
        go_on.set()
        spending.result(20)
        removing.result(20)
    with stores.db.read() as connection:
        assert connection.execute(select(budget_periods)).all() == []
