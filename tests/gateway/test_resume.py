"""Streams under an Idempotency-Key go on where a client has lost them, at the same worker and at another."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.gateway.underway import DISCONNECTED
from penstock.store.keeping.answers import SILENT_S
from tests.gateway.lab import Asking, Lab, in_turn, refuses, run, says, until
from tests.gateway.repeats import KEYED, Steps, answers, body_of, events, worker


def resume(lab: Lab, last: str, **fields: Any) -> Asking:
    """The client reconnects behind that event."""
    return lab.start(headers=KEYED | {"last-event-id": last}, **{"stream": True} | fields)


def after(body: bytes, last: str) -> bytes:
    """The rest of a stream behind the event with that id."""
    return body.partition(b"id: " + last.encode() + b"\n")[2].partition(b"\n\n")[2]


@contextlib.asynccontextmanager
async def two_workers(folder: Path, **idempotency: Any) -> AsyncIterator[tuple[Lab, Lab, Steps]]:
    """Two workers on one database, before one upstream's steps."""
    steps = Steps()
    for name in "ab":
        (folder / name).mkdir()
    with answers(folder, **idempotency) as kept:
        async with worker(folder / "a", steps, kept) as one, worker(folder / "b", steps, kept) as other:
            yield one, other, steps


async def begun(lab: Lab, steps: Steps, *words: str) -> Asking:
    """A stream that has said these words."""
    asked = lab.start(headers=KEYED, stream=True)
    await until(lambda: steps.calls == 1)
    steps.say(*words)
    await until(lambda: words[-1].encode() in body_of(asked))
    return asked


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_stream_goes_on_behind_the_last_event_while_it_runs(tmp_path: Path, elsewhere: bool) -> None:
    async def test() -> None:
        async with two_workers(tmp_path) as (one, other, steps):
            first = await begun(one, steps, "alpha", "beta")
            got = body_of(first)
            last = events(got)[-1][0]
            await first.hang_up()
            again = resume(other if elsewhere else one, last)
            steps.say("gamma", "end")
            await again.task
            rest = body_of(again)
            assert [data for _, data in events(rest)][-1] == "[DONE]"
            assert [b"alpha" in rest, b"gamma" in rest] == [False, True]
            whole = await (other if elsewhere else one).ask(headers=KEYED, stream=True)
            assert got + rest == whole.body
            assert steps.calls == 1

    run(test)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_any_event_of_a_finished_stream_is_a_place_to_go_on(tmp_path: Path, elsewhere: bool) -> None:
    async def test() -> None:
        async with two_workers(tmp_path) as (one, other, steps):
            first = await begun(one, steps, "alpha", "beta", "gamma")
            steps.say("end")
            whole = (await first.answer()).body
            lab = other if elsewhere else one
            for number, _ in events(whole):
                asked = resume(lab, number)
                await asked.task
                assert body_of(asked) == after(whole, number)
            assert steps.calls == 1

    run(test)


def test_a_repeat_at_another_worker_follows_the_same_stream(tmp_path: Path) -> None:
    async def test() -> None:
        async with two_workers(tmp_path) as (one, other, steps):
            first = await begun(one, steps, "alpha")
            again = other.start(headers=KEYED, stream=True)
            await until(lambda: b"alpha" in body_of(again))
            steps.say("beta", "end")
            await first.answer()
            await again.task
            assert body_of(again) == body_of(first)
            assert dict(again.messages[0]["headers"])[b"idempotent-replayed"] == b"true"
            assert not other.records()

    run(test)


def test_a_plain_repeat_at_another_worker_waits_for_the_answer(tmp_path: Path) -> None:
    async def test() -> None:
        go, arrived, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

        async def script(exchange: Any) -> None:
            loop.call_soon_threadsafe(arrived.set)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(go.wait(), loop))
            await says("once")(exchange)

        with answers(tmp_path) as kept:
            (tmp_path / "b").mkdir()
            async with worker(tmp_path, script, kept) as one, worker(tmp_path / "b", says("twice"), kept) as other:
                first = one.start(headers=KEYED)
                await arrived.wait()
                again = other.start(headers=KEYED)
                go.set()
                await again.task
                assert body_of(again) == (await first.answer()).body
                assert not other.records()

    run(test)


def test_a_client_that_follows_at_another_worker_keeps_the_upstream_running(tmp_path: Path) -> None:
    async def test() -> None:
        async with two_workers(tmp_path, detached_s=3.0) as (one, other, steps):
            first = await begun(one, steps, "alpha")
            again = other.start(headers=KEYED, stream=True)
            await until(lambda: b"alpha" in body_of(again))
            await first.hang_up()
            gone = asyncio.get_running_loop().time()
            await until(lambda: asyncio.get_running_loop().time() > gone + 4.0)
            steps.say("beta", "end")
            await again.task
            assert events(body_of(again))[-1][1] == "[DONE]"
            await until(lambda: len(one.records()) == 2)
            await again.hang_up()

    run(test)


def test_a_stream_that_fails_at_its_worker_fails_for_followers_elsewhere(tmp_path: Path) -> None:
    async def test() -> None:
        async with two_workers(tmp_path) as (one, other, steps):
            first = await begun(one, steps, "alpha")
            again = other.start(headers=KEYED, stream=True)
            await until(lambda: b"alpha" in body_of(again))
            steps.say("fail")
            await first.answer()
            await again.task
            assert body_of(again) == body_of(first)
            assert b"upstream_closed" in body_of(again)

    run(test)


def test_a_repeat_that_waited_for_a_refusal_elsewhere_runs_itself(tmp_path: Path) -> None:
    async def test() -> None:
        go, arrived, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

        async def script(exchange: Any) -> None:
            loop.call_soon_threadsafe(arrived.set)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(go.wait(), loop))
            await refuses("400 Bad Request")(exchange)

        with answers(tmp_path) as kept:
            (tmp_path / "b").mkdir()
            async with worker(tmp_path, script, kept) as one, worker(tmp_path / "b", says("mended"), kept) as other:
                first = one.start(headers=KEYED)
                await arrived.wait()
                again = other.start(headers=KEYED)
                await asyncio.sleep(0)
                go.set()
                assert (await first.answer()).status == 400
                assert b"mended" in (await again.answer()).body

    run(test)


def test_a_silent_owner_is_taken_over_and_what_it_still_writes_is_dropped(tmp_path: Path) -> None:
    async def test() -> None:
        async with two_workers(tmp_path) as (one, other, steps):
            first = await begun(one, steps, "alpha")
            silence(one, tmp_path)
            again = other.start(headers=KEYED, stream=True)
            await until(lambda: steps.calls == 2)
            steps.say("beta", "end")
            made = await again.answer()
            assert events(made.body)[0][0] == "2-1"
            steps.say("omega", "end", call=0)
            assert b"omega" in (await first.answer()).body
            assert (await other.ask(headers=KEYED, stream=True)).body == made.body
            assert (await one.ask(headers=KEYED, stream=True)).body == made.body
            charged = {getattr(lab.records()[0], "idempotency_id", None) for lab in (one, other)}
            assert len(charged) == 1
            lost = resume(one, events(body_of(first))[0][0])
            await lost.task
            assert b"resume_not_possible" in body_of(lost)

    run(test)


def test_who_follows_a_run_whose_worker_dies_is_told_or_gets_a_new_one(tmp_path: Path) -> None:
    async def test() -> None:
        async with two_workers(tmp_path) as (one, other, steps):
            await begun(one, steps, "alpha")
            follower = other.start(headers=KEYED, stream=True)
            await until(lambda: b"alpha" in body_of(follower))
            silence(one, tmp_path)
            await follower.task
            assert b"upstream_closed" in body_of(follower)
            again = other.start(headers=KEYED, stream=True)
            await until(lambda: steps.calls == 2)
            steps.say("beta", "end")
            assert b"beta" in (await again.answer()).body

    run(test)


def silence(lab: Lab, folder: Path) -> None:
    """The worker hangs: it writes nothing, and its last sign of life is long ago."""
    runs = lab.app._replay._runs  # type: ignore[union-attr]
    (run_,) = runs._keeper.runs.values()
    runs._keeper.remove(run_)
    with sqlite3.connect(folder / "penstock.db") as connection:
        connection.execute("UPDATE answers SET alive_s = alive_s - ?", (SILENT_S + 1,))
    connection.close()


@pytest.mark.parametrize("last", ["x", "-1", "1-", "01", "2-1", "99999", "1" * 30])
def test_an_id_of_no_event_is_refused(tmp_path: Path, last: str) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("hello"), kept) as lab:
                await lab.ask(headers=KEYED, stream=True)
                asked = resume(lab, last)
                await asked.task
                assert asked.messages[0]["status"] == 400
                assert b"resume_not_possible" in body_of(asked)

    run(test)


def test_only_keyed_streams_that_are_there_can_be_resumed(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, in_turn(says("hello")), kept) as lab:
                for headers, stream in (({"last-event-id": "1"}, True), (KEYED | {"last-event-id": "1"}, False)):
                    refused = await lab.ask(headers=headers, stream=stream)
                    assert (refused.status, refused.code) == (400, "resume_not_possible")
                assert (await lab.ask(headers=KEYED | {"last-event-id": "1"}, stream=True)).code == (
                    "resume_not_possible"
                )
                assert lab.upstreams["one"].requests == 0
                await lab.ask(headers=KEYED, stream=True)
                other = await lab.ask(headers=KEYED | {"last-event-id": "1"}, stream=True, seed=3)
                assert other.code == "idempotency_conflict"

    run(test)


def test_without_a_key_a_client_that_goes_ends_the_upstream_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        steps = Steps()
        with answers(tmp_path) as kept:
            async with worker(tmp_path, steps, kept) as lab:
                asked = lab.start(stream=True)
                await until(lambda: steps.calls == 1)
                steps.say("one")
                await until(lambda: b"one" in body_of(asked))
                await asked.hang_up()
                await until(lambda: steps.hung_up == 1)
                assert DISCONNECTED in {getattr(record, "outcome", "") for record in lab.records()}

    run(test)


def test_a_worker_that_stops_leaves_its_runs_to_others_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        steps = Steps()
        (tmp_path / "b").mkdir()
        with answers(tmp_path) as kept:
            async with worker(tmp_path, steps, kept) as one:
                first = await begun(one, steps, "alpha")
                await first.hang_up()
            async with worker(tmp_path / "b", says("anew"), kept) as other:
                assert b"anew" in (await other.ask(headers=KEYED, stream=True)).body

    run(test)
