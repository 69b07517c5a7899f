"""Limits at one worker: each refuses what it should, says which it is, and gives back what it holds."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.domain.limits import UNLIMITED, LimitRow, Limits, Scope, Shared
from penstock.gateway.underway import KEY_REVOKED
from penstock.settings.tree import LimitsSettings
from tests.gateway.allowances import IDS, WHO, Governed, principal, row
from tests.gateway.conftest import DONE, delta
from tests.gateway.lab import KEY, Answered, Lab, in_turn, lab, refuses, resets, run, says, stalls, until
from tests.upstream import Exchange

SCOPES = list(Scope)


def governed(scope: Scope, model: str = "", **limits: int) -> tuple[Governed, dict[str, Any]]:
    """A worker where one object has these limits, and the lab's key stands for it."""
    its = row(scope, model, **limits)
    if scope is Scope.MODEL:
        return Governed(shared=Shared(revision=1, limits=(its,))), {"principals": {KEY: principal()}}
    return Governed(), {"principals": {KEY: principal(limits=[its])}}


def message(answer: Answered) -> str:
    return str(json.loads(answer.body)["message"])


@pytest.mark.parametrize("scope", SCOPES)
def test_requests_beyond_the_limit_are_refused_by_name_and_with_a_time(tmp_path: Path, scope: Scope) -> None:
    async def test() -> None:
        limits, given = governed(scope, requests_per_minute=2)
        async with lab(tmp_path, {"a": says("Hello.")}, governor=limits, **given) as it:
            assert [(await it.ask()).status for _ in range(2)] == [200, 200]
            refused = await it.ask()
            assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
            assert message(refused) == f"{WHO[scope]} may make 2 requests a minute; this limit frees in 12 s."
            assert refused.headers["retry-after"] == "12"
            assert it.upstreams["a"].requests == 2
            assert len(it.records()) == 4  # nothing of the refused one
            assert limits.leases.used == {f"r:{scope}:{IDS[scope]}:": 2}

    run(test)


@pytest.mark.parametrize("scope", SCOPES)
def test_open_requests_beyond_the_limit_are_refused_until_one_ends(tmp_path: Path, scope: Scope) -> None:
    async def test() -> None:
        limits, given = governed(scope, concurrent_requests=1)
        async with lab(tmp_path, {"a": in_turn(stalls, says("Hello."))}, governor=limits, **given) as it:
            first = it.start()
            await until(lambda: it.upstreams["a"].requests == 1)
            refused = await it.ask()
            assert (refused.status, refused.code) == (429, "concurrency_limit_exceeded")
            assert message(refused).startswith(f"{WHO[scope]} may have 1 request open at once.")
            await first.hang_up()
            assert (await it.ask()).status == 200
            assert limits.open_units() == {}

    run(test)


@pytest.mark.parametrize("scope", SCOPES)
def test_tokens_are_reserved_by_estimate_and_settle_to_what_was_used(tmp_path: Path, scope: Scope) -> None:
    async def test() -> None:
        limits, given = governed(scope, tokens_per_minute=100)
        counter = f"t:{scope}:{IDS[scope]}:"
        async with lab(tmp_path, {"a": in_turn(stalls, says("Hello."))}, governor=limits, **given) as it:
            first = it.start()
            await until(lambda: it.upstreams["a"].requests == 1)
            reserved = limits.leases.used[counter]
            assert 10 < reserved < 40
            await first.hang_up()
            read = limits.leases.used[counter]
            assert 0 < read <= reserved  # the prompt: nothing was produced
            answer = await it.ask()
            used = answer.settled.input_tokens + answer.settled.output_tokens
            assert limits.leases.used[counter] - read == used != reserved
            limits.leases.used[counter] = 90
            refused = await it.ask()
            assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
            told = f"may use 100 tokens a minute; 10 are left and the prompt counts as about {reserved}"
            assert message(refused) == f"{WHO[scope]} {told}; this limit frees in 12 s."

    run(test)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_request_for_more_tokens_than_it_may_have_is_a_400(tmp_path: Path, scope: Scope) -> None:
    async def test() -> None:
        limits, given = governed(scope, max_tokens=100)
        async with lab(tmp_path, {"a": says("Hello.")}, governor=limits, **given) as it:
            assert (await it.ask(max_tokens=100)).status == 200
            for fields in (
                {"max_tokens": 101},
                {"max_completion_tokens": 101},
                {"max_tokens": 50, "max_completion_tokens": 101},
                {"max_tokens": 51, "n": 2},
                {"n": 101},
                {"max_tokens": 10, "extended_thinking": {"enabled": True, "budget_tokens": 2000}},
            ):
                refused = await it.ask(**fields)
                assert (refused.status, refused.code) == (400, "max_tokens_exceeded")
                assert message(refused).startswith(f"{WHO[scope]} may ask for 100 output tokens in one request")
            assert len(it.records()) == 2

    run(test)


def test_without_max_tokens_the_limit_is_sent_and_told(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []

    async def script(exchange: Exchange) -> None:
        sent.append(json.loads(exchange.body))
        await says("Hello.")(exchange)

    async def test() -> None:
        limits, given = governed(Scope.KEY, max_tokens=100)
        async with lab(tmp_path, {"a": script}, governor=limits, **given) as it:
            assert (await it.ask()).headers["penstock-max-tokens"] == "100; limit"
            assert (await it.ask(n=4)).headers["penstock-max-tokens"] == "25; limit"
            assert "penstock-max-tokens" not in (await it.ask(max_tokens=7)).headers
            assert (await it.ask(stream=True)).headers["penstock-max-tokens"] == "100; limit"
        assert [one.get("max_tokens") for one in sent] == [100, 25, 7, 100]

    run(test)


def test_a_model_that_writes_less_than_the_limit_is_sent_no_bound(tmp_path: Path) -> None:
    async def test() -> None:
        limits, given = governed(Scope.KEY, max_tokens=100)
        async with lab(tmp_path, {"a": says("Hello.")}, governor=limits, max_output=100, **given) as it:
            assert "penstock-max-tokens" not in (await it.ask()).headers

    run(test)


def test_every_answer_tells_what_is_left_of_the_nearest_limit(tmp_path: Path) -> None:
    async def test() -> None:
        rows = [
            row(Scope.KEY, requests_per_minute=3, tokens_per_minute=10_000),
            row(Scope.APP, requests_per_minute=100),
            row(Scope.ADDON, "m", tokens_per_minute=1_000),
        ]
        limits = Governed()
        script = in_turn(says("a"), says("b"), refuses("400 Bad"))
        async with lab(tmp_path, {"a": script}, governor=limits, principals={KEY: principal(limits=rows)}) as it:
            plain, streamed, failed, refused = [await it.ask(stream=number == 1) for number in range(4)]
            assert [one.status for one in (plain, streamed, failed, refused)] == [200, 200, 400, 429]
            for number, one in enumerate((plain, streamed, failed, refused)):
                assert one.headers["x-ratelimit-limit-requests"] == "3"
                assert one.headers["x-ratelimit-remaining-requests"] == str(max(0, 2 - number))
                assert one.headers["x-ratelimit-reset-requests"] == "51s"
                assert one.headers["x-ratelimit-limit-tokens"] == "1000"
                assert 900 < int(one.headers["x-ratelimit-remaining-tokens"]) < 1000
                assert one.headers["x-ratelimit-reset-tokens"] == "51s"

    run(test)


def test_without_a_rule_nothing_is_told_and_nothing_is_asked(tmp_path: Path) -> None:
    async def test() -> None:
        limits = Governed()
        async with lab(tmp_path, {"a": says("Hello.")}, governor=limits, principals={KEY: principal()}) as it:
            answer = await it.ask()
            assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
            assert limits.leases.asked == 0

    run(test)


def test_all_rules_hold_together_and_a_refusal_gives_back_what_was_taken(tmp_path: Path) -> None:
    async def test() -> None:
        rows = [
            row(Scope.KEY, concurrent_requests=5, requests_per_minute=10),
            row(Scope.APP, "m", requests_per_minute=1, tokens_per_minute=1_000),
        ]
        limits = Governed()
        async with lab(
            tmp_path, {"a": says("Hello.")}, governor=limits, principals={KEY: principal(limits=rows)}
        ) as it:
            assert (await it.ask()).status == 200
            before = dict(limits.leases.used)
            refused = await it.ask()
            assert message(refused) == "The app shop may make 1 request a minute of m; this limit frees in 12 s."
            assert limits.leases.used == before
            assert before["c:key:k1:"] == 0
            assert before["r:key:k1:"] == 1

    run(test)


def test_once_in_memory_a_limit_costs_no_question_to_the_store(tmp_path: Path) -> None:
    async def test() -> None:
        limits, given = governed(Scope.KEY, requests_per_minute=100, concurrent_requests=10, tokens_per_minute=9_000)
        async with lab(tmp_path, {"a": says("Hello.")}, governor=limits, **given) as it:
            await it.ask()
            asked = limits.leases.asked
            for _ in range(10):
                assert (await it.ask()).status == 200
            assert limits.leases.asked == asked

    run(test)


DEFAULTS = [
    {"scope": "key", "requests_per_minute": 7, "concurrent_requests": 3},
    {"scope": "key", "model": "m", "requests_per_minute": 5},
    {"scope": "model", "requests_per_minute": 90},
    {"scope": "model", "model": "m", "max_tokens": 50},
]


def limits_of(limits: Governed, it: Lab, who: Any) -> dict[str, int]:
    """The limits of all counters that hold for a principal, and of max_tokens."""
    model = it.app.line.catalogue.get("m")
    allowance = it.app.line.governor.allowance(who, model)
    if allowance is None:
        return {}
    rules = allowance.rules
    counted = (*rules.permits, *rules.requests, *rules.tokens, *rules.money)
    most = {"max": rules.max_tokens.limit} if rules.max_tokens else {}
    return {rule.counter.id: rule.counter.limit for rule in counted} | most


def test_an_object_of_its_own_row_counts_field_by_field_before_the_defaults(tmp_path: Path) -> None:
    async def test() -> None:
        limits = Governed(limit=DEFAULTS)
        defaults = {"c:key:k1:": 3, "r:key:k1:": 7, "r:key:k1:m": 5, "r:model:m:": 90, "max": 50}
        async with lab(tmp_path, {"a": says("Hello.")}, governor=limits) as it:
            assert limits_of(limits, it, principal()) == defaults
            own = principal(limits=[row(Scope.KEY, requests_per_minute=9)])
            assert limits_of(limits, it, own) == defaults | {"r:key:k1:": 9}
            free = row(Scope.KEY, "m", requests_per_minute=UNLIMITED)
            without = {name: limit for name, limit in defaults.items() if name != "r:key:k1:m"}
            assert limits_of(limits, it, principal(limits=[free])) == without
            narrower = row(Scope.APP, "m", max_tokens=20, tokens_per_minute=4)
            assert limits_of(limits, it, principal(limits=[narrower])) == defaults | {"t:app:a1:m": 4, "max": 20}
            other = row(Scope.APP, "another", requests_per_minute=1)
            assert limits_of(limits, it, principal(limits=[other])) == defaults

    run(test)


def test_plan_limits_hold_for_each_add_on_until_turned_off_or_set(tmp_path: Path) -> None:
    async def test() -> None:
        limits = Governed()
        off = Governed(settings=LimitsSettings(heroku_defaults=False))
        async with lab(tmp_path, {"a": says("Hello.")}, governor=limits) as it:
            plan = msgspec.structs.replace(
                it.app.line.catalogue.get("m"), plan_limits=Limits(requests_per_minute=150, tokens_per_minute=800_000)
            )
            catalogue = type(it.app.line.catalogue)([plan])
            for made, who, expected in (
                (limits, principal(), {"r:addon:d1:m": 150, "t:addon:d1:m": 800_000}),
                (off, principal(), {}),
                (
                    Governed(limit=[{"scope": "addon", "model": "m", "requests_per_minute": "unlimited"}]),
                    principal(),
                    {"t:addon:d1:m": 800_000},
                ),
                (
                    limits,
                    principal(limits=[row(Scope.ADDON, "m", requests_per_minute=UNLIMITED)]),
                    {"t:addon:d1:m": 800_000},
                ),
                (
                    limits,
                    principal(limits=[row(Scope.ADDON, requests_per_minute=9)]),
                    {"r:addon:d1:": 9, "r:addon:d1:m": 150, "t:addon:d1:m": 800_000},
                ),
                (
                    Governed(limit=[{"scope": "addon", "model": "m", "requests_per_minute": 10}]),
                    principal(),
                    {"r:addon:d1:m": 10, "t:addon:d1:m": 800_000},
                ),
            ):
                it.app.line = msgspec.structs.replace(it.app.line, catalogue=catalogue, governor=made(catalogue))
                assert limits_of(made, it, who) == expected

    run(test)


def test_a_changed_limit_of_a_model_is_followed_and_known_ones_outlive_the_database(tmp_path: Path) -> None:
    async def test() -> None:
        limits, given = governed(Scope.MODEL, requests_per_minute=2)
        async with lab(tmp_path, {"a": says("Hello.")}, governor=limits, **given) as it:
            following = asyncio.create_task(limits.shared.follow())
            assert (await it.ask()).headers["x-ratelimit-limit-requests"] == "2"
            limits.rows.away = True
            await until(lambda: not limits.shared.fresh)
            assert (await it.ask()).headers["x-ratelimit-limit-requests"] == "2"
            its = LimitRow(scope=Scope.MODEL, subject_id="m", limits=Limits(requests_per_minute=5))
            limits.rows.value = Shared(revision=2, limits=(its,))
            limits.rows.away = False
            await until(lambda: limits.shared.now.revision == 2)
            assert (await it.ask()).headers["x-ratelimit-limit-requests"] == "5"
            following.cancel()

    run(test)


def test_a_changed_row_of_a_key_counts_with_its_next_request(tmp_path: Path) -> None:
    async def test() -> None:
        limits, given = governed(Scope.KEY, requests_per_minute=1)
        async with lab(tmp_path, {"a": says("Hello.")}, governor=limits, **given) as it:
            assert [(await it.ask()).status for _ in range(2)] == [200, 429]
            it.know(KEY, principal(limits=[row(Scope.KEY, requests_per_minute=3)]))
            assert [(await it.ask()).status for _ in range(3)] == [200, 200, 429]

    run(test)


def test_when_the_store_is_away_an_unleased_limit_refuses_or_admits_as_set(tmp_path: Path) -> None:
    async def test() -> None:
        limits, given = governed(Scope.KEY, requests_per_minute=1, concurrent_requests=2)
        async with lab(tmp_path, {"a": says("Hello.")}, governor=limits, **given) as it:
            limits.leases.away = True
            refused = await it.ask()
            assert (refused.status, refused.code) == (503, "limits_unavailable")
            assert refused.headers["retry-after"] == "2"
            assert not any(limits.leases.used.values())
            limits.leases.admits = True
            assert [(await it.ask()).status for _ in range(3)] == [200, 200, 200]
            assert limits.open_units() == {}

    run(test)


@pytest.mark.parametrize("reason", ["disconnected", KEY_REVOKED])
def test_a_request_that_is_cut_while_it_waits_for_a_lease_holds_nothing(tmp_path: Path, reason: str) -> None:
    async def test() -> None:
        limits, given = governed(Scope.KEY, concurrent_requests=2, requests_per_minute=10, tokens_per_minute=1_000)
        async with lab(tmp_path, {"a": says("Hello.")}, governor=limits, **given) as it:
            for number, kind in enumerate("crt", 1):
                limits.leases.known.clear()
                limits.leases.stuck = kind
                asking = it.start()
                await until(lambda n=number: limits.leases.waiting == n)  # type: ignore[misc]
                asking.task.cancel(reason)
                await asyncio.wait({asking.task})
                assert not any(limits.leases.used.values())
            assert it.records() == []
            assert it.upstreams["a"].requests == 0

    run(test)


def test_a_journal_that_takes_nothing_leaves_nothing_held(tmp_path: Path) -> None:
    async def test() -> None:
        limits, given = governed(Scope.KEY, concurrent_requests=2, requests_per_minute=10, tokens_per_minute=1_000)
        async with lab(tmp_path, {"a": says("Hello.")}, governor=limits, **given) as it:
            it.app.line.journal.close()
            refused = await it.ask()
            assert (refused.status, refused.code) == (503, "journal_unavailable")
            assert not any(limits.leases.used.values())

    run(test)


def test_a_permit_is_free_after_every_way_in_which_a_request_can_end(tmp_path: Path) -> None:
    async def cuts(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("Hel"))
        exchange.reset()

    async def opens(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("Hel"))
        await exchange.hung_up()

    async def streams(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("Hello.") + DONE)
        await exchange.chunk(b"")

    async def test() -> None:
        limits, given = governed(Scope.KEY, concurrent_requests=1)
        script = in_turn(streams, cuts, resets, refuses("400 Bad"), opens, stalls, streams)
        async with lab(tmp_path, {"a": script}, governor=limits, max_attempts=1, **given) as it:
            for _ in range(4):
                await it.ask(stream=True)
                assert limits.open_units() == {}
            for number in (5, 6):
                asking = it.start(stream=True)
                await until(lambda n=number: it.upstreams["a"].requests == n)  # type: ignore[misc]
                await asking.hang_up()
                assert limits.open_units() == {}
            assert (await it.ask(stream=True)).status == 200

    run(test)
