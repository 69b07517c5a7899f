"""A client that goes at whatever moment leaves nothing behind: no call, slot, connection, task or open admission."""

import random
from pathlib import Path
from typing import Any

import pytest

from penstock.gateway.underway import DISCONNECTED, KEY_REVOKED
from penstock.ledger.records import Settled
from tests.gateway.lab import Lab, lab, refuses, run, says, stalls, until


def outcomes(worker: Lab) -> list[str]:
    """Of all requests that are settled."""
    return [record.outcome for record in worker.records() if isinstance(record, Settled)]


@pytest.mark.parametrize(("reason", "outcome"), [(DISCONNECTED, "disconnected"), (KEY_REVOKED, "key_revoked")])
@pytest.mark.parametrize("stream", [False, True])
def test_while_the_first_token_is_awaited(tmp_path: Path, reason: str, outcome: str, stream: bool) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": stalls}) as worker:
            asking = worker.start(stream=stream)
            await until(lambda: worker.upstreams["only"].requests == 1)
            asking.task.cancel(reason)
            await until(asking.task.done)
            assert worker.upstreams["only"].cancelled.wait(10)
            assert outcomes(worker) == [outcome]
            assert worker.at_rest()

    run(test)


def test_in_the_pause_before_another_attempt(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": refuses("429 Busy", retry_after=2)}) as worker:
            asking = worker.start()
            await until(lambda: worker.board.states()[0]["state"] == "resting")
            await asking.hang_up()
            assert worker.upstreams["only"].requests == 1
            assert outcomes(worker) == ["disconnected"]
            assert worker.at_rest()

    run(test)


def test_in_the_queue_for_a_slot(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": stalls}, providers={"only": {"max_concurrent": 1}}) as worker:
            slots = worker.board.slots("only")
            assert slots is not None
            askings = [worker.start() for _ in range(3)]
            await until(lambda: worker.upstreams["only"].requests == 1)
            assert slots.waiting == 2
            await askings[1].hang_up()
            assert slots.waiting == 1
            worker.upstreams["only"].script = says("Hello.")
            await askings[0].hang_up()
            assert (await askings[2].answer()).status == 200
            assert sorted(outcomes(worker)) == ["completed", "disconnected", "disconnected"]
            assert worker.at_rest()

    run(test)


@pytest.mark.parametrize("seed", range(3))
def test_at_any_moment_of_many_requests(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    rows: dict[str, dict[str, Any]] = {
        "first": {"max_concurrent": 2, "max_queue": 5, "queue_timeout_s": 0.05, "first_byte_timeout_s": 0.3},
        "second": {"max_concurrent": 3, "max_queue": 50},
    }

    async def test() -> None:
        scripts = {"first": stalls, "second": says("Hello."), "third": refuses("500 Oops")}
        async with lab(tmp_path, scripts, providers=rows, hedge=True, hedge_share=0.5) as worker:
            for _ in range(20):
                worker.board.health("first/up").speed(streamed=True).add(0.01, worker.clock())
            askings = []
            for _ in range(80):
                askings.append(worker.start(stream=dice.random() < 0.7))
                if dice.random() < 0.5:
                    await until(lambda: dice.random() < 0.5)
                if dice.random() < 0.6:
                    dice.choice(askings).task.cancel(DISCONNECTED)
            for asking in askings:
                await until(asking.task.done)
            assert len(outcomes(worker)) >= 60  # the others were gone before they were read
            assert {"disconnected", "completed"} <= set(outcomes(worker))
            assert worker.at_rest()

    run(test)
