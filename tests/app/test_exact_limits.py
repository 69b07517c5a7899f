"""Two servers on one database: a limit holds over all of their workers together, exactly, and so does a changed one.

PENSTOCK_SOAK=1: 20,000 requests to 4 workers of each at a limit of 5,000, and a whole minute's wait for the window.
"""

import os
import re
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import func, select, update

from penstock.store.governance import lease_usage
from tests.app.test_reload import until
from tests.app.twins import App, Twins, twins, widest
from tests.app.volley import Answer
from tests.postgres import Postgres

SOAK = bool(os.environ.get("PENSTOCK_SOAK"))
WORKERS, LIMIT, COUNT = (4, 5_000, 20_000) if SOAK else (2, 500, 2_000)
SOME = 800
WINDOW_S = 60
pytestmark = pytest.mark.timeout(600 if SOAK else 240)


@pytest.fixture(scope="module")
def pair(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    """Both servers, for all tests here: each takes an app of its own."""
    with twins(tmp_path_factory.mktemp("twins"), postgres.new_database(migrated=False), workers=WORKERS) as made:
        yield made


def refused(answers: list[Answer]) -> list[Answer]:
    """Those that were not admitted, each of which tells why and when to come again."""
    found = [one for one in answers if one.status != 200]
    assert {one.status for one in found} <= {429}
    for one in found:
        wait_s, headers = int(one.headers["retry-after"]), one.headers
        assert 1 <= wait_s <= WINDOW_S
        assert one.error["code"] == "rate_limit_exceeded"
        assert one.error["message"].endswith(f"a minute; this limit frees in {wait_s} s.")
        assert 0 <= int(headers["x-ratelimit-remaining-requests"]) < int(headers["x-ratelimit-limit-requests"])
        assert re.fullmatch("[1-6]?[0-9]s", headers["x-ratelimit-reset-requests"])
    return found


def test_two_servers_together_admit_what_a_key_may_and_no_more(
    pair: Twins, record_property: Callable[[str, object], None]
) -> None:
    app, called = pair.app("exact"), pair.upstream.requests
    app.limit(LIMIT)
    told = len(app.answers)
    app.fire(COUNT)
    assert len({one.worker for one in app.answers[told:] if one.status == 200}) == 2 * WORKERS
    assert {one.headers["x-ratelimit-limit-requests"] for one in app.answers[told:]} == {str(LIMIT)}
    assert len(refused(app.answers)) == len(app.answers) - app.admitted
    entries = app.entries()
    assert app.admitted == pair.upstream.requests - called == len(entries)
    assert widest(entries) <= LIMIT
    # On a machine that needs more than a minute for it the window moves on, and more are admitted later.
    first = min(entry.admitted_us for entry in entries) / 1e6
    offered = sum(one.at < first + WINDOW_S for one in app.answers)
    assert offered >= 2 * LIMIT, f"only {offered} answers in a minute: this machine cannot show it"
    admitted = sum(entry.admitted_us / 1e6 < first + WINDOW_S for entry in entries)
    took_s = max(one.at for one in app.answers) - first
    record_property("figures", f"{admitted} of {LIMIT} admitted, {offered} offered in a minute, all in {took_s:.1f} s")
    assert admitted >= 0.99 * LIMIT


def test_what_one_server_holds_and_does_not_use_goes_to_the_other(pair: Twins) -> None:
    app = pair.app("idle")
    app.limit(SOME)
    app.fire(SOME // 2)
    until(lambda: bool(app.fire(SOME // 4, servers=1)) and app.admitted >= 0.99 * SOME, "what the other gives back")
    assert 0.99 * SOME <= widest(app.entries()) <= SOME


def test_who_waits_as_long_as_a_refusal_says_is_admitted_again(pair: Twins) -> None:
    app = pair.app("patient")
    app.limit(4 * WORKERS)
    app.fire(20 * WORKERS)
    # As long as a worker has some of it in stock, another says that it may be free at once.
    until(lambda: wait_of(app.ask()) >= 45, "a refusal that says when the window will have moved on")
    answer = app.answers[-1]
    if not SOAK:
        passes(pair, app, 50)
        # A worker that has just refused does so from memory for a moment.
        until(lambda: wait_of(app.ask()) <= 15, "the window that has moved on")
        answer = app.answers[-1]
    waits = 0
    while wait := wait_of(answer):
        waits += 1
        free_at = time.monotonic() + wait
        until(lambda free_at=free_at: time.monotonic() >= free_at, "the time that was said")  # type: ignore[misc]
        answer = app.ask()
    assert waits <= 3
    assert not SOAK or widest(app.entries()) <= 4 * WORKERS


def wait_of(answer: Answer) -> int:
    """After how many seconds it may be asked again; 0 when it was admitted."""
    return 0 if answer.status == 200 else int(*[one.headers["retry-after"] for one in refused([answer])])


def passes(pair: Twins, app: App, seconds: int) -> None:
    """What the app did was so much earlier, once its workers have told all of it."""
    own = lease_usage.c.counter == f"r:key:{app.key_id}:"
    with pair.database() as db:

        def told() -> bool:
            with db.read() as connection:
                return bool(connection.scalar(select(func.sum(lease_usage.c.used)).where(own)) == app.admitted)

        until(told, "what was used is told")
        with db.write() as connection:
            connection.execute(update(lease_usage).where(own).values(second=lease_usage.c.second - seconds))


def test_a_changed_limit_is_the_limit_of_all_workers_of_both(pair: Twins) -> None:
    app = pair.app("changing")
    app.limit(4 * SOME)
    assert refused(app.fire(SOME // 5)) == []
    app.limit(SOME)
    assert app.admitted < SOME
    refused(app.fire(2 * SOME))
    assert app.admitted >= 0.99 * SOME
    assert widest(app.entries()) <= SOME
    more = SOME + SOME // 4
    pair.servers[1].cli("limits:set", "-a", app.name, "--key", app.key_id, "--requests-per-minute", str(more))
    app.until_told(more)
    refused(app.fire(SOME))
    assert 0.99 * more <= app.admitted
    assert widest(app.entries()) <= more


def test_a_limit_that_is_lowered_below_what_was_used_admits_nothing_from_when_all_workers_tell_it(pair: Twins) -> None:
    app = pair.app("lowered")
    app.limit(20 * SOME)
    app.fire(SOME // 4)
    for _ in range(10):  # so few that workers have some in stock when the limit changes
        app.ask_each()
    app.limit(SOME // 8)
    known_us = time.time() * 1e6
    for _ in range(10):
        app.ask_each()
    entries = app.entries()
    end_us = min(entry.admitted_us for entry in entries) + WINDOW_S * 1e6
    assert [entry for entry in entries if known_us < entry.admitted_us < end_us] == []
