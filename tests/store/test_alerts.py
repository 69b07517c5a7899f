"""What is told of budgets: at thresholds, when one is set below what is spent, and when one refuses."""

import logging
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, update

from penstock.domain.limits import Budget, Counter, LeaseAsk, Scope, period_start
from penstock.domain.platform import AuditEvent
from penstock.store.governance import budget_periods
from penstock.store.metering.leases import LeaseStore
from penstock.store.metering.ledger import LedgerStore
from penstock.store.metering.spending import add_spent
from penstock.store.nouns.stores import Stores
from tests.ledger.entries import entry
from tests.store.nouns import add_all, budget_of

NOW_US = int(datetime.now(UTC).timestamp() * 1_000_000)


def told(stores: Stores) -> list[AuditEvent]:
    return [event for event in stores.audit.list() if event.action == "budget.alert"]


def percents(stores: Stores) -> list[int]:
    return [event.after["percent"] for event in told(stores) if event.after]


def spend(stores: Stores, number: int, **fields: object) -> None:
    ledger = LedgerStore(stores.db, spend=add_spent, audit=stores.audit.add)
    ledger.append([entry(number, admitted_us=NOW_US + number, **fields)])


def refuses(stores: Stores, budget: Budget, units: int, *, store: LeaseStore | None = None, holder: str = "w") -> bool:
    """Whether a worker that needs so many gets nothing."""
    starts_on = period_start(budget.period, datetime.now(UTC))
    limit, id_ = budget.amount_nanos, f"b:{budget.id}:{starts_on}"
    counter = Counter(id=id_, kind="money", limit=limit, budget=budget, starts_on=starts_on)
    ask = LeaseAsk(counter=counter, seq=next(_SEQ), wants=units, needs=units, least=units)
    asked = store or LeaseStore(stores.db, audit=stores.audit.add)
    return asked.exchange(holder, [ask], lease_s=2, money_lease_s=60)[0].granted == 0


_SEQ = iter(range(1, 10_000))


def test_an_alert_names_the_object_the_amount_and_what_is_spent(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    attachment = add_all(stores)
    key = stores.keys.add(attachment.id)
    stores.budgets.put(budget_of(Scope.KEY, key.key.id, 100, period="day", alerts=(25,), model="model"))
    with caplog.at_level(logging.WARNING):
        spend(stores, 1, key_id=key.key.id)
    (event,) = told(stores)
    assert event.object_name == f"key {key.key.prefix} of app {attachment.app_name}"
    assert (event.app_id, event.app_name) == (attachment.app_id, attachment.app_name)
    today = datetime.now(UTC).date().isoformat()
    assert event.after == {
        "percent": 25, "refuses": False, "amount": "0.0000001", "spent": "0.00000003", "currency": "USD",
        "period": "day", "starts_on": today, "model": "model",
    }  # fmt: skip


@pytest.mark.parametrize("scope", list(Scope))
def test_a_budget_that_is_set_below_what_is_spent_tells_its_highest_alert_at_once(
    stores: Stores, scope: Scope, caplog: pytest.LogCaptureFixture
) -> None:
    attachment = add_all(stores)
    key = stores.keys.add(attachment.id).key
    ids = {Scope.KEY: key.id, Scope.ATTACHMENT: attachment.id, Scope.ADDON: attachment.addon_id}
    ids |= {Scope.APP: attachment.app_id, Scope.MODEL: "model"}
    names = {"key_id": key.id, "attachment_id": attachment.id, "addon_id": attachment.addon_id}
    spend(stores, 1, app_id=attachment.app_id, **names)
    with caplog.at_level(logging.WARNING, "penstock.budgets"):
        stores.budgets.put(budget_of(scope, ids[scope], 1000))
        assert percents(stores) == []
        stores.budgets.put(budget_of(scope, ids[scope], 35))
        assert percents(stores) == [80]
        stores.budgets.put(budget_of(scope, ids[scope], 35))
        assert percents(stores) == [80]
        stores.budgets.put(budget_of(scope, ids[scope], 29))
        assert percents(stores) == [80, 100]
    assert [line.rsplit(": ")[-1] for line in caplog.messages] == ["0.00000003 USD is spent"] * 2
    assert ids[scope] not in caplog.text or scope is Scope.MODEL


def test_a_budget_that_is_raised_tells_the_thresholds_of_its_new_amount(stores: Stores) -> None:
    attachment = add_all(stores)
    stores.budgets.put(budget_of(Scope.APP, attachment.app_id, 30))
    spend(stores, 1, app_id=attachment.app_id)
    assert percents(stores) == [50, 80, 100]
    stores.budgets.put(budget_of(Scope.APP, attachment.app_id, 100))
    spend(stores, 2, app_id=attachment.app_id)
    assert percents(stores) == [50, 80, 100, 50]


def test_a_budget_of_nothing_is_told_with_its_first_refusal_and_not_when_it_is_set(stores: Stores) -> None:
    attachment = add_all(stores)
    made = stores.budgets.put(budget_of(Scope.APP, attachment.app_id, 0))
    assert percents(stores) == []
    assert refuses(stores, made, 1)
    assert percents(stores) == [100]


def test_a_refusal_that_waiting_does_not_help_counts_as_the_highest_alert_once_in_a_period(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    attachment = add_all(stores)
    made = stores.budgets.put(budget_of(Scope.APP, attachment.app_id, 100, alerts=(50, 90)))
    spend(stores, 1, app_id=attachment.app_id)
    store = LeaseStore(stores.db, audit=stores.audit.add)
    with caplog.at_level(logging.WARNING, "penstock.budgets"):
        for holder in ("w", "w", "other"):
            assert refuses(stores, made, 71, store=store, holder=holder)
        assert refuses(stores, made, 71)
    (event,) = told(stores)
    assert event.after is not None
    assert (event.after["percent"], event.after["refuses"], event.after["spent"]) == (90, True, "0.00000003")
    (line,) = caplog.messages
    assert line.startswith(f"the budget of app {attachment.app_name} of 0.0000001 USD per month, since ")
    assert "refuses requests that may cost more than is left: 0.00000003 USD is in the ledger" in line
    spend(stores, 2, app_id=attachment.app_id, amount_nanos=65)
    assert len(told(stores)) == 1


def test_what_another_worker_may_give_back_is_no_alert_nor_is_a_budget_without_alerts(stores: Stores) -> None:
    attachment = add_all(stores)
    made = stores.budgets.put(budget_of(Scope.APP, attachment.app_id, 100))
    assert not refuses(stores, made, 60)
    assert refuses(stores, made, 60, holder="other")
    silent = stores.budgets.put(budget_of(Scope.APP, attachment.app_id, 10, period="day", alerts=()))
    assert refuses(stores, silent, 11)
    assert told(stores) == []
    with stores.db.write() as connection:
        connection.execute(update(budget_periods).values(spent_nanos=90))
    assert refuses(stores, made, 101, holder="other")
    assert percents(stores) == [100]
    with stores.db.read() as connection:
        assert 100 in connection.execute(select(budget_periods.c.alerted)).scalars().all()
