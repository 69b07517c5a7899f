"""A target that fails too often rests, and one request finds out whether it is back."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.gateway.routing.breaker import Breaker, BreakerRules
from tests.gateway.conftest import delta
from tests.gateway.lab import Lab, in_turn, lab, refuses, resets, run, says, stalls, until
from tests.upstream import Exchange

RULES = BreakerRules(min_calls=4, rest_s=5.0)


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin and end in any order at any time; the model remembers every call of the last half minute."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(RULES)
        self.now = 100.0
        self.under_way: list[int] = []  # the calls, each with its number if it is a probe
        self.probes: list[int] = []  # those of this rest that are under way
        self.waited_until = 0.0
        self.counted: list[tuple[float, bool]] = []  # when calls ended while closed, and whether they failed
        self.rests = 0

    def rest_s(self, doublings: int) -> float:
        return min(5.0 * 2.0**doublings, 60.0)

    @rule(seconds=st.floats(0.1, 40))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def begin(self) -> None:
        if self.breaker.refused_for(self.now):
            return
        self.under_way.append(self.breaker.take(self.now))
        if self.breaker.open_until:
            assert self.now >= self.waited_until
            self.rests += self.waited_until > 0
            self.waited_until = self.now + self.rest_s(self.rests - 1)
            self.probes.append(self.under_way[-1])
        assert bool(self.under_way[-1]) == bool(self.breaker.open_until)

    @precondition(lambda self: self.under_way)
    @rule(at=st.integers(0, 9))
    def succeed(self, at: int) -> None:
        probe = self.under_way.pop(at % len(self.under_way))
        if probe in self.probes:
            assert self.breaker.close(self.now, probe)
            self.counted, self.rests, self.probes, self.waited_until = [], 0, [], 0.0
            assert not self.breaker.open_until
            return
        self.counted += [(self.now, False)] if not self.breaker.open_until else []
        if probe:
            assert not self.breaker.close(self.now, probe)
        else:
            self.breaker.succeeded(self.now)

    @precondition(lambda self: self.under_way)
    @rule(at=st.integers(0, 9))
    def fail(self, at: int) -> None:
        probe = self.under_way.pop(at % len(self.under_way))
        was_open = bool(self.breaker.open_until)
        self.counted += [(self.now, True)] if not was_open else []
        opened = self.breaker.failed(self.now, probe=probe)
        assert opened or probe not in self.probes
        if opened:
            if probe not in self.probes:
                recent = [failed for at, failed in self.counted if at > self.now - 30]
                assert not was_open
                assert len(recent) >= RULES.min_calls
            assert self.breaker.open_until - self.now == pytest.approx(self.rest_s(self.rests))
            self.rests += 1
            self.counted, self.probes, self.waited_until = [], [], 0.0

    @precondition(lambda self: self.under_way)
    @rule(at=st.integers(0, 9))
    def let_go(self, at: int) -> None:
        probe = self.under_way.pop(at % len(self.under_way))
        if probe:
            self.breaker.let_go(probe)
        if probe in self.probes:
            if probe == max(self.probes):
                self.waited_until = 0.0
            self.probes.remove(probe)

    @invariant()
    def an_open_breaker_refuses_until_its_rest_is_over_and_while_it_is_probed(self) -> None:
        resting = self.breaker.open_until > self.now
        assert (self.breaker.refused_for(self.now) > 0) == (resting or self.waited_until > self.now)


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_a_breaker_opens_when_half_of_enough_recent_calls_failed_and_forgets_older_ones() -> None:
    breaker = Breaker(RULES)
    assert not breaker.failed(0.0)
    breaker.succeeded(1.0)
    breaker.succeeded(2.0)
    assert breaker.failed(3.0)  # two of four
    breaker = Breaker(RULES)
    for at in (0.0, 1.0, 2.0):
        assert not breaker.failed(at)
    assert not breaker.failed(60.0)  # the first of this minute


async def trip(worker: Lab, count: int = 2) -> None:
    """Requests until the target rests."""
    for _ in range(count):
        await worker.ask()
    assert worker.board.health("only/up").refused_for() > 0


def test_when_every_target_rests_the_answer_is_503_at_once_with_the_time_left(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": refuses("500 Oops")}, rules=RULES) as worker:
            await trip(worker)
            made = worker.upstreams["only"].requests
            worker.move(2)
            answer = await worker.ask()
            assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "upstream_unavailable", "3")
            assert "penstock-attempts" not in answer.headers
            assert worker.upstreams["only"].requests == made
            assert answer.settled.attempts == ()

    run(test)


def test_a_resting_target_is_passed_over(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"first": resets, "second": says("Hello.")}, rules=RULES) as worker:
            for _ in range(10):
                assert (await worker.ask()).status == 200
            assert worker.upstreams["first"].requests == RULES.min_calls
            assert (await worker.ask()).legs == [("second/up", "completed")]

    run(test)


def test_exactly_one_request_probes_and_its_success_lets_all_others_in(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": refuses("500 Oops")}, rules=RULES) as worker:
            await trip(worker)
            upstream, go = worker.upstreams["only"], asyncio.Event()
            before, loop = upstream.requests, asyncio.get_running_loop()

            async def when_told(exchange: Exchange) -> None:
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(go.wait(), loop))
                await says("Hello.")(exchange)

            upstream.script = when_told
            worker.move(5.5)
            probe = worker.start()
            await until(lambda: upstream.requests == before + 1)
            others = [(await worker.ask()).code for _ in range(5)]
            assert others == ["upstream_unavailable"] * 5
            assert upstream.requests == before + 1
            go.set()
            assert (await probe.answer()).status == 200
            assert (await worker.ask()).status == 200

    run(test)


def test_a_probe_that_fails_makes_the_rest_longer(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": refuses("500 Oops")}, rules=RULES) as worker:
            await trip(worker)
            worker.move(5.5)
            made = worker.upstreams["only"].requests
            assert (await worker.ask()).code == "upstream_error"
            assert worker.upstreams["only"].requests == made + 1
            assert worker.board.health("only/up").refused_for() == 10.0

    run(test)


def test_a_probe_that_takes_longer_than_the_rest_is_joined_by_another(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": refuses("500 Oops")}, rules=RULES) as worker:
            await trip(worker)
            upstream = worker.upstreams["only"]
            upstream.script, before = stalls, upstream.requests
            worker.move(5.5)
            probe = worker.start()
            await until(lambda: upstream.requests > before)
            upstream.script = says("Hello.")
            worker.move(4.5)
            assert (await worker.ask()).headers["retry-after"] == "1"
            worker.move(1)
            assert (await worker.ask()).status == 200
            assert worker.board.health("only/up").state() == ("closed", 0.0)
            await probe.hang_up()
            assert (await worker.ask()).status == 200

    run(test)


def test_streams_that_break_off_open_the_breaker_although_each_began_well(tmp_path: Path) -> None:
    async def breaks(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("a"))
        exchange.reset()

    async def test() -> None:
        rules = BreakerRules(min_calls=10, rest_s=5.0)
        scripts = {"only": in_turn(says("a"), says("b"), says("c"), breaks)}
        async with lab(tmp_path, scripts, rules=rules) as worker:
            for _ in range(9):
                await worker.ask(stream=True)
            assert worker.board.health("only/up").refused_for() == 0
            await worker.ask(stream=True)
            assert worker.board.health("only/up").refused_for() > 0

    run(test)


def test_few_streams_that_break_off_leave_the_breaker_closed() -> None:
    breaker = Breaker(RULES)
    for at in range(100):
        breaker.succeeded(at / 4)
        assert at % 3 < 2 or not breaker.failed(at / 4, answered=True)


def test_a_client_that_hangs_up_on_the_probe_leaves_it_to_the_next(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": refuses("500 Oops")}, rules=RULES) as worker:
            await trip(worker)
            upstream = worker.upstreams["only"]
            upstream.script, before = stalls, upstream.requests
            worker.move(5.5)
            probe = worker.start()
            await until(lambda: upstream.requests > before)
            await probe.hang_up()
            upstream.script = says("Hello.")
            assert (await worker.ask()).status == 200

    run(test)


def test_the_callers_faults_and_disconnects_never_open_a_breaker(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": refuses("400 Bad")}, rules=RULES) as worker:
            upstream = worker.upstreams["only"]
            for status in ("400 Bad", "404 No", "401 No", "429 Busy"):
                upstream.script = refuses(status, retry_after=60)
                for _ in range(5):
                    await worker.ask()
            upstream.script = stalls
            for _ in range(5):
                asking, before = worker.start(), upstream.requests
                await until(lambda before=before: upstream.requests > before)  # type: ignore[misc]
                await asking.hang_up()
            assert worker.board.health("only/up").refused_for() == 0

    run(test)


def test_what_is_known_of_a_target_survives_a_reload_that_keeps_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": in_turn(refuses("500 Oops"))}, rules=RULES) as worker:
            await trip(worker)
            worker.board.keep(["only/up", "new/up"])
            assert worker.board.health("only/up").refused_for() > 0
            assert [row["target"] for row in worker.board.states()] == ["only/up", "new/up"]
            worker.board.keep(["new/up"])
            await worker.ask()  # as one that was under way
            assert [row["target"] for row in worker.board.states()] == ["new/up"]

    run(test)
