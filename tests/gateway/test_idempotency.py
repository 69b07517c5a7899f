"""Idempotency-Key at one worker: the answer is made once, given again, and charged once."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from penstock.gateway.underway import KEY_REVOKED
from penstock.ledger.records import Admitted
from tests.gateway.lab import OTHER_KEY, Lab, in_turn, refuses, run, says, until
from tests.gateway.repeats import KEYED, Steps, answers, body_of, events, worker


def admissions(lab: Lab) -> list[Admitted]:
    """All admissions in the journal."""
    return [record for record in lab.records() if isinstance(record, Admitted)]


@pytest.mark.parametrize("stream", [False, True])
def test_a_repeat_gets_the_same_answer_without_a_second_call(tmp_path: Path, stream: bool) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, in_turn(says("first"), says("second")), kept) as lab:
                first = await lab.ask(headers=KEYED, stream=stream)
                again = await lab.ask(headers=KEYED, stream=stream)
                assert (again.status, again.body) == (first.status, first.body) == (200, first.body)
                assert b"first" in first.body
                assert "idempotent-replayed" not in first.headers
                assert again.headers == first.headers | {"idempotent-replayed": "true"}
                assert lab.upstreams["one"].requests == len(admissions(lab)) == 1

    run(test)


def test_the_events_of_a_keyed_stream_are_numbered_and_others_are_not(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("hello"), kept) as lab:
                plain, keyed = await lab.ask(stream=True), await lab.ask(stream=True, headers=KEYED)
                assert b"id: 1\n" not in plain.body
                numbers = [number for number, _ in events(keyed.body)]
                assert numbers == [str(at + 1) for at in range(len(numbers))]
                assert events(keyed.body)[-1][1] == "[DONE]"
                assert admissions(lab)[0].idempotency_id is None
                assert len(admissions(lab)[1].idempotency_id or b"") == 32

    run(test)


def test_fields_in_another_order_are_the_same_request(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("hello"), kept) as lab:
                first = await lab.ask(headers=KEYED, seed=1, temperature=0)
                again = await lab.ask(headers=KEYED, temperature=0.0, seed=1)
                assert again.body == first.body

    run(test)


def test_the_same_key_with_another_body_is_a_conflict(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("hello"), kept) as lab:
                await lab.ask(headers=KEYED)
                other = await lab.ask(headers=KEYED, seed=1)
                assert (other.status, other.code) == (422, "idempotency_conflict")
                assert (await lab.ask(headers=KEYED, stream=True)).code == "idempotency_conflict"
                assert len(admissions(lab)) == 1

    run(test)


def test_the_same_value_under_another_key_is_another_request(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, in_turn(says("mine"), says("yours")), kept) as lab:
                mine = await lab.ask(headers=KEYED)
                yours = await lab.ask(headers=KEYED, key=OTHER_KEY)
                assert (b"mine" in mine.body, b"yours" in yours.body) == (True, True)
                assert len({record.idempotency_id for record in admissions(lab)}) == 2

    run(test)


@pytest.mark.parametrize("value", ["", "x" * 256, "café", "tab\there"])
def test_a_key_that_cannot_be_one_is_refused(tmp_path: Path, value: str) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("hello"), kept) as lab:
                refused = await lab.ask(headers={"idempotency-key": value})
                assert (refused.status, refused.code) == (400, "idempotency_key_invalid")
                assert (await lab.ask(headers={"idempotency-key": "x" * 255})).status == 200

    run(test)


def test_a_repeat_beside_the_first_waits_for_its_answer(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("once"), kept) as lab:
                asked = [lab.start(headers=KEYED) for _ in range(8)]
                got = [await one.answer() for one in asked]
                assert {(answer.status, answer.body) for answer in got} == {(200, got[0].body)}
                assert sorted(answer.headers.get("idempotent-replayed", "no") for answer in got).count("no") == 1
                assert lab.upstreams["one"].requests == len(admissions(lab)) == 1

    run(test)


def test_a_repeat_of_a_running_stream_follows_it_from_its_beginning(tmp_path: Path) -> None:
    async def test() -> None:
        steps = Steps()
        with answers(tmp_path) as kept:
            async with worker(tmp_path, steps, kept) as lab:
                first = lab.start(headers=KEYED, stream=True)
                await until(lambda: steps.calls == 1)
                steps.say("one ", "two ")
                await until(lambda: b"two" in body_of(first))
                again = lab.start(headers=KEYED, stream=True)
                await until(lambda: b"two" in body_of(again))
                steps.say("three", "end")
                assert (await first.answer()).body == (await again.answer()).body
                assert steps.calls == 1

    run(test)


def test_a_refusal_is_not_kept(tmp_path: Path) -> None:
    async def test() -> None:
        script = in_turn(refuses("400 Bad Request"), says("now"))
        with answers(tmp_path) as kept:
            async with worker(tmp_path, script, kept) as lab:
                assert (await lab.ask(headers=KEYED)).status == 400
                assert (await lab.ask(headers=KEYED, seed=1)).status == 200

    run(test)


def test_a_stream_that_failed_is_made_anew_under_the_same_charge_and_other_ids(tmp_path: Path) -> None:
    async def test() -> None:
        steps = Steps()
        with answers(tmp_path) as kept:
            async with worker(tmp_path, steps, kept) as lab:
                first = lab.start(headers=KEYED, stream=True)
                await until(lambda: steps.calls == 1)
                steps.say("lost", "fail")
                failed = events((await first.answer()).body)
                assert json.loads(failed[-1][1])["error"]["code"] == "upstream_closed"
                again = lab.start(headers=KEYED, stream=True)
                await until(lambda: steps.calls == 2)
                steps.say("made", "end")
                made = await again.answer()
                assert "idempotent-replayed" not in made.headers
                assert events(made.body)[0][0] == "2-1"
                one, two = admissions(lab)
                assert one.idempotency_id == two.idempotency_id
                assert (await lab.ask(headers=KEYED, stream=True)).body == made.body

    run(test)


def test_after_the_window_a_key_is_a_new_request_and_a_new_charge(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path, window_s=0.001) as kept:
            async with worker(tmp_path, in_turn(says("first"), says("second")), kept) as lab:
                await lab.ask(headers=KEYED)
                assert b"second" in (await lab.ask(headers=KEYED)).body
                one, two = admissions(lab)
                assert one.idempotency_id != two.idempotency_id

    run(test)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_too_large_is_given_once_and_made_anew_for_a_repeat(tmp_path: Path, stream: bool) -> None:
    async def test() -> None:
        with answers(tmp_path, max_answer_bytes=50) as kept:
            async with worker(tmp_path, in_turn(says("first"), says("second")), kept) as lab:
                first, again = await lab.ask(headers=KEYED, stream=stream), await lab.ask(headers=KEYED, stream=stream)
                assert (b"first" in first.body, b"second" in again.body) == (True, True)
                one, two = admissions(lab)
                assert one.idempotency_id != two.idempotency_id

    run(test)


def test_what_is_stored_can_be_read_by_the_asking_key_alone(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("a-secret-word"), kept) as lab:
                assert b"a-secret-word" in (await lab.ask(headers=KEYED)).body
                assert b"a-secret-word" in (await lab.ask(headers=KEYED)).body

    run(test)
    stored = b"".join(file.read_bytes() for file in tmp_path.glob("penstock.db*"))
    assert b"idempotency" in stored
    assert b"a-secret-word" not in stored
    assert b"order-1" not in stored


def test_a_client_that_goes_for_long_ends_the_upstream_and_a_repeat_is_a_new_request(tmp_path: Path) -> None:
    async def test() -> None:
        steps = Steps()
        with answers(tmp_path, detached_s=0.01) as kept:
            async with worker(tmp_path, steps, kept) as lab:
                first = lab.start(headers=KEYED, stream=True)
                await until(lambda: steps.calls == 1)
                steps.say("one")
                await until(lambda: b"one" in body_of(first))
                request_id = dict(first.messages[0]["headers"])[b"x-request-id"].decode()
                await first.hang_up()
                await until(lambda: steps.hung_up == 1)
                await until(lambda: len(lab.records()) == 2)
                settled = lab.settlement(request_id)
                assert settled is not None
                assert settled.outcome == "disconnected"
                again = lab.start(headers=KEYED, stream=True)
                await until(lambda: steps.calls == 2)
                steps.say("two", "end")
                assert b"two" in (await again.answer()).body
                one, two = admissions(lab)
                assert one.idempotency_id != two.idempotency_id

    run(test)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_comes_back_soon_gets_the_whole_answer(tmp_path: Path, stream: bool) -> None:
    async def test() -> None:
        go, arrived = asyncio.Event(), asyncio.Event()

        async def script(exchange: object) -> None:
            loop.call_soon_threadsafe(arrived.set)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(go.wait(), loop))
            await says("patience")(exchange)  # type: ignore[arg-type]

        loop = asyncio.get_running_loop()
        with answers(tmp_path) as kept:
            async with worker(tmp_path, script, kept) as lab:
                first = lab.start(headers=KEYED, stream=stream)
                await arrived.wait()
                await first.hang_up()
                again = lab.start(headers=KEYED, stream=stream)
                await asyncio.sleep(0)
                go.set()
                got = await again.answer()
                assert b"patience" in got.body
                assert got.settled.outcome == "completed"
                assert lab.upstreams["one"].requests == 1

    run(test)


def test_a_revoked_key_cuts_a_run_that_nobody_follows(tmp_path: Path) -> None:
    async def test() -> None:
        steps = Steps()
        with answers(tmp_path) as kept:
            async with worker(tmp_path, steps, kept) as lab:
                first = lab.start(headers=KEYED, stream=True)
                await until(lambda: steps.calls == 1)
                steps.say("one")
                await until(lambda: b"one" in body_of(first))
                await first.hang_up()
                underway = lab.app._keys.underway
                underway.review(underway.hashes(), {})
                await until(lambda: steps.hung_up == 1)
                await until(lambda: len(lab.records()) == 2)
                outcomes = {getattr(record, "outcome", None) for record in lab.records()}
                assert KEY_REVOKED in outcomes

    run(test)


def test_a_revoked_key_cuts_run_and_followers_with_the_reason(tmp_path: Path) -> None:
    async def test() -> None:
        steps = Steps()
        with answers(tmp_path) as kept:
            async with worker(tmp_path, steps, kept) as lab:
                asked = [lab.start(headers=KEYED, stream=True) for _ in range(2)]
                await until(lambda: steps.calls == 1)
                steps.say("one")
                await until(lambda: all(b"one" in body_of(one) for one in asked))
                underway = lab.app._keys.underway
                underway.review(underway.hashes(), {})
                for one in asked:
                    with contextlib.suppress(asyncio.CancelledError):
                        await one.task
                    assert b"key_revoked" in body_of(one)
                await until(lambda: steps.hung_up == 1)

    run(test)


def test_requests_leave_nothing_behind(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("hello"), kept) as lab:
                for _ in range(3):
                    await lab.ask(headers=KEYED, stream=True)
                await until(lab.at_rest)

    run(test)
