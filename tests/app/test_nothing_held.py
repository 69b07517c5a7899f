"""Requests of all kinds at once, most of which end badly: afterwards nothing is held, and every sum is right.

PENSTOCK_SOAK=1: 10,000 of them instead of 1,000, and on PostgreSQL too.
"""

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import func, select

from penstock.domain.ledger import LedgerEntry
from penstock.store.database import Database
from penstock.store.governance import budget_periods, leases
from penstock.store.metering.ledger import LedgerStore
from tests.app import volley
from tests.app.test_reload import until
from tests.gateway.conftest import ANSWER, DONE, USAGE, control, delta
from tests.server import Server, running
from tests.upstream import Exchange, ScriptedUpstream

SOAK = bool(os.environ.get("PENSTOCK_SOAK"))
COUNT = 10_000 if SOAK else 1_000
AT_ONCE = 32
pytestmark = pytest.mark.timeout(3600 if SOAK else 240)

CONFIG = """
[engine]
enabled = false
[gateway]
workers = 2
[upstream]
breaker_min_calls = 100000
[[provider]]
name = "double"
base_url = "{base}"
first_byte_timeout_s = 0.5
first_token_timeout_s = 0.5
[[model]]
id = "m"
max_attempts = 2
targets = [{{ provider = "double", model = "m" }}]
price = {{ input = 1, output = 2 }}
"""
# Of an answer that arrived whole: 7 tokens in, 2 out.
PRICE = 7 * 1000 + 2 * 2000
# Of each app: its limits, and its budget.
APPS: dict[str, tuple[dict[str, int], str]] = {
    "wide": ({"concurrent_requests": 500, "requests_per_minute": 1_000_000, "tokens_per_minute": 10**9}, "100"),
    "busy": ({"concurrent_requests": 6, "requests_per_minute": 20, "tokens_per_minute": 20_000}, "100"),
    "poor": ({"concurrent_requests": 500}, "0.001"),
}
# What each answer of such an app tells, whatever it is.
TOLD = {
    app: [
        *(f"limit-{of}: {limits[of + '_per_minute']}\r\n" for of in ("requests", "tokens")),
        *(f"{what}-{of}: " for what in ("remaining", "reset") for of in ("requests", "tokens")),
    ]
    for app, (limits, _) in APPS.items()
    if "requests_per_minute" in limits
}
# How a request goes, and which of them are streams: the upstream reads it in the prompt.
STREAMED = ("stream", "before", "at", "after", "cut")
KINDS = (*STREAMED, "plain", "plain", "plain", "stream", "unheard", "flaky", "bad", "late")
OWN_REFUSALS = {"rate_limit_exceeded", "concurrency_limit_exceeded", "budget_exceeded"}


class Double:
    """The upstream: ``calls`` counts the calls by the number of the request."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    async def __call__(self, exchange: Exchange) -> None:
        kind, number = json.loads(exchange.body)["messages"][0]["content"].split()
        self.calls[number] += 1
        if kind in STREAMED:
            await self._stream(exchange, kind)
        elif kind in ("unheard", "late"):
            await exchange.hung_up()
        elif kind == "bad" or (kind == "flaky" and self.calls[number] == 1):
            await exchange.answer(b"{}", status="400 Bad" if kind == "bad" else "500 Oh")
        else:
            await exchange.answer(json.dumps(ANSWER).encode())

    async def _stream(self, exchange: Exchange, kind: str) -> None:
        await exchange.begin_stream()
        if kind == "before":
            await exchange.hung_up()
            return
        await exchange.chunk(delta("one"))
        if kind == "after":
            await exchange.hung_up()
        elif kind == "cut":
            exchange.reset()
        else:
            await exchange.chunk(delta("two") + USAGE + DONE)
            await exchange.chunk(b"")


@dataclass
class Crowd:
    """Clients of one server. ``whole`` are the ids of answers that arrived whole, ``codes`` counts errors."""

    server: Server
    double: Double
    keys: dict[str, str]
    whole: set[str] = field(default_factory=set)
    codes: Counter[str] = field(default_factory=Counter)
    _numbers: int = 0

    async def run(self, count: int, dice: random.Random) -> None:
        """So many requests of all kinds, of all apps, each on a connection of its own."""
        plan = iter([(dice.choice([*self.keys]), dice.choice(KINDS)) for _ in range(count)])

        async def client() -> None:
            for app, kind in plan:
                async with asyncio.timeout(60):
                    await self.ask(app, kind)

        await asyncio.gather(*(client() for _ in range(AT_ONCE)))

    async def ask(self, app: str, kind: str) -> asyncio.StreamWriter | None:
        """One request, which the client ends when its kind says so; its connection while it is open after that."""
        self._numbers += 1
        number = str(self._numbers)
        where = urlsplit(self.server.gateway)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        body = {"model": "m", "messages": [{"role": "user", "content": f"{kind} {number}"}], "max_tokens": 10}
        writer.write(volley.request(self.keys[app], json.dumps(body | {"stream": kind in STREAMED}).encode()))
        head = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        while kind in ("before", "unheard") and not head.done():
            if number in self.double.calls:
                head.cancel()
                break
            await asyncio.sleep(0.005)
        with suppress(asyncio.CancelledError):
            said = (await head).decode("latin-1").lower()
            assert all(f"\r\nx-ratelimit-{name}" in said for name in TOLD.get(app, ()))
            if not said.startswith("http/1.1 200"):
                await self._note_error(reader, said)
            elif kind in ("at", "after"):
                await reader.readuntil(b"data: " if kind == "at" else b"\n\n")
                if app == "held":
                    return writer
            else:
                await self._read_on(reader, said)
        (writer.transport.abort if self._numbers % 2 else writer.close)()
        return None

    async def _read_on(self, reader: asyncio.StreamReader, said: str) -> None:
        request_id = said.partition("x-request-id: ")[2].partition("\r\n")[0]
        if "content-length: " in said:
            await reader.readexactly(int(said.partition("content-length: ")[2].partition("\r\n")[0]))
            self.whole.add(request_id)
        elif b"[DONE]" in await reader.readuntil(b"0\r\n\r\n"):
            self.whole.add(request_id)

    async def _note_error(self, reader: asyncio.StreamReader, said: str) -> None:
        length = int(said.partition("content-length: ")[2].partition("\r\n")[0])
        code = json.loads(await reader.readexactly(length))["error"]["code"]
        self.codes[code] += 1
        if code in OWN_REFUSALS:
            assert "\r\nretry-after: " in said
            assert said.startswith("http/1.1 429")


@contextmanager
def crowd(folder: Path, *, more: str = "") -> Iterator[Crowd]:
    """A server with the apps, before a double."""
    double = Double()
    with ScriptedUpstream(double) as upstream:
        # Where commands find it, too.
        home = folder / "home"
        home.mkdir(mode=0o700)
        (home / "penstock.toml").write_text(CONFIG.format(base=upstream.base) + more)
        with running(home) as server:
            keys = {}
            for name, (limits, budget) in APPS.items():
                control(server, "POST", "/apps", {"name": name})
                control(server, "POST", f"/apps/{name}/addons", {"plan": "heroku-inference:standard"})
                control(server, "PATCH", f"/apps/{name}/limits", limits)
                control(server, "PUT", f"/apps/{name}/budgets", {"amount": budget, "period": "total"})
                keys[name] = control(server, "GET", f"/apps/{name}/config-vars")["INFERENCE_KEY"]
            yield Crowd(server, double, keys)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"] if SOAK else ["sqlite"])
def test_after_a_storm_nothing_is_held_and_what_was_spent_is_what_the_ledger_has(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'home' / 'penstock.db'}"
    if database == "postgresql":
        url = request.getfixturevalue("postgres").new_database(migrated=False)
    with crowd(tmp_path, more=f'[database]\nurl = "{url}"\n') as it:
        asyncio.run(it.run(COUNT, random.Random(5)))
        assert set(it.codes) >= OWN_REFUSALS
        db = Database.open(url, home=it.server.home, upkeep=True)
        ledger = LedgerStore(db)
        until(lambda: len(ledger.entries(limit=10**6)) == len(it.double.calls), "an entry of each")
        until(lambda: held(db) == {}, "everything is given back")
        entries = ledger.entries(limit=10**6)
        check(it, entries)
        for name in APPS:
            (budget,) = control(it.server, "GET", f"/apps/{name}/budgets")
            spent = sum(entry.amount_nanos for entry in entries if entry.app_name == name)
            assert (budget["held"], round(float(budget["spent"]) * 1e9)) == ("0", spent)
            assert spent <= float(APPS[name][1]) * 1e9
        with db.read() as connection:
            total = connection.scalar(select(func.sum(budget_periods.c.spent_nanos)))
        assert total == sum(entry.amount_nanos for entry in entries)
        db.close()
        assert "The ledger is whole." in it.server.cli("ledger:verify").stdout
        asyncio.run(permits_are_free(it))


def held(db: Database) -> dict[str, int]:
    """What workers still have of anything."""
    row = leases.c
    with db.read() as connection:
        return {id_: granted for id_, granted in connection.execute(select(row.counter, row.granted)) if granted}


def check(it: Crowd, entries: list[LedgerEntry]) -> None:
    """Each admitted request has one entry, each call is one of its attempts, each whole answer is charged."""
    by_id = {entry.request_id: entry for entry in entries}
    assert len(by_id) == len(entries) == len(it.double.calls)
    assert sum(len(json.loads(entry.attempts)) for entry in entries) == sum(it.double.calls.values())
    assert {(by_id[one].outcome, by_id[one].amount_nanos) for one in it.whole} == {("completed", PRICE)}
    outcomes = Counter(entry.outcome for entry in entries)
    assert set(outcomes) == {"completed", "disconnected", "upstream_closed", "upstream_refused", "upstream_timeout"}


async def permits_are_free(it: Crowd) -> None:
    """As many streams as may be open are admitted at once, and no more."""
    limits, _ = APPS["busy"]
    free = {"requests_per_minute": "unlimited", "tokens_per_minute": "unlimited"}
    control(it.server, "PATCH", "/apps/busy/limits", free)
    it.keys["held"] = it.keys["busy"]
    opened: list[asyncio.StreamWriter] = []
    async with asyncio.timeout(60):
        # A permit that a worker has in stock may be refused to the other one for half a second.
        while len(opened) < limits["concurrent_requests"]:
            if (writer := await it.ask("held", "after")) is not None:
                opened.append(writer)
    it.codes.clear()
    for _ in range(20):
        assert await it.ask("held", "after") is None
    assert it.codes == {"concurrency_limit_exceeded": 20}
    for writer in opened:
        writer.close()
