"""The end of a budget at two workers over one real store: what is idle at one serves the other, and what is refused is
refused for a reason, and told."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from penstock.domain.catalogue import Catalogue, Model, Rate
from penstock.domain.errors import PenstockError
from penstock.domain.limits import Shared
from penstock.domain.platform import AuditEvent
from penstock.gateway.limits.defaults import defaults
from penstock.gateway.limits.governor import Allowance, Governor
from penstock.gateway.limits.shared import SharedRules
from penstock.gateway.wire import Parsed, parse_chat
from penstock.ledger.leases import Leases
from penstock.settings.tree import BudgetDefault, LimitsSettings
from penstock.store.database import Database
from penstock.store.governance import leases as lease_rows
from penstock.store.metering.leases import LeaseStore
from penstock.store.nouns.audit import AuditStore
from tests.gateway.allowances import Rows, principal
from tests.gateway.lab import CHAT, run, until

RATE = Rate(input=Decimal(3), output=Decimal(15))
MODEL = Model(id="m", owner="x", rate=RATE)
# What a request of the tests may cost at the most is 0.0185, and at the least 0.0035.
COST = 72_000


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """A database that both workers use."""
    opened = Database.open(tmp_path / "penstock.db")
    yield opened
    opened.close()


def asked(**fields: Any) -> Parsed:
    return parse_chat(json.dumps(CHAT | {"max_tokens": 1000} | fields).encode())


@asynccontextmanager
async def workers(db: Database, amount: str, count: int = 2) -> AsyncIterator[list[Allowance]]:
    """What one app with a budget of so much a month may do at each of some workers."""
    rows = (BudgetDefault(scope="app", period="month", amount=amount),)
    made = defaults(LimitsSettings(heroku_defaults=False), (), rows, catalogue=Catalogue((MODEL,)))
    store = LeaseStore(db, audit=AuditStore(db).add)
    allowances, tasks, held = [], [], []
    for number in range(count):
        leases = Leases(store, f"worker-{number}")
        shared = SharedRules(Rows(Shared(revision=1)))
        allowance = Governor(leases, shared, made).allowance(principal(), MODEL)
        assert allowance is not None
        allowances.append(allowance)
        held.append(leases)
        tasks.append(asyncio.create_task(leases.follow()))
    try:
        yield allowances
    finally:
        for task in tasks:
            task.cancel()
        for leases in held:
            await leases.aclose()


def on_hold(db: Database) -> int:
    """What all workers have of the budget."""
    with db.read() as connection:
        return sum(connection.execute(select(lease_rows.c.granted)).scalars())


def alerts(db: Database) -> list[AuditEvent]:
    return [event for event in AuditStore(db).list() if event.action == "budget.alert"]


def test_one_client_after_the_other_is_served_by_any_worker_as_long_as_the_budget_holds_it(db: Database) -> None:
    async def test() -> None:
        async with workers(db, "0.02") as both:
            for turn in range(6):
                held = await both[turn % 2].obtain(asked())
                assert held.told is None, "the rest of the budget is idle at the other worker"
                held.settle(12, COST)
            assert alerts(db) == []

    run(test)


def test_money_that_is_idle_goes_back_though_there_is_plenty(db: Database) -> None:
    async def test() -> None:
        async with workers(db, "100") as (one, _):
            held = await one.obtain(asked())
            held.settle(12, COST)
            await until(lambda: on_hold(db) == COST)

    run(test)


def test_while_an_open_request_at_another_worker_holds_the_rest_it_is_worth_a_wait(db: Database) -> None:
    async def test() -> None:
        async with workers(db, "0.02") as (one, other):
            held = await one.obtain(asked())
            with pytest.raises(PenstockError, match="Requests that are open, or have just ended, hold") as refused:
                await other.obtain(asked())
            assert (refused.value.retry_after_s, refused.value.should_retry) == (1, True)
            waiting = asyncio.create_task(other.obtain(asked()))
            await asyncio.sleep(0)
            held.settle(12, COST)
            (await waiting).settle(12, COST)
            assert alerts(db) == []

    run(test)


def test_a_budget_that_is_used_up_says_when_it_begins_anew_and_that_is_told_once(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with workers(db, "0.02", 1) as (one,):
            (await one.obtain(asked())).settle(1200, 17_000_000)
            for _ in range(3):
                with pytest.raises(PenstockError, match=r"It begins anew at .*T00:00Z") as refused:
                    await one.obtain(asked())
                assert refused.value.should_retry is False
            (event,) = alerts(db)
            assert event.after is not None
            assert (event.object_name, event.after["percent"], event.after["refuses"]) == ("app a1", 100, True)
            assert (event.after["amount"], event.after["currency"]) == ("0.02", "USD")

    with caplog.at_level(logging.WARNING, "penstock.budgets"):
        run(test)
    (line,) = (record.getMessage() for record in caplog.records if record.name == "penstock.budgets")
    assert "the budget of app a1 of 0.02 USD per month" in line
    assert "refuses requests" in line


def test_a_budget_that_no_request_fits_is_told_at_the_first_one(db: Database) -> None:
    async def test() -> None:
        async with workers(db, "0.003") as (one, _):
            with pytest.raises(PenstockError, match="waiting never helps") as refused:
                await one.obtain(asked(max_tokens=1))
            assert refused.value.should_retry is False
            assert [event.after["percent"] for event in alerts(db) if event.after] == [100]

    run(test)
