"""The ledger for its readers, on both databases: sums, entries in pages, and what the database does for them."""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from bench.usage import plans_of
from penstock.domain.access import Role
from penstock.domain.ids import new_id
from penstock.domain.ledger import DAY_US, LedgerEntry, UsageRow
from penstock.domain.platform import App
from penstock.store.database import Database
from penstock.store.metering.usage import GROUPS, Chosen, Cursor, UsageStore, cursor
from penstock.store.nouns.stores import Stores
from penstock.store.paging import Page
from tests.metered import NOVEMBER_US, fill, metered, prune

MODELS, APPS = ("chat-large", "chat-small"), ("shop", "blog", "wiki")
SUMS = UsageRow.__struct_fields__[2:]


def spread(count: int = 120) -> list[LedgerEntry]:
    """Entries over four days, of three apps with a key each, of two models, with all kinds of outcome."""
    return [
        metered(
            f"request-{number}",
            # Not in the order of admission, as a ledger is not.
            admitted_us=NOVEMBER_US + (number * 7_919 % count) * 4 * DAY_US // count,
            app_id=f"app-{number % 3}",
            app_name=APPS[number % 3],
            key_id=f"{number % 3:036d}",
            key_prefix=f"inf-{number % 3}",
            model=MODELS[number % 2],
            target=None if number % 11 == 0 else "someone/it",
            outcome="upstream_error" if number % 11 == 0 else "completed",
            currency="EUR" if number % 13 == 0 else "USD",
            amount_nanos=number * 17,
            cost_nanos=number if number % 2 else None,
            cost_currency="USD",
            input_tokens=number,
            estimated=number % 5 == 0,
        )
        for number in range(count)
    ]


def summed(entries: Iterable[LedgerEntry], by: tuple[str, ...]) -> dict[tuple[str, ...], Counter[str]]:
    """The sums of entries, counted one by one."""
    found: dict[tuple[str, ...], Counter[str]] = {}
    for entry in entries:
        day = datetime.fromtimestamp(entry.admitted_us / 1e6, UTC).date().isoformat()
        values = {"day": day, "target": entry.target or "", "model": entry.model, "app": entry.app_id}
        group = tuple((values | {"key": entry.key_id})[name] for name in by)
        sums = found.setdefault((*group, entry.currency), Counter())
        sums["requests"] += 1
        sums["failed"] += entry.outcome == "upstream_error"
        sums["estimated"] += entry.usage.estimated
        sums["cost_nanos"] += (entry.cost_nanos or 0) if entry.cost_currency == entry.currency else 0
        sums["amount_nanos"] += entry.amount_nanos
        for name in SUMS[3:8]:
            sums[name] += getattr(entry.usage, name)
    return found


def as_counted(rows: Iterable[UsageRow], by: tuple[str, ...]) -> dict[tuple[str, ...], Counter[str]]:
    """Rows in the same form."""
    return {
        (*(row.group[GROUPS[name]] for name in by), row.currency): Counter({name: getattr(row, name) for name in SUMS})
        for row in rows
    }


@pytest.fixture
def usage(db: Database) -> UsageStore:
    """The ledger with the spread entries."""
    fill(db, spread())
    return UsageStore(db)


@pytest.mark.parametrize(
    "by", [(), ("model",), ("app",), ("key",), ("target",), ("day",), ("day", "model"), ("app", "key", "target")]
)
def test_sums_are_those_of_the_entries(usage: UsageStore, by: tuple[str, ...]) -> None:
    assert as_counted(usage.sums(Chosen(), by), by) == summed(spread(), by)


@pytest.mark.parametrize(
    ("chosen", "matches"),
    [
        (Chosen(app_id="app-1"), lambda one: one.app_id == "app-1"),
        (Chosen(app_name="blog"), lambda one: one.app_id == "app-1"),
        (Chosen(key=f"{2:036d}"), lambda one: one.app_id == "app-2"),
        (Chosen(key="inf-2", model="chat-small"), lambda one: one.app_id == "app-2" and one.model == "chat-small"),
        (Chosen(model="no-such"), lambda one: False),
    ],
)
def test_what_is_chosen_is_what_is_summed_and_listed(
    usage: UsageStore, chosen: Chosen, matches: Callable[[LedgerEntry], bool]
) -> None:
    wanted = [entry for entry in spread() if matches(entry)]
    assert as_counted(usage.sums(chosen, ("day",)), ("day",)) == summed(wanted, ("day",))
    listed = usage.entries(chosen, Page(by="cursor", size=500))
    in_order = sorted(wanted, key=lambda one: one.admitted_us)
    assert [entry.request_id for entry in listed] == [entry.request_id for entry in in_order]


bounds = st.none() | st.integers(-DAY_US, 5 * DAY_US) | st.integers(-1, 5).map(lambda day: day * DAY_US)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(since=bounds, until=bounds)
def test_a_period_is_exact_also_where_it_cuts_through_days(
    usage: UsageStore, since: int | None, until: int | None
) -> None:
    since = None if since is None else NOVEMBER_US + since
    until = None if until is None else NOVEMBER_US + until
    wanted = [
        entry
        for entry in spread()
        if (since is None or since <= entry.admitted_us) and (until is None or entry.admitted_us < until)
    ]
    by = ("model", "target", "day")
    assert as_counted(usage.sums(Chosen(since_us=since, until_us=until), by), by) == summed(wanted, by)


def test_sums_outlive_the_entries_and_a_cut_day_without_them_counts_whole(db: Database, usage: UsageStore) -> None:
    prune(db, NOVEMBER_US + 3 * DAY_US)
    kept = usage.entries(Chosen(), Page(by="seq", size=500))
    assert len(kept) < len(spread())
    assert as_counted(usage.sums(Chosen(), ("day",)), ("day",)) == summed(spread(), ("day",))
    noon = NOVEMBER_US + DAY_US // 2
    since_noon = as_counted(usage.sums(Chosen(since_us=noon), ("model",)), ("model",))
    assert since_noon == summed(spread(), ("model",))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("chosen", [Chosen(), Chosen(app_id="app-1"), Chosen(key="inf-2"), Chosen(model="chat-small")])
def test_entries_come_in_pages_each_once_and_in_order(usage: UsageStore, chosen: Chosen, descending: bool) -> None:
    found: list[LedgerEntry] = []
    page = Page(by="cursor", size=7, descending=descending)
    while len(part := usage.entries(chosen, page)) > 7:
        found += part[:7]
        last = str(Cursor(part[6].admitted_us, part[6].seq))
        page = Page(by="cursor", size=7, first=last, after=True, descending=descending)
    found += part
    everything = usage.entries(chosen, Page(by="cursor", size=1000, descending=descending))
    assert [entry.seq for entry in found] == [entry.seq for entry in everything]
    places = [(entry.admitted_us, entry.seq) for entry in found]
    assert places == sorted(set(places), reverse=descending)


def test_entries_between_two_cursors_are_those_between_them(usage: UsageStore) -> None:
    everything = usage.entries(Chosen(), Page(by="cursor", size=1000))
    places = [str(Cursor(entry.admitted_us, entry.seq)) for entry in everything]
    for after in (False, True):
        page = Page(by="cursor", first=places[3], last=places[9], after=after)
        wanted = everything[3 + after : 10]
        assert [entry.seq for entry in usage.entries(Chosen(), page)] == [entry.seq for entry in wanted]


def test_an_entry_is_read_as_it_was_written(db: Database) -> None:
    [written] = fill(
        db,
        [
            metered(
                "r1", idempotency_id=b"i" * 32, raw_usage='{"a":1}', cached_answer=True, stand_in="s", queued_ms=1.5,
                first_event_ms=2.5, price_version="0123456789abcdef", cost_nanos=7, cost_currency="EUR", stream=True,
                attempts='[["someone/it","completed",2.5,12.5]]', reasoning_tokens=3, estimated=True,
            )
        ],
    )  # fmt: skip
    assert UsageStore(db).entries(Chosen(), Page(by="seq")) == [written]


@given(st.text("0123456789-", max_size=24) | st.text(max_size=6))
def test_any_text_is_a_cursor_or_a_refusal(given_text: str) -> None:
    try:
        place = cursor(given_text)
    except ValueError:
        return
    assert place == cursor(str(place))
    assert all(0 <= number < 2**63 for number in place)


def own(stores: Stores, name: str, owner_id: str) -> App:
    """An app of an operator."""
    now = datetime.now(UTC)
    app = App(
        id=new_id(), name=name, owner_email="x@example.com", owner_id=owner_id, region="us", stack="heroku-24",
        created_at=now, updated_at=now,
    )  # fmt: skip
    stores.apps.add(app)
    return app


def test_an_operator_sees_the_apps_that_they_own_or_share(db: Database, stores: Stores) -> None:
    ann, bob = (stores.operators.add(f"{name}@example.com", role=Role.MEMBER) for name in ("ann", "bob"))
    mine, shared, hidden = (own(stores, name, owner.id) for name, owner in zip(APPS, (ann, bob, bob), strict=True))
    stores.collaborators.put(shared.id, ann.id, role=Role.VIEWER)
    entries = [
        metered(f"r{number}", app_id=app.id, key_id=app.id, app_name=app.name, admitted_us=NOVEMBER_US + number // 2)
        for number, app in enumerate([mine, shared, hidden] * 5)
    ]
    fill(db, entries)
    usage, chosen = UsageStore(db), Chosen(visible_to=ann.id)
    assert [row.group["app_name"] for row in usage.sums(chosen, ("app",))] == [
        app.name for app in sorted((mine, shared), key=lambda app: app.id)
    ]
    wanted = [entry.request_id for entry in entries if entry.app_id != hidden.id]
    assert [entry.request_id for entry in usage.entries(chosen, Page(by="cursor"))] == wanted
    for app, seen in ((mine, 5), (hidden, 0)):
        found = usage.entries(Chosen(visible_to=ann.id, key=app.id), Page(by="cursor"))
        assert [entry.app_id for entry in found] == [app.id] * seen
    first = usage.entries(chosen, Page(by="cursor", size=3))
    assert [entry.request_id for entry in first] == wanted[:4]
    stores.apps.update(mine.id, updated_at=datetime.now(UTC), name="renamed")
    assert "renamed" in {row.group["app_name"] for row in usage.sums(chosen, ("app",))}


QUESTIONS: dict[str, Callable[[UsageStore], Any]] = {
    "sums by model": lambda usage: usage.sums(Chosen(), ("model",)),
    "sums of a cut period": lambda usage: usage.sums(
        Chosen(since_us=NOVEMBER_US + 5, until_us=NOVEMBER_US + 2 * DAY_US + 5), ("model",)
    ),
    "sums of an app in a cut period": lambda usage: usage.sums(
        Chosen(app_id="app-1", since_us=NOVEMBER_US + 5, until_us=NOVEMBER_US + DAY_US), ("key",)
    ),
    "sums of an operator's apps": lambda usage: usage.sums(Chosen(visible_to="nobody", since_us=5), ("app",)),
    "the first entries": lambda usage: usage.entries(Chosen(), Page(by="cursor", size=10)),
    "the last entries": lambda usage: usage.entries(Chosen(), Page(by="cursor", size=10, descending=True)),
    "entries by number": lambda usage: usage.entries(Chosen(), Page(by="seq", size=10, first=50, after=True)),
    "entries in the middle": lambda usage: usage.entries(
        Chosen(), Page(by="cursor", size=10, first=str(Cursor(NOVEMBER_US + DAY_US, 7)), after=True)
    ),
    "entries of an app": lambda usage: usage.entries(Chosen(app_id="app-1"), Page(by="cursor", size=10)),
    "entries of a key": lambda usage: usage.entries(Chosen(key="inf-1"), Page(by="cursor", size=10)),
    "entries of an operator": lambda usage: usage.entries(Chosen(visible_to="nobody"), Page(by="cursor", size=10)),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_question_reads_all_entries(db: Database, question: str) -> None:
    fill(db, spread(3000))
    with db.write() as connection:
        connection.execute(text("ANALYZE"))
    plans = list(plans_of(db, lambda: QUESTIONS[question](UsageStore(db))))
    assert plans
    for statement, plan in plans:
        assert "Seq Scan on ledger_entries" not in plan, (statement, plan)
        assert not [
            line for line in plan.splitlines() if line.startswith("SCAN ledger_entries") and "INDEX" not in line
        ], (statement, plan)


def test_the_entries_of_a_key_are_found_by_its_app(db: Database) -> None:
    fill(db, spread(3000))
    with db.write() as connection:
        connection.execute(text("ANALYZE"))
    found = plans_of(
        db, lambda: UsageStore(db).entries(Chosen(key="inf-1", visible_to=None), Page(by="cursor", size=5))
    )
    assert any("ix_ledger_entries_app_id" in plan for _, plan in found)
