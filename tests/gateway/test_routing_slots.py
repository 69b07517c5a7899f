"""At most so many calls of a provider at once, over all workers of a machine, whatever becomes of them."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.errors import PenstockError
from penstock.gateway.routing.slots import Limit, Slots
from penstock.providers.spec import ProviderSpec
from tests.gateway.lab import lab, refuses, run, says, stalls, until
from tests.upstream import Exchange

# Another worker: takes as many slots as it gets, says how many, and gives one back for each line that it reads.
OTHER = """
import asyncio, sys
from pathlib import Path
from penstock.gateway.routing.slots import Limit, Slots
async def main():
    slots = Slots(Path(sys.argv[1]), "p", Limit(max_concurrent=int(sys.argv[2]), max_queue=0))
    held = []
    for _ in range(int(sys.argv[3])):
        try:
            held.append(await slots.take())
        except Exception:
            break
    print(len(held), flush=True)
    for _ in sys.stdin:
        held.pop()()
        print(len(held), flush=True)
asyncio.run(main())
"""


@contextlib.contextmanager
def other_worker(folder: Path, limit: int, count: int) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A process that holds up to ``count`` slots, and how many it got."""
    command = [sys.executable, "-c", OTHER, str(folder), str(limit), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process
        process.kill()


def slots(folder: Path, count: int, *, queue: int = 0, timeout_s: float = 5.0) -> Slots:
    """Slots of the provider ``p``."""
    return Slots(folder, "p", Limit(max_concurrent=count, max_queue=queue, queue_timeout_s=timeout_s))


async def take_all(own: Slots) -> list[Callable[[], None]]:
    """As many as there are."""
    taken = []
    with contextlib.suppress(PenstockError):
        while True:
            taken.append(await own.take())
    return taken


def test_the_limit_is_exact_over_processes_and_a_kill_gives_back(tmp_path: Path) -> None:
    async def test() -> None:
        own = slots(tmp_path, 5)
        with other_worker(tmp_path, 5, 2) as (first, one), other_worker(tmp_path, 5, 9) as (second, two):
            assert (first, second) == (2, 3)
            assert await take_all(own) == []
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
            assert one.stdout is not None
            assert one.stdout.readline() == "1\n"
            assert len(await take_all(own)) == 1
            os.kill(two.pid, signal.SIGKILL)
            two.wait(10)
            assert len(await take_all(own)) == 3
        assert len(own.held) == 4
        own.close()

    run(test)


def test_who_waits_gets_the_slot_that_another_process_gives_back(tmp_path: Path) -> None:
    async def test() -> None:
        own = slots(tmp_path, 1, queue=1)
        with other_worker(tmp_path, 1, 1) as (got, other):
            assert got == 1
            waiting = asyncio.create_task(own.take())
            await until(lambda: own.waiting == 1)
            other.kill()
            other.wait(10)
            (await waiting)()
        assert not own.held
        own.close()

    run(test)


class Crowd:
    """Requests that take slots, hold them, give them back and give up."""

    def __init__(self, own: Slots) -> None:
        self.own = own
        self.served: list[int] = []
        self.holding: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._began = 0

    def act(self, step: str, at: int) -> None:
        """One step of the test."""
        if step == "take":
            self._tasks.append(asyncio.create_task(self._one(self._began)))
            self._began += 1
        elif step == "free" and self.holding:
            self.holding.pop(at % len(self.holding))()
        elif step == "cancel" and self._tasks:
            self._tasks[at % len(self._tasks)].cancel()

    async def end(self) -> None:
        """All that still wait give up, and all that hold a slot give it back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert len(self.holding) == len(self.own.held)
        for free in self.holding:
            free()

    async def _one(self, number: int) -> None:
        free = await self.own.take()
        self.served.append(number)
        self.holding.append(free)


STEPS = st.lists(st.tuples(st.sampled_from(["take", "take", "free", "cancel"]), st.integers(0, 100)), max_size=60)


@given(steps=STEPS, limit=st.integers(1, 4), queue=st.integers(0, 4))
@settings(max_examples=100, deadline=None)
def test_whatever_order_slots_are_taken_given_back_and_given_up_none_is_lost_or_doubled(
    steps: list[tuple[str, int]], limit: int, queue: int
) -> None:
    async def test() -> None:
        own = slots(Path(folder), limit, queue=queue)
        crowd = Crowd(own)
        for step, at in steps:
            crowd.act(step, at)
            for _ in range(at % 3):
                await asyncio.sleep(0)
            assert len(own.held) <= limit
            assert own.waiting <= queue
        await crowd.end()
        assert crowd.served == sorted(crowd.served)  # first come, first served
        assert (len(own.held), own.waiting) == (0, 0)
        own.limit = Limit(max_concurrent=limit, max_queue=0)
        assert len(await take_all(own)) == limit
        own.close()

    with tempfile.TemporaryDirectory() as folder:
        run(test)


def test_a_worker_whose_queue_never_empties_leaves_slots_to_the_others(tmp_path: Path) -> None:
    waits = OTHER.replace("max_queue=0", "max_queue=1")

    async def test() -> None:
        own, over = slots(tmp_path, 1, queue=9), asyncio.Event()

        async def client() -> None:
            while not over.is_set():
                free = await own.take()
                await asyncio.sleep(0.005)
                free()

        clients = [asyncio.create_task(client()) for _ in range(4)]
        command = (sys.executable, "-c", waits, str(tmp_path), "1", "1")
        pipe = asyncio.subprocess.PIPE
        other = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        assert other.stdout is not None
        assert await other.stdout.readline() == b"1\n"
        over.set()
        other.kill()
        await other.wait()
        await asyncio.gather(*clients)
        own.close()

    run(test)


def limited(**limits: object) -> dict[str, dict[str, object]]:
    """Rows of providers with a limit of one call."""
    return {name: {"max_concurrent": 1} | limits for name in ("first", "second")}


def test_a_full_provider_sends_on_to_the_next_and_when_all_are_full_it_is_a_429_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        scripts = {"first": stalls, "second": stalls}
        async with lab(tmp_path, scripts, providers=limited(max_queue=0)) as worker:
            one = worker.start()
            await until(lambda: worker.upstreams["first"].requests == 1)
            two = worker.start()
            await until(lambda: worker.upstreams["second"].requests == 1)
            answer = await worker.ask()
            assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "upstream_busy", "1")
            assert answer.legs == []
            assert [upstream.requests for upstream in worker.upstreams.values()] == [1, 1]
            await one.hang_up()
            await two.hang_up()
            assert worker.at_rest()
            worker.upstreams["first"].script = says("Hello.")
            assert (await worker.ask()).legs == [("first/up", "completed")]

    run(test)


def test_who_waits_too_long_goes_on_to_the_next_target(tmp_path: Path) -> None:
    async def test() -> None:
        rows = limited(max_queue=1, queue_timeout_s=0.05)
        async with lab(tmp_path, {"first": stalls, "second": says("Hello.")}, providers=rows) as worker:
            one = worker.start()
            await until(lambda: worker.upstreams["first"].requests == 1)
            assert (await worker.ask()).legs == [("second/up", "completed")]
            await one.hang_up()
            assert worker.at_rest()

    run(test)


def test_many_requests_share_few_slots_and_all_are_served(tmp_path: Path) -> None:
    now, most = 0, 0

    async def counted(exchange: Exchange) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1
        await says("Hello.")(exchange)

    async def test() -> None:
        rows = {"first": {"max_concurrent": 3, "max_queue": 100}}
        async with lab(tmp_path, {"first": counted}, providers=rows) as worker:
            askings = [worker.start(stream=bool(number % 2)) for number in range(60)]
            assert {(await asking.answer()).status for asking in askings} == {200}
            assert most <= 3
            assert worker.at_rest()

    run(test)


def test_a_limit_can_come_go_and_come_back_at_a_reload(tmp_path: Path) -> None:
    def spec(limit: int | None) -> ProviderSpec:
        return ProviderSpec(
            name="first", kind="openai", base_url="http://127.0.0.1:9", max_concurrent=limit, max_queue=9
        )

    async def test() -> None:
        async with lab(tmp_path, {"first": stalls}) as worker:
            board, upstream = worker.board, worker.upstreams["first"]
            board.set_limits([spec(1)])
            askings = [worker.start() for _ in range(3)]
            await until(lambda: upstream.requests == 1)
            board.set_limits([spec(None)])
            await until(lambda: upstream.requests == 3)  # those that waited have no limit any more
            board.set_limits([spec(2)])
            late = [worker.start() for _ in range(2)]
            await until(lambda: upstream.requests == 4)
            own = board.slots("first")
            assert own is not None
            assert (len(own.held), own.waiting) == (2, 1)
            for asking in (*askings, *late):
                await asking.hang_up()
            assert worker.at_rest()

    run(test)


def test_the_header_names_the_target_that_was_too_busy_to_be_called(tmp_path: Path) -> None:
    async def test() -> None:
        scripts = {"first": refuses("401 No"), "second": says("never")}
        one = {"second": {"max_concurrent": 1, "max_queue": 0}}
        async with lab(tmp_path, scripts, providers=one) as worker:
            slots = worker.board.slots("second")
            assert slots is not None
            free = await slots.take()
            answer = await worker.ask()
            assert (answer.code, answer.headers["penstock-target"]) == ("upstream_busy", "second/up")
            assert answer.legs == [("first/up", "upstream_misconfigured")]
            free()

    run(test)
