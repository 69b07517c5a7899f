"""Guessing credentials is slowed per source and per account, and nobody who is signed in is locked out by it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.control.context import ControlContext
from penstock.control.people.sign_in import SignIn
from penstock.control.people.slowdown import FREE_FAILURES, WINDOW_S, Attempt, Slowdown
from penstock.domain.access import Role
from penstock.web.api import Caller, Credentials
from penstock.web.source import networks, source_of
from tests.control.plane import CATALOGUE, EMAIL, Plane, running_plane
from tests.postgres import Postgres


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slow_plane(tmp_path: Path, clock: Clock) -> Iterator[Plane]:
    """A plane on that clock, which believes X-Forwarded-For of this machine: tests come from where they say."""
    with running_plane(tmp_path, clock=clock, trusted_proxies=("127.0.0.1",)) as running:
        yield running


def attempt(source: str = "10.0.0.1", account: str | None = None, proof: str = "wrong") -> Attempt:
    return Attempt(source, None if account is None else account.encode(), proof.encode())


def fail(slowdown: Slowdown, times: int, what: Attempt) -> list[int]:
    """The waits that each of so many failing attempts meets; one that has to wait does not count."""
    waits = []
    for _ in range(times):
        waits.append(slowdown.wait_s(what))
        if waits[-1] == 0:
            slowdown.failed(what)
    return waits


def test_five_failures_are_free_and_then_the_delay_doubles_to_a_minute(clock: Clock) -> None:
    slowdown, delays = Slowdown(clock), []
    assert fail(slowdown, FREE_FAILURES, attempt()) == [0] * FREE_FAILURES
    for _ in range(8):
        delays.append(slowdown.wait_s(attempt()))
        clock.now += delays[-1]
        assert fail(slowdown, 1, attempt()) == [0]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_wait_shrinks_with_the_time_and_is_whole_seconds(clock: Clock) -> None:
    slowdown = Slowdown(clock)
    for _ in range(3):
        fail(slowdown, FREE_FAILURES, attempt())
        clock.now += 60
    fail(slowdown, 1, attempt())
    first = slowdown.wait_s(attempt())
    clock.now += 0.5
    assert slowdown.wait_s(attempt()) == first
    clock.now += 0.5
    assert slowdown.wait_s(attempt()) == first - 1


def test_failures_older_than_the_window_do_not_count(clock: Clock) -> None:
    slowdown = Slowdown(clock)
    for _ in range(20):
        assert fail(slowdown, 1, attempt()) == [0]
        clock.now += WINDOW_S / (FREE_FAILURES - 1)


def test_while_slowed_one_attempt_is_looked_at_at_a_time(clock: Clock) -> None:
    slowdown = Slowdown(clock)
    fail(slowdown, FREE_FAILURES, attempt())
    clock.now += 1
    assert [slowdown.wait_s(attempt()) for _ in range(3)] == [0, 1, 1]


def test_a_success_does_not_undo_the_failures_beside_it(clock: Clock) -> None:
    slowdown, waits = Slowdown(clock), []
    for number in range(FREE_FAILURES + 9):
        slowdown.succeeded(attempt(proof=f"own {number}"))
        waits += fail(slowdown, 1, attempt())
        assert slowdown.wait_s(attempt(proof=f"own {number}")) == 0
    # One more than without any success: the token that a login makes is let in after the one that it was made with.
    assert waits == [0] * FREE_FAILURES + [1] * 9
    slowdown.succeeded(attempt(proof="own, once more"))
    assert slowdown.wait_s(attempt()) == 1
    clock.now += WINDOW_S
    assert slowdown.wait_s(attempt()) == 0


def test_whoever_mistypes_and_then_gets_it_right_is_not_hindered_afterwards(slow_plane: Plane, clock: Clock) -> None:
    for mistakes in (FREE_FAILURES - 1, FREE_FAILURES + 3):
        source = f"198.51.100.{mistakes}"
        for number in range(mistakes):
            assert ask(slow_plane, f"typo-{number}", source=source, user=EMAIL).status_code in (401, 429)
            clock.now += 60
        assert ask(slow_plane, slow_plane.token, source=source, user=EMAIL).status_code == 200
        made = slow_plane.ok("POST", "/operators/~/tokens")["token"]
        assert [ask(slow_plane, made, source=source).status_code for _ in range(9)] == [200] * 9
        assert ask(slow_plane, slow_plane.token, source=source, user=EMAIL).status_code == 200


def test_a_right_token_under_a_wrong_user_is_a_failure_that_leaves_it_known(slow_plane: Plane) -> None:
    assert ask(slow_plane, slow_plane.token).status_code == 200
    replies = [ask(slow_plane, slow_plane.token, user="x@example.com").status_code for _ in range(7)]
    assert replies == [401] * 5 + [429] * 2
    assert ask(slow_plane, "wrong").status_code == 429
    assert ask(slow_plane, slow_plane.token).status_code == 200


def test_a_known_credential_is_never_held_up_and_does_not_help_the_guesser_beside_it(clock: Clock) -> None:
    slowdown = Slowdown(clock)
    slowdown.succeeded(attempt(proof="right"))
    fail(slowdown, FREE_FAILURES, attempt())
    assert slowdown.wait_s(attempt(proof="right")) == 0
    slowdown.succeeded(attempt(proof="right"))
    assert slowdown.wait_s(attempt()) == 1
    assert slowdown.wait_s(attempt(source="10.0.0.2", proof="right")) == 0
    slowdown.failed(attempt(proof="right"))
    assert slowdown.wait_s(attempt(proof="right")) > 0


def test_an_account_is_slowed_from_every_source_and_others_are_not(clock: Clock) -> None:
    slowdown, waits = Slowdown(clock), []
    for number in range(FREE_FAILURES + 2):
        far = attempt(source=f"10.0.0.{number}", account="ann")
        assert slowdown.wait_s(far) == 0
        waits.append(slowdown.failed(far).wait_s)
    assert waits == [0] * FREE_FAILURES + [1, 1]
    assert slowdown.failed(attempt(source="10.9.9.9", account="bob")).wait_s == 0
    clock.now += 1
    delayed = [slowdown.failed(attempt(source=f"10.0.1.{number}", account="ann")).wait_s for number in range(3)]
    assert delayed == [0, 2, 2]


def test_guesses_from_many_addresses_do_not_lock_the_accounts_owner_out(slow_plane: Plane) -> None:
    replies = [ask(slow_plane, f"wrong-{at}", source=f"198.51.100.{at}", user=EMAIL) for at in range(12)]
    assert [reply.status_code for reply in replies] == [401] * FREE_FAILURES + [429] * 7
    assert "for this account" in replies[-1].json()["message"]
    assert replies[-1].headers["retry-after"] == "1"
    assert ask(slow_plane, slow_plane.token, source="203.0.113.99", user=EMAIL).status_code == 200


def test_one_customers_ipv6_addresses_are_one_source(clock: Clock) -> None:
    slowdown = Slowdown(clock)
    for number in range(FREE_FAILURES):
        fail(slowdown, 1, attempt(source=f"2001:db8:1:1:{number}::1"))
    assert slowdown.wait_s(attempt(source="2001:db8:1:1:ffff::9")) == 1
    assert slowdown.wait_s(attempt(source="2001:db8:1:2::1")) == 0


def test_memory_is_bounded(clock: Clock) -> None:
    slowdown = Slowdown(clock, entries=10)
    for number in range(100):
        slowdown.failed(attempt(source=f"10.0.{number}.1", account=f"a{number}"))
        slowdown.succeeded(attempt(source=f"10.1.{number}.1"))
    assert len(slowdown._failures) == len(slowdown._known) == 10


@given(st.lists(st.tuples(st.sampled_from(("wrong", "right")), st.floats(0, 200)), max_size=60))
def test_no_more_guesses_are_looked_at_than_the_delays_allow(steps: list[tuple[str, float]]) -> None:
    clock = Clock()
    slowdown, looked_at = Slowdown(clock), list[float]()
    for proof, pause in steps:
        clock.now += pause
        if slowdown.wait_s(attempt(proof=proof)) > 0:
            continue
        if proof == "wrong":
            looked_at.append(clock.now)
            slowdown.failed(attempt(proof=proof))
    for index, at in enumerate(looked_at):
        within = [other for other in looked_at[:index] if other > at - WINDOW_S]
        if len(within) >= FREE_FAILURES:
            assert at - within[-1] >= min(2 ** (min(len(within), 12) - FREE_FAILURES), 60)


def ask(plane: Plane, token: str, *, source: str = "203.0.113.1", user: str | None = None) -> httpx.Response:
    """GET /account with a token, from an address that the proxy in front reports."""
    headers = {"X-Forwarded-For": source}
    if user is not None:
        return httpx.get(f"{plane.url}/account", headers=headers, auth=(user, token), trust_env=False)
    return httpx.get(f"{plane.url}/account", headers=headers | {"Authorization": f"Bearer {token}"}, trust_env=False)


def test_the_sixth_wrong_token_in_a_row_is_429_with_retry_after(slow_plane: Plane, clock: Clock) -> None:
    assert [ask(slow_plane, f"wrong-{number}").status_code for number in range(6)] == [401] * 5 + [429]
    held = ask(slow_plane, slow_plane.token)
    assert (held.status_code, held.json()["id"], held.headers["retry-after"]) == (429, "rate_limit", "1")
    assert ask(slow_plane, slow_plane.token, source="203.0.113.2").status_code == 200
    clock.now += 1
    assert ask(slow_plane, slow_plane.token).status_code == 200
    assert ask(slow_plane, "wrong").status_code == 401


def test_a_signed_in_operator_is_not_locked_out_by_a_guesser_at_the_same_address(slow_plane: Plane) -> None:
    assert ask(slow_plane, slow_plane.token).status_code == 200
    for number in range(10):
        ask(slow_plane, f"wrong-{number}", user=EMAIL)
    assert ask(slow_plane, "wrong").status_code == 429
    assert ask(slow_plane, slow_plane.token).status_code == 200
    assert ask(slow_plane, slow_plane.token, user=EMAIL).status_code == 200


def test_a_revoked_token_is_not_known_any_more(slow_plane: Plane) -> None:
    slow_plane.operator("ann@example.com", Role.MEMBER)
    minted = slow_plane.ok("POST", "/operators/ann@example.com/tokens")
    assert ask(slow_plane, minted["token"]).status_code == 200
    slow_plane.ok("DELETE", f"/operators/ann@example.com/tokens/{minted['id']}")
    assert [ask(slow_plane, minted["token"]).status_code for _ in range(6)] == [401] * 5 + [429]


def test_the_last_use_of_a_token_is_noted_beside_the_request(slow_plane: Plane) -> None:
    context = ControlContext(gateway_url="", catalogue=CATALOGUE, version="0")
    sign_in = SignIn(slow_plane.stores, context)
    made = slow_plane.ok("POST", "/operators/~/tokens")
    assert sign_in(Credentials(made["token"]), Caller("192.0.2.1", "r")) is not None
    sign_in._notes.shutdown(wait=True)
    noted = slow_plane.stores.operators.find_token(made["id"])
    assert noted is not None
    assert noted.last_used_at is not None


def test_slowing_is_told_once_in_the_log_and_the_audit_log_without_what_was_typed(
    slow_plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="penstock"):
        for number in range(9):
            ask(slow_plane, f"hidden-{number}", user="hidden-user")
            ask(slow_plane, f"hidden-{number}", source=f"203.0.113.{100 + number}", user=EMAIL)
    lines = [record.getMessage() for record in caplog.records if record.name == "penstock.control.people.sign_in"]
    assert len(lines) == 3
    assert "source 203.0.113.1 " in lines[0] + lines[1]
    assert "hidden" not in caplog.text
    events = [event for event in slow_plane.stores.audit.list() if event.action == "sign_in.slow"]
    assert {(event.source, event.object_name) for event in events} == {
        ("203.0.113.1", "source 203.0.113.1"),
        ("203.0.113.1", "account unknown"),
        ("203.0.113.104", f"account {EMAIL}"),
    }
    assert len(events) == 3
    assert "hidden" not in repr(events)
    assert {event.actor_email for event in events} == {"(not signed in)"}


def test_a_user_that_no_database_takes_is_401_and_its_slowing_is_told(
    tmp_path: Path, postgres: Postgres, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    url = postgres.new_database()
    with running_plane(tmp_path, database=url, clock=clock) as plane, caplog.at_level(logging.WARNING):
        replies = [httpx.get(f"{plane.url}/account", auth=("\0", "x"), trust_env=False) for _ in range(5)]
        assert [reply.status_code for reply in replies] == [401] * 5
        told = [event.object_name for event in plane.stores.audit.list() if event.action == "sign_in.slow"]
        assert sorted(str(name) for name in told) == ["account unknown", "source 127.0.0.1"]
    assert len([record for record in caplog.records if "is slowed" in record.getMessage()]) == 2
    postgres.drop(url)


def test_without_trust_x_forwarded_for_changes_nothing(tmp_path: Path, clock: Clock) -> None:
    with running_plane(tmp_path, clock=clock) as plane:
        replies = [ask(plane, "wrong", source=f"203.0.113.{number}").status_code for number in range(6)]
        assert replies == [401] * 5 + [429]
        plane.http.post("/apps", json={}, headers={"X-Forwarded-For": "203.0.113.7"})
        events = plane.events()
        assert {event.source for event in events} == {"127.0.0.1"}


def test_a_success_through_a_proxy_is_audited_with_the_address_that_it_reports(slow_plane: Plane) -> None:
    slow_plane.http.post("/apps", json={}, headers={"X-Forwarded-For": "192.0.2.1, 203.0.113.9"})
    assert slow_plane.stores.audit.list()[-1].source == "203.0.113.9"


@pytest.mark.parametrize(
    ("peer", "forwarded", "source"),
    [
        ("198.51.100.1", [], "198.51.100.1"),
        ("198.51.100.1", ["203.0.113.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["192.0.2.66, 203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["192.0.2.66", "203.0.113.1, 10.0.0.2"], "203.0.113.1"),
        ("10.0.0.1", ["10.0.0.3,10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.1:4711"], "203.0.113.1"),
        ("10.0.0.1", ["[2001:DB8::1]:4711"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["2001:db8::1%eth0"], "2001:db8::1"),
        ("::1", ["203.0.113.1"], "203.0.113.1"),
        (None, ["203.0.113.1"], "unknown"),
    ],
)
def test_the_source_is_the_last_hop_that_no_trusted_proxy_is(
    peer: str | None, forwarded: list[str], source: str
) -> None:
    assert source_of(peer, forwarded, networks(("10.0.0.0/8", "::1"))) == source


@given(st.lists(st.text(max_size=40), max_size=4))
def test_whatever_is_forwarded_the_source_is_an_address_that_the_log_takes(forwarded: list[str]) -> None:
    assert len(source_of("10.0.0.1", forwarded, networks(("0.0.0.0/0", "::/0")))) <= 39
