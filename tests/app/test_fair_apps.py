"""A batch app and an interactive one on one provider: the batch cannot starve the other, by turn or by reserve."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tests.app.volley import Connection, connected, request
from tests.gateway.conftest import ANSWER, control
from tests.server import Server, running
from tests.upstream import Exchange, ScriptedUpstream

SLOTS, BATCH = 4, 24
CONFIG = """
[engine]
enabled = false
[gateway]
workers = {workers}
[[provider]]
name = "double"
base_url = "{base}"
max_concurrent = 4
max_queue = 1000
queue_timeout_s = 100
first_byte_timeout_s = 100
[[model]]
id = "m"
first_token_timeout_s = 100
targets = [{{ provider = "double", model = "m" }}]
"""


class Double:
    """The upstream: answers the interactive app at once, and a batch call when it is let go. ``under_way`` counts the
    calls of each app that have no answer yet, ``most`` how many there were at once, ``begun`` all in their order."""

    def __init__(self) -> None:
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.begun: list[str] = []
        self._held: list[asyncio.Event] = []
        self._over = False

    async def __call__(self, exchange: Exchange) -> None:
        app = json.loads(exchange.body)["messages"][0]["content"]
        self.begun.append(app)
        self.under_way[app] += 1
        self.most[app] = max(self.most[app], self.under_way[app])
        if app == "batch" and not self._over:
            self._held.append(asyncio.Event())
            await self._held[-1].wait()
        self.under_way[app] -= 1
        await exchange.answer(json.dumps(ANSWER).encode())

    def let_go(self, count: int = SLOTS) -> None:
        """Answers the first so many batch calls."""
        for event in self._held[:count]:
            event.set()
        del self._held[:count]

    def end(self) -> None:
        """From now on batch calls are answered at once."""
        self._over = True
        self.let_go(len(self._held))


class Contest:
    """A server with both apps, and the upstream that they share."""

    def __init__(self, server: Server, upstream: ScriptedUpstream, double: Double, *, workers: int) -> None:
        self.server, self.double = server, double
        self._upstream, self._workers = upstream, workers
        self._messages = {app: self._prepared(app) for app in ("batch", "interactive")}
        self.connections: list[Connection] = []

    def let_go(self, count: int = SLOTS) -> None:
        """Batch calls end."""
        self._upstream.call(lambda: self.double.let_go(count))

    @asynccontextmanager
    async def flooded(self) -> AsyncIterator[None]:
        """The batch app asks without end from many connections to each worker; the provider is full. The workers know
        both apps."""
        crowd = await connected(self.server.gateway, workers=self._workers, each=BATCH // self._workers)
        self.connections = await connected(self.server.gateway, workers=self._workers)
        for one in self.connections:
            await self.interactive(one)
        tasks = [asyncio.create_task(self._flood(one)) for one in crowd]
        try:
            async with asyncio.timeout(100):
                await until(lambda: self.double.under_way["batch"] == SLOTS)
                yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for one in (*crowd, *self.connections):
                one.close()

    async def interactive(self, connection: Connection) -> None:
        """One request of the interactive app."""
        answer = await connection.ask(self._messages["interactive"])
        assert answer.status == 200, answer.body

    async def in_turns(self, asked: asyncio.Task[None]) -> None:
        """One batch call ends after the other, as soon as the next call has begun, until the request is answered. The
        first ends when the worker has answered another request that came after this one, which now stands in line."""
        (await Connection.open(self.server.gateway)).close()
        while not asked.done():
            begun = len(self.double.begun)
            self.let_go(1)
            await until(lambda begun=begun: len(self.double.begun) > begun or asked.done())  # type: ignore[misc]
        await asked

    async def _flood(self, connection: Connection) -> None:
        while (await connection.ask(self._messages["batch"])).status == 200:
            pass

    def _prepared(self, app: str) -> bytes:
        control(self.server, "POST", "/apps", {"name": app})
        control(self.server, "POST", f"/apps/{app}/addons", {"plan": "heroku-inference:standard"})
        key = control(self.server, "GET", f"/apps/{app}/config-vars")["INFERENCE_KEY"]
        return request(key, json.dumps({"model": "m", "messages": [{"role": "user", "content": app}]}).encode())


async def until(condition: Callable[[], bool]) -> None:
    """Until it holds; the test's own time is the deadline."""
    while not condition():  # noqa: ASYNC110 - what changes it is in another thread
        await asyncio.sleep(0.005)


@contextmanager
def contest(folder: Path, *, workers: int) -> Iterator[Contest]:
    double = Double()
    with ScriptedUpstream(double) as upstream:
        config = folder / "penstock.toml"
        config.write_text(CONFIG.format(workers=workers, base=upstream.base))
        with running(folder / "home", "--config", str(config)) as server, contextlib.ExitStack() as last:
            last.callback(upstream.call, double.end)
            yield Contest(server, upstream, double, workers=workers)


def test_one_request_of_another_app_is_served_long_before_the_batch_that_waits(tmp_path: Path) -> None:
    async def test(it: Contest) -> None:
        async with it.flooded():
            (connection,) = it.connections
            for _ in range(5):
                before = len(it.double.begun)
                await it.in_turns(asyncio.create_task(it.interactive(connection)))
                assert it.double.begun[before:].index("interactive") <= BATCH // 4

    with contest(tmp_path, workers=1) as it:
        asyncio.run(test(it))


def test_a_reserve_that_is_set_while_a_batch_runs_keeps_slots_for_its_app_at_all_workers(tmp_path: Path) -> None:
    async def test(it: Contest) -> None:
        async with it.flooded():
            await asyncio.to_thread(it.server.cli, "policy:set", "-a", "interactive", "--reserve", "25")
            while not await served_beside_a_standing_batch(it):
                it.let_go()
            it.double.most.clear()
            for _ in range(20):
                await asyncio.gather(*(it.interactive(one) for one in it.connections))
            assert (it.double.under_way["batch"], it.double.most["batch"]) == (SLOTS - 1, 0)
            await asyncio.to_thread(it.server.cli, "policy:set", "-a", "interactive", "--reserve", "0")
            await until(lambda: it.double.under_way["batch"] == SLOTS)

    with contest(tmp_path, workers=2) as it:
        asyncio.run(test(it))


async def served_beside_a_standing_batch(it: Contest) -> bool:
    """Whether every worker serves the interactive app while no batch call ends, all but one slot being theirs."""
    await until(lambda: it.double.under_way["batch"] >= SLOTS - 1)
    asked = [asyncio.create_task(it.interactive(one)) for one in it.connections]
    _, waiting = await asyncio.wait(asked, timeout=1)
    stood = not waiting and it.double.under_way["batch"] == SLOTS - 1
    while waiting:
        it.let_go()
        _, waiting = await asyncio.wait(asked, timeout=0.05)
    return stood
