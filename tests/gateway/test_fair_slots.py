"""A provider's slots under contention: apps are served by weight, and what is reserved for one is taken by no other."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.errors import PenstockError
from penstock.gateway.routing.slots import Limit, Slots
from tests.gateway.lab import Clock, lab, run, says, stalls, until

# Another worker: takes what it can for an app, says how many that is, and gives one back for each line that it reads.
OTHER = """
import asyncio, json, sys
from pathlib import Path
from penstock.gateway.routing.slots import Limit, Slots
async def main():
    slots = Slots(Path(sys.argv[1]), "p", Limit(max_concurrent=int(sys.argv[2]), max_queue=0))
    slots.reserves = json.loads(sys.argv[4])
    held = []
    try:
        while True:
            held.append(await slots.take(sys.argv[3]))
    except Exception:
        print(len(held), flush=True)
    for _ in sys.stdin:
        held.pop()()
        print(len(held), flush=True)
asyncio.run(main())
"""


def slots(folder: Path, count: int, *, queue: int = 0, **reserves: int) -> Slots:
    """Slots of the provider ``p``; time stands still, so that none is left to other workers."""
    made = Slots(folder, "p", Limit(max_concurrent=count, max_queue=queue, queue_timeout_s=30), clock=Clock())
    made.reserves = reserves
    return made


class Load:
    """Requests of apps at one worker's slots."""

    def __init__(self, own: Slots) -> None:
        self.own = own
        self.served: list[str] = []
        self.holding: list[tuple[str, Callable[[], None]]] = []
        self.refused: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def add(self, app: str, count: int = 1, weight: int = 1) -> None:
        """So many more requests, which have come as far as they can."""
        self.tasks += [asyncio.create_task(self._one(app, weight)) for _ in range(count)]
        await settled()

    async def turn(self, count: int = 1) -> None:
        """One request after the other gives back its slot."""
        for _ in range(count):
            self.holding.pop(0)[1]()
            await settled()

    def held(self, app: str) -> int:
        """How many slots an app has."""
        return sum(name == app for name, _ in self.holding)

    async def end(self) -> None:
        """Everything is given back."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for _, free in self.holding:
            free()
        assert (self.own.held, self.own.waiting) == (set(), 0)
        self.own.close()

    async def _one(self, app: str, weight: int) -> None:
        try:
            free = await self.own.take(app, weight)
        except PenstockError:
            self.refused.append(app)
            return
        self.served.append(app)
        self.holding.append((app, free))


async def settled() -> None:
    """Everything that can go on has."""
    for _ in range(4):
        await asyncio.sleep(0)


def test_a_batch_of_a_thousand_does_not_starve_one_request_of_another_app(tmp_path: Path) -> None:
    async def test() -> None:
        load = Load(slots(tmp_path, 2, queue=2000))
        await load.add("batch", 1000)
        await load.turn(50)
        await load.add("interactive")
        await load.turn(2)
        assert "interactive" in load.served[-2:]
        await load.end()

    run(test)


def test_under_saturation_weights_of_three_to_one_get_three_to_one(tmp_path: Path) -> None:
    async def test() -> None:
        load = Load(slots(tmp_path, 4, queue=1000))
        await load.add("idle", 4)
        await load.add("light", 200, weight=1)
        await load.add("heavy", 200, weight=3)
        await load.turn(100)
        counts = Counter(load.served)
        assert (counts["heavy"], counts["light"]) == (75, 25)
        await load.end()

    run(test)


def test_a_full_queue_refuses_whose_app_holds_most_of_it(tmp_path: Path) -> None:
    async def test() -> None:
        load = Load(slots(tmp_path, 1, queue=10))
        await load.add("batch", 12)
        assert load.refused == ["batch"]
        await load.add("interactive", 7)
        assert Counter(load.refused) == {"batch": 6, "interactive": 2}
        assert load.own.waiting == 10
        await load.add("batch")
        assert Counter(load.refused) == {"batch": 7, "interactive": 2}
        await load.turn(10)
        assert Counter(load.served) == {"batch": 6, "interactive": 5}
        await load.end()

    run(test)


def test_no_other_app_takes_what_is_reserved_and_its_own_app_takes_the_rest_too(tmp_path: Path) -> None:
    async def test() -> None:
        load = Load(slots(tmp_path, 8, queue=100, web=25))
        await load.add("batch", 20)
        assert load.held("batch") == 6
        await load.add("web")
        assert (load.held("web"), load.own.waiting) == (1, 14)
        await load.turn(6)
        assert load.held("batch") == 6
        await load.add("web", 10)
        assert (load.held("web"), load.held("batch")) == (2, 6)
        await load.end()
        alone = Load(slots(tmp_path, 8, web=25))
        await alone.add("web", 9)
        assert (alone.held("web"), alone.refused) == (8, ["web"])
        await alone.end()

    run(test)


def test_what_an_app_is_served_in_its_own_slots_does_not_count_against_it(tmp_path: Path) -> None:
    async def test() -> None:
        load = Load(slots(tmp_path, 4, queue=500, web=50))
        await load.add("batch", 2)
        await load.add("web", 200)
        await load.add("batch", 200)
        await load.turn(2)
        begun = len(load.served)
        await load.turn(80)
        counts = Counter(load.served[begun:])
        assert (counts["web"], counts["batch"]) == (60, 20)  # its own half, and half of the common half
        await load.end()

    run(test)


def other_worker(folder: Path, app: str, reserves: str) -> subprocess.Popen[str]:
    """A process that holds all slots that the app gets there."""
    command = [sys.executable, "-c", OTHER, str(folder), "10", app, reserves]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> int:
    """How many slots it has."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_a_reserve_holds_over_processes_and_a_kill_gives_it_back(tmp_path: Path) -> None:
    reserves = '{"web": 30, "mail": 5}'

    async def test() -> None:
        load = Load(slots(tmp_path, 10, web=30, mail=5))
        with other_worker(tmp_path, "batch", reserves) as batch, other_worker(tmp_path, "web", reserves) as web:
            assert (said(batch), said(web)) in ((6, 3), (0, 9), (5, 4), (4, 5), (3, 6), (2, 7), (1, 8))
            await load.add("batch")
            await load.add("web")
            await load.add("mail", 2)
            assert (load.refused, load.held("mail")) == (["batch", "web", "mail"], 1)
            os.kill(web.pid, signal.SIGKILL)
            web.wait(10)
            await load.add("web", 3)
            assert load.held("web") == 3
            batch.kill()
        await load.end()

    run(test)


def test_reserves_change_while_calls_are_under_way(tmp_path: Path) -> None:
    async def test() -> None:
        load = Load(slots(tmp_path, 4, queue=50))
        await load.add("batch", 14)
        assert load.held("batch") == 4
        load.own.reserves = {"web": 50}
        await load.add("web", 10)
        await load.turn(4)  # those that had a slot that is reserved now are over
        assert len(load.holding) == 4
        assert load.held("batch") <= 2
        load.own.reserves = {}
        await load.turn(20)
        assert (load.own.waiting, len(load.served), load.holding) == (0, 24, [])
        await load.add("batch", 4)
        assert load.held("batch") == 4
        await load.end()

    run(test)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "free", "cancel", "reserve"]), st.sampled_from("abc"), st.integers(0, 9)
    ),
    max_size=60,
)


@given(steps=STEPS, limit=st.integers(1, 5), queue=st.integers(0, 6))
@settings(max_examples=100, deadline=None)
def test_whatever_happens_no_slot_is_free_while_one_waits_who_may_have_it(
    steps: list[tuple[str, str, int]], limit: int, queue: int
) -> None:
    async def test() -> None:
        load = Load(slots(Path(folder), limit, queue=queue))
        for step, app, number in steps:
            if step == "take":
                await load.add(app, weight=number + 1)
            elif step == "free" and load.holding:
                await load.turn()
            elif step == "cancel" and load.tasks:
                load.tasks[number % len(load.tasks)].cancel()
            elif step == "reserve":
                load.own.reserves = {app: number * 10}
            await settled()
            load.own._serve()  # what another worker's slot, or a change of the reserves, brings about within 20 ms
            await settled()
            assert len(load.own.held) <= limit
            assert load.own.waiting <= queue
            layout = load.own._layout()
            assert not load.own.waiting or {*layout.common} <= load.own.held
            for name, own in layout.own.items():
                assert name not in load.own._queue or {*own} <= load.own.held
        await load.end()

    with tempfile.TemporaryDirectory() as folder:
        run(test)


@pytest.mark.parametrize("stream", [True, False])
def test_the_gateway_queues_requests_as_those_of_their_app(tmp_path: Path, stream: bool) -> None:
    async def test() -> None:
        one = {"first": {"max_concurrent": 1, "max_queue": 5}}
        async with lab(tmp_path, {"first": stalls}, providers=one) as worker:
            held = worker.start()
            await until(lambda: worker.upstreams["first"].requests == 1)
            worker.board.set_reserves({"a": 100})
            own = worker.board.slots("first")
            assert own is not None
            waits = worker.start(stream=stream)
            await until(lambda: own.waiting == 1)
            assert "a" in own._queue  # the app of every key of the lab
            worker.upstreams["first"].script = says("Hello.")
            await held.hang_up()
            assert (await waits.answer()).status == 200
            assert worker.at_rest()

    run(test)
