"""A second leg when the first is late: the first event wins, the other is cancelled, both are told, few are hedged."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from penstock.domain.answer import EventStream
from penstock.domain.chat import BoundRequest
from penstock.gateway.routing.breaker import BreakerRules
from penstock.gateway.routing.hedge import HedgeBudget, Race
from penstock.ledger.records import Settled
from tests.gateway.conftest import delta
from tests.gateway.lab import Lab, lab, refuses, resets, run, says, stalls, until
from tests.upstream import Exchange, Script

HEDGED: dict[str, Any] = {"hedge": True, "hedge_share": 1.0}


def know(worker: Lab, seconds: float = 0.01, *, count: int = 20) -> None:
    """So many earlier requests were answered by the first target, each after so many seconds."""
    for streamed in (False, True):
        for _ in range(count):
            worker.board.health("first/up").speed(streamed=streamed).add(seconds, worker.clock())


@pytest.mark.parametrize("stream", [False, True])
def test_when_the_first_is_late_the_second_answers_and_both_legs_are_told(tmp_path: Path, stream: bool) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"first": stalls, "second": says("Hello.")}, **HEDGED) as worker:
            know(worker)
            answer = await worker.ask(stream=stream)
            assert (answer.status, answer.headers["penstock-attempts"]) == (200, "2")
            assert answer.headers["penstock-target"] == "second/up"
            assert answer.legs == [("first/up", "cancelled"), ("second/up", "completed")]
            assert worker.upstreams["first"].cancelled.wait(10)
            assert worker.at_rest()

    run(test)


def test_the_first_may_still_win_and_the_second_is_cancelled(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"first": stalls, "second": stalls}, **HEDGED) as worker:
            second = worker.upstreams["second"]

            async def after_the_second(exchange: Exchange) -> None:
                while not second.requests:  # noqa: ASYNC110 - in another thread
                    await asyncio.sleep(0.005)
                await says("Hello.")(exchange)

            worker.upstreams["first"].script = after_the_second
            know(worker)
            answer = await worker.ask(stream=True)
            assert answer.legs == [("first/up", "completed"), ("second/up", "cancelled")]
            assert second.cancelled.wait(10)
            assert worker.at_rest()

    run(test)


@pytest.mark.parametrize(("count", "seconds"), [(19, 0.01), (20, 30.0)])
def test_without_enough_samples_or_before_the_percentile_there_is_no_second_leg(
    tmp_path: Path, count: int, seconds: float
) -> None:
    async def slowly(exchange: Exchange) -> None:
        await asyncio.sleep(0.2)
        await says("Hello.")(exchange)

    async def test() -> None:
        async with lab(tmp_path, {"first": slowly, "second": says("never")}, **HEDGED) as worker:
            know(worker, seconds, count=count)
            assert (await worker.ask()).legs == [("first/up", "completed")]
            assert worker.upstreams["second"].requests == 0

    run(test)


@pytest.mark.parametrize("failing", [resets, refuses("500 Oops")])
def test_a_first_leg_that_fails_in_time_falls_back_as_ever(tmp_path: Path, failing: Script) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"first": failing, "second": says("Hello.")}, **HEDGED) as worker:
            know(worker, 5.0)
            assert (await worker.ask()).legs[1] == ("second/up", "completed")
            assert worker.board.budget("m").hedged == 0

    run(test)


def test_a_leg_that_fails_in_the_race_leaves_it_to_the_other(tmp_path: Path) -> None:
    async def test() -> None:
        scripts = {"first": stalls, "second": refuses("500 Oops"), "third": says("Hello.")}
        quick = {"first": {"first_byte_timeout_s": 0.5}}
        async with lab(tmp_path, scripts, providers=quick, **HEDGED) as worker:
            know(worker)
            answer = await worker.ask()
            assert answer.legs == [
                ("first/up", "upstream_timeout"),
                ("second/up", "upstream_error"),
                ("third/up", "completed"),
            ]

    run(test)


def test_the_callers_fault_ends_the_race(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"first": stalls, "second": refuses("400 Bad")}, **HEDGED) as worker:
            know(worker)
            answer = await worker.ask()
            assert (answer.status, answer.code) == (400, "upstream_refused")
            assert answer.legs == [("first/up", "cancelled"), ("second/up", "upstream_refused")]
            assert worker.at_rest()

    run(test)


def test_both_legs_count_as_attempts(tmp_path: Path) -> None:
    async def test() -> None:
        scripts = {"first": stalls, "second": resets, "third": says("never")}
        quick = {"first": {"first_byte_timeout_s": 0.5}}
        async with lab(tmp_path, scripts, providers=quick, max_attempts=2, **HEDGED) as worker:
            know(worker)
            assert len((await worker.ask()).legs) == 2
            assert worker.upstreams["third"].requests == 0
        async with lab(
            tmp_path, {"first": stalls, "second": says("no")}, max_attempts=1, providers=quick, **HEDGED
        ) as one:
            know(one)
            assert (await one.ask()).code == "upstream_timeout"

    run(test)


def test_the_share_is_never_exceeded(tmp_path: Path) -> None:
    async def test() -> None:
        quick = {"first": {"first_byte_timeout_s": 0.5}}
        async with lab(
            tmp_path, {"first": stalls, "second": says("Hello.")}, providers=quick, hedge=True, hedge_share=0.25
        ) as worker:
            know(worker)
            for number in range(1, 9):
                assert ((await worker.ask()).legs[0][1] == "cancelled") == (number % 4 == 0)

    run(test)


def test_a_budget_counts_exactly() -> None:
    budget = HedgeBudget()
    taken = 0
    for requests in range(1, 1001):
        budget.requests = requests
        taken += budget.take(0.05)
        assert taken <= 0.05 * requests
    assert taken == 50


def test_of_two_first_events_at_the_same_moment_one_wins_and_the_other_is_given_up() -> None:
    given_up: list[str] = []

    async def give_up(result: str) -> None:
        given_up.append(result)

    async def leg(result: str) -> str:
        return result

    async def test() -> None:
        race = Race(give_up)
        race.start(leg("a"))
        race.start(leg("b"))
        won = await race.winner()
        await race.stop()
        assert sorted([str(won), *given_up]) == ["a", "b"]

    run(test)


class Leaver:
    """An adapter that says nothing and takes its time to let go."""

    def __init__(self) -> None:
        self.leaving = asyncio.Event()

    def ignored(self, request: BoundRequest) -> tuple[str, ...]:
        return ()

    async def open(self, request: BoundRequest) -> EventStream:
        try:
            await asyncio.Event().wait()
        finally:
            self.leaving.set()
            await asyncio.sleep(60)
        raise AssertionError


def test_a_client_that_goes_while_the_losing_leg_is_stopped_takes_the_winners_answer_along(tmp_path: Path) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("a"))
        await exchange.hung_up()

    async def test() -> None:
        leaver = Leaver()
        async with lab(tmp_path, {"second": endless}, adapters={"first": leaver}, **HEDGED) as worker:
            know(worker)
            asking = worker.start(stream=True)
            await leaver.leaving.wait()
            await asking.hang_up()
            assert worker.upstreams["second"].cancelled.wait(10)
            assert worker.at_rest()

    run(test)


def test_targets_that_rest_do_not_make_a_request_count_twice_in_the_share(tmp_path: Path) -> None:
    async def test() -> None:
        scripts = {"resting": stalls, "first": says("Hello."), "second": says("Hello.")}
        async with lab(tmp_path, scripts, rules=BreakerRules(min_calls=1), **HEDGED) as worker:
            worker.board.health("resting/up").breaker.failed(worker.clock())
            for _ in range(3):
                assert (await worker.ask()).legs == [("first/up", "completed")]
            assert worker.board.budget("m").requests == 3

    run(test)


def test_a_client_that_goes_cancels_both_legs(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"first": stalls, "second": stalls}, **HEDGED) as worker:
            know(worker)
            asking = worker.start()
            await until(lambda: worker.upstreams["second"].requests == 1)
            await asking.hang_up()
            assert all(upstream.cancelled.wait(10) for upstream in worker.upstreams.values())
            (settled,) = [record for record in worker.records() if isinstance(record, Settled)]
            assert [leg.outcome for leg in settled.attempts] == ["disconnected", "disconnected"]
            assert worker.at_rest()

    run(test)
