"""What is tried after a failure, where, how often, and what the client is told at the end."""

import asyncio
import time
from pathlib import Path

import pytest

from penstock.domain.answer import EventStream
from penstock.domain.catalogue import Target
from penstock.domain.chat import BoundRequest
from penstock.domain.errors import PenstockError, UpstreamError
from penstock.domain.usage import Usage
from penstock.gateway.admit import Tally
from penstock.gateway.routing.board import Board
from penstock.gateway.routing.breaker import BreakerRules
from penstock.gateway.routing.verdicts import Failures
from penstock.ledger.records import Leg
from tests.gateway.conftest import delta
from tests.gateway.lab import KEY, OTHER_KEY, LeastDice, in_turn, lab, refuses, resets, run, says, stalls
from tests.upstream import Exchange, Script

QUICK = {"first": {"first_byte_timeout_s": 0.3}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failing", "code"),
    [
        (resets, "upstream_closed"),
        (stalls, "upstream_timeout"),
        (refuses("408 Slow"), "upstream_timeout"),
        (refuses("429 Busy", retry_after=30), "upstream_rate_limited"),
        (refuses("500 Oops"), "upstream_error"),
        (refuses("503 Busy"), "upstream_overloaded"),
        (refuses("529 Overloaded"), "upstream_overloaded"),
        (refuses("401 No"), "upstream_misconfigured"),
        (refuses("404 No"), "upstream_misconfigured"),
    ],
)
def test_a_failure_before_the_first_event_is_tried_at_the_next_target(
    tmp_path: Path, failing: Script, code: str, stream: bool
) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"first": failing, "second": says("Hello.")}, providers=QUICK) as worker:
            answer = await worker.ask(stream=stream)
            assert (answer.status, b"Hello." in answer.body) == (200, True)
            assert answer.headers["penstock-target"] == "second/up"
            assert answer.headers["penstock-attempts"] == "2"
            assert answer.legs == [("first/up", code), ("second/up", "completed")]
            assert [upstream.requests for upstream in worker.upstreams.values()] == [1, 1]
            assert answer.settled.provider == "second"
            assert worker.at_rest()

    run(test)


def test_nothing_listens_at_the_first_target(tmp_path: Path) -> None:
    nowhere = {"first": {"base_url": "http://127.0.0.1:9/v1"}}

    async def test() -> None:
        async with lab(tmp_path, {"first": resets, "second": says("Hello.")}, providers=nowhere) as worker:
            assert (await worker.ask()).legs == [("first/up", "upstream_error"), ("second/up", "completed")]

    run(test)


@pytest.mark.parametrize("failing", [resets, refuses("500 Oops"), refuses("408 Slow"), refuses("504 Slow")])
def test_a_lone_target_is_tried_again(tmp_path: Path, failing: Script) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": in_turn(failing, failing, says("Hello."))}) as worker:
            answer = await worker.ask()
            assert (answer.status, answer.headers["penstock-attempts"]) == (200, "3")

    run(test)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_request_makes_more_calls_than_the_model_allows(tmp_path: Path, most: int) -> None:
    async def test() -> None:
        scripts = {"first": refuses("500 Oops"), "second": resets}
        async with lab(tmp_path, scripts, max_attempts=most) as worker:
            answer = await worker.ask()
            assert answer.status == 502
            assert answer.headers["penstock-attempts"] == str(most)
            assert sum(upstream.requests for upstream in worker.upstreams.values()) == most

    run(test)


@pytest.mark.parametrize("status", ["400 Bad", "405 Bad", "409 Bad", "413 Bad", "415 Bad", "422 Bad", "499 Bad"])
def test_the_callers_fault_is_told_at_once_and_tried_nowhere_else(tmp_path: Path, status: str) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"first": refuses(status), "second": says("never")}) as worker:
            answer = await worker.ask()
            assert (answer.status, answer.code) == (400, "upstream_refused")
            assert answer.headers["penstock-target"] == "first/up"
            assert [upstream.requests for upstream in worker.upstreams.values()] == [1, 0]

    run(test)


def test_what_only_the_operator_can_mend_is_not_repeated(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": refuses("401 No")}) as worker:
            answer = await worker.ask()
            assert (answer.status, answer.code) == (502, "upstream_misconfigured")
            assert worker.upstreams["only"].requests == 1

    run(test)


def test_a_long_retry_after_is_told_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": refuses("429 Busy", retry_after=17)}) as worker:
            answer = await worker.ask()
            assert (answer.status, answer.headers["retry-after"]) == (429, "17")
            assert worker.upstreams["only"].requests == 1

    run(test)


def test_a_short_retry_after_is_waited_for(tmp_path: Path) -> None:
    async def test() -> None:
        script = in_turn(refuses("429 Busy", retry_after=1), says("Hello."))
        async with lab(tmp_path, {"only": script}) as worker:
            began = time.monotonic()
            assert (await worker.ask()).status == 200
            assert time.monotonic() - began >= 1

    run(test)


@pytest.mark.parametrize(
    ("first", "second", "told", "of"),
    [
        (refuses("429 Busy", retry_after=9), refuses("401 No"), (429, "upstream_rate_limited"), "first/up"),
        (refuses("401 No"), refuses("500 Oops"), (502, "upstream_error"), "second/up"),
        (refuses("500 Oops"), refuses("401 No"), (502, "upstream_error"), "first/up"),
        (refuses("429 A", retry_after=9), refuses("429 B", retry_after=7), (429, "upstream_rate_limited"), "second/up"),
        (refuses("429 A", retry_after=7), refuses("429 B", retry_after=9), (429, "upstream_rate_limited"), "first/up"),
        (
            refuses("400 Long", code="context_length_exceeded"),
            refuses("401 No"),
            (400, "context_length_exceeded"),
            "first/up",
        ),
        (resets, refuses("500 Oops"), (502, "upstream_error"), "second/up"),
    ],
)
def test_the_client_is_told_the_most_useful_failure(
    tmp_path: Path, first: Script, second: Script, told: tuple[int, str], of: str
) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"first": first, "second": second}, max_attempts=2) as worker:
            answer = await worker.ask()
            assert (answer.status, answer.code) == told
            assert answer.headers["penstock-target"] == of
            assert f"{answer.settled.provider}/{answer.settled.target_model}" == of

    run(test)


def test_a_prompt_too_long_for_one_target_is_tried_at_a_larger_one_alone(tmp_path: Path) -> None:
    too_long = refuses("400 Long", code="context_length_exceeded")
    windows = {"first": {"context_window": 200}, "small": {"context_window": 100}, "large": {"context_window": 400}}

    async def test() -> None:
        scripts = {"first": too_long, "small": says("never"), "large": too_long, "unknown": says("Hello.")}
        async with lab(tmp_path, scripts, targets=windows) as worker:
            answer = await worker.ask()
            assert [target for target, _ in answer.legs] == ["first/up", "large/up", "unknown/up"]
            assert answer.status == 200

    run(test)


def test_a_failed_target_is_not_tried_again_once_its_window_is_known_to_be_too_small(tmp_path: Path) -> None:
    too_long = refuses("400 Long", code="context_length_exceeded")
    windows = {"first": {"context_window": 200}, "second": {"context_window": 200}}

    async def test() -> None:
        scripts = {"first": refuses("500 Oops"), "second": too_long}
        async with lab(tmp_path, scripts, targets=windows) as worker, asyncio.timeout(10):
            answer = await worker.ask()
            assert answer.legs == [("first/up", "upstream_error"), ("second/up", "context_length_exceeded")]
            assert answer.code == "upstream_error"

    run(test)


class Picky:
    """An adapter that cannot say tools, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[BoundRequest] = []

    def ignored(self, request: BoundRequest) -> tuple[str, ...]:
        return ()

    async def open(self, request: BoundRequest) -> EventStream:
        self.asked.append(request)
        raise PenstockError("unsupported_parameter", "No tools here.", param="tools")


def test_a_parameter_that_one_target_cannot_honour_goes_to_another(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"able": says("Hello.")}, adapters={"picky": Picky()}) as worker:
            answer = await worker.ask()
            assert (answer.status, answer.headers["penstock-target"]) == (200, "able/up")
        async with lab(tmp_path, {"down": refuses("401 No")}, adapters={"picky": Picky()}) as worker:
            answer = await worker.ask()
            assert (answer.status, answer.code) == (400, "unsupported_parameter")

    run(test)


def test_an_adapter_gets_the_timeouts_the_callers_wish_for_caching_and_an_opaque_app(tmp_path: Path) -> None:
    picky = Picky()

    async def test() -> None:
        async with lab(tmp_path, {}, adapters={"picky": picky}, first_token_timeout_s=7.0) as worker:
            await worker.ask()
            await worker.ask(headers={"x-heroku-prompt-caching": "False"})
            await worker.ask(key=OTHER_KEY)

    run(test)
    usual, uncached, other = picky.asked
    assert usual.timeouts.first_token_s == 7.0
    assert (usual.prompt_caching, uncached.prompt_caching, other.prompt_caching) == (True, False, True)
    assert usual.isolation == uncached.isolation
    assert usual.isolation == other.isolation  # both keys are of the same app
    assert len(usual.isolation) == 32
    assert KEY not in usual.isolation


def test_a_first_token_that_is_late_is_a_failure_of_that_target(tmp_path: Path) -> None:
    async def hesitates(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(b": ping\n\n")
        await exchange.hung_up()

    async def test() -> None:
        async with lab(tmp_path, {"first": hesitates, "second": says("Hello.")}, first_token_timeout_s=0.3) as worker:
            answer = await worker.ask(stream=True)
            assert answer.legs == [("first/up", "upstream_timeout"), ("second/up", "completed")]
            assert worker.upstreams["first"].cancelled.wait(10)

    run(test)


def test_a_target_that_asks_to_wait_is_left_alone_while_others_serve(tmp_path: Path) -> None:
    async def test() -> None:
        scripts = {"first": in_turn(refuses("429 Busy", retry_after=30), says("back")), "second": says("Hello.")}
        async with lab(tmp_path, scripts) as worker:
            await worker.ask()
            assert (await worker.ask()).legs == [("second/up", "completed")]
            assert {row["target"]: row["state"] for row in worker.board.states()} == {
                "first/up": "resting",
                "second/up": "closed",
            }
            worker.move(31)
            assert (await worker.ask()).legs == [("first/up", "completed")]

    run(test)


def test_a_lone_target_that_asks_to_wait_is_called_all_the_same(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": in_turn(refuses("429 Busy", retry_after=30), says("back"))}) as worker:
            assert (await worker.ask()).status == 429
            assert (await worker.ask()).status == 200

    run(test)


def test_a_failure_after_the_first_event_is_final_and_counts_against_the_target(tmp_path: Path) -> None:
    async def breaks(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("a"))
        exchange.reset()

    async def test() -> None:
        rules = BreakerRules(min_calls=1)
        async with lab(tmp_path, {"first": breaks, "second": says("Hello.")}, rules=rules) as worker:
            answer = await worker.ask(stream=True)
            assert b'"code":"upstream_closed"' in answer.body
            assert b"Hello." not in answer.body
            assert answer.legs == [("first/up", "upstream_closed")]
            assert worker.board.health("first/up").refused_for() > 0

    run(test)


def head(status: str, header: bytes, body: bytes = b"{}", *, missing: int = 0) -> Script:
    """Answers with these bytes, and goes before the last ones that it announced."""

    async def script(exchange: Exchange) -> None:
        length = b"content-length: %d\r\n\r\n" % (len(body) + missing)
        await exchange.send(b"HTTP/1.1 %s\r\n%s\r\n%s" % (status.encode(), header, length) + body)
        exchange.close()

    return script


@pytest.mark.parametrize(
    ("failing", "code"),
    [
        (head("429 Busy", b"retry-after: \xb2"), "upstream_rate_limited"),
        (head("503 Busy", b"retry-after: " + b"9" * 5000), "upstream_overloaded"),
        (head("429 Busy", b"retry-after-ms: \xb9"), "upstream_rate_limited"),
        (head("200 OK", b"x: y", '{"error":{"message":"no","code":"²"}}'.encode()), "upstream_error"),
        (head("200 OK", b"x: y", b'{"error":{"message":"no","code":"%s"}}' % (b"4" * 5000)), "upstream_error"),
    ],
)
def test_figures_that_are_no_number_are_passed_over(tmp_path: Path, failing: Script, code: str) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"first": failing, "second": says("Hello.")}) as worker:
            assert (await worker.ask()).legs == [("first/up", code), ("second/up", "completed")]

    run(test)


def test_a_status_keeps_its_meaning_when_its_body_breaks_off(tmp_path: Path) -> None:
    async def test() -> None:
        refused = head("400 Bad", b"content-type: application/json", b'{"err', missing=9)
        async with lab(tmp_path, {"first": refused, "second": says("never")}) as worker:
            answer = await worker.ask()
            assert (answer.status, answer.legs) == (400, [("first/up", "upstream_refused")])
            worker.upstreams["first"].script = head("429 Busy", b"retry-after: 600", b'{"err', missing=9)
            answer = await worker.ask()
            assert answer.legs == [("first/up", "upstream_rate_limited"), ("second/up", "completed")]
            assert worker.board.health("first/up").rest_until == worker.clock() + 600

    run(test)


def test_what_took_long_to_fail_is_not_asked_again_of_the_same_target(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": refuses("500 Oops")}) as worker:

            async def slow(exchange: Exchange) -> None:
                worker.move(11)
                await refuses("500 Oops")(exchange)

            worker.upstreams["only"].script = slow
            assert (await worker.ask()).headers["penstock-attempts"] == "1"

    run(test)


def test_all_pauses_are_drawn_below_a_bound_that_doubles(tmp_path: Path) -> None:
    class MostDice(LeastDice):
        def random(self) -> float:
            return 1.0

    failures, target = Failures(), Target(provider="p", model="m")
    failures.add(target, UpstreamError("upstream_closed", "x"))
    board = Board(tmp_path, dice=MostDice())
    assert [round(failures.pause(board)[0], 1) for _ in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert failures.pause(Board(tmp_path, dice=LeastDice()))[0] == 0.0


def test_where_no_upstream_was_called_nothing_is_estimated() -> None:
    assert Tally().final_usage() == Usage()


def test_a_usage_without_its_final_counts_keeps_the_input_and_counts_the_deltas() -> None:
    tally = Tally()
    tally.output_tokens = 5
    assert tally.final_usage() == Usage(output_tokens=5, estimated=True)
    tally.usage = Usage(input_tokens=70, cached_input_tokens=30, cache_write_tokens=10, output_tokens=1, estimated=True)
    assert tally.final_usage() == Usage(
        input_tokens=70, cached_input_tokens=30, cache_write_tokens=10, output_tokens=5, estimated=True
    )
    tally.usage = Usage(input_tokens=70, output_tokens=9, reasoning_tokens=4)
    assert tally.final_usage() == tally.usage


def test_a_settlement_tells_every_attempt_with_its_times(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"first": resets, "second": says("Hello.")}, clock=time.monotonic) as worker:
            first, second = (await worker.ask()).settled.attempts
            assert first == Leg("first/up", "upstream_closed", None, first.total_ms)
            assert second.first_event_ms is not None
            assert 0 < second.first_event_ms <= second.total_ms

    run(test)
