"""A real server under a load of all kinds, anything of which may be killed, and what must be true afterwards."""

import contextlib
import itertools
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import func, select

from penstock.domain.ledger import LedgerEntry
from penstock.store.database import Database
from penstock.store.governance import budget_periods, leases, ledger_days
from penstock.store.metering.ledger import LedgerStore
from penstock.store.metering.verify import verify
from tests.gateway.conftest import ANSWER, DONE, control, delta
from tests.server import Server, descendants, is_alive, scratch_env, wait_ready
from tests.upstream import Exchange, ScriptedUpstream

CONFIG = """
[engine]
enabled = false
[gateway]
workers = {workers}
[serve]
drain_s = 5
[upstream]
breaker_min_calls = 100000
[journal]
rotate_bytes = 65536
[limits]
on_outage = "admit"
[[budget]]
scope = "app"
period = "total"
amount = 1000000
[[provider]]
name = "double"
base_url = "{base}"
[[model]]
id = "m"
max_attempts = 1
targets = [{{ provider = "double", model = "m" }}]
price = {{ input = {price}, output = 2 }}
{more}
"""
PRICE = 1
# Kills a hundred times instead of a few; a machine that does nothing else for hours may be slow.
SOAK = bool(os.environ.get("PENSTOCK_SOAK"))
WITHIN_S = 600.0 if SOAK else 90.0
# What the client waits for: the whole answer, or less. ``early`` and ``cut`` are dropped by the upstream.
KINDS = ("plain", "plain", "stream", "stream", "before", "at", "after", "early", "cut")
LEAVES = ("before", "at", "after")
CLOCK_STEPS = (-3600.0, 60.0, -7200.0, 0.0)
# Beside the workers' own files, named as they are, but for the last; the second is read, and gone then.
GARBAGE = (
    "00000000000000000001-7-00ff00ff-000001.journal",
    "00000000000000000002-7-00ff00ff-000001.journal",
    "00000000000000000003-7-00ff00ff-000001.journal",
    "notes.journal",
)


class Double:
    """The upstream. It answers as the prompt says, and reports as many input tokens as it has had calls, so that no
    two answers cost the same. ``answered`` are those reports, ``calls`` counts by kind."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.answered: set[int] = set()

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one request."""
        kind = json.loads(exchange.body)["messages"][0]["content"]
        self.calls[kind] += 1
        number = self.calls.total()
        usage = {"prompt_tokens": number, "completion_tokens": 2, "total_tokens": number + 2}
        if kind == "plain":
            self.answered.add(number)
            await exchange.answer(json.dumps(ANSWER | {"usage": usage}).encode())
            return
        await exchange.begin_stream()
        if kind == "early":
            exchange.close()
            raise ConnectionError
        if kind != "before":
            await exchange.chunk(delta("one"))
        if kind in LEAVES:
            await exchange.hung_up()
        elif kind == "cut":
            exchange.reset()
            raise ConnectionError
        else:
            self.answered.add(number)
            last = b"data: " + json.dumps({"id": "c", "choices": [], "usage": usage}).encode() + b"\n\n"
            await exchange.chunk(delta("two") + last + DONE)
            await exchange.chunk(b"")


class Storm:
    """One home, its server as long as it lives, and clients that go on whatever happens. ``whole`` has what the
    upstream reported, by request id, of answers that arrived whole; ``begun`` the kind of all that arrived in part, or
    failed at the upstream. Without a ``url`` the database is SQLite's in the home."""

    def __init__(
        self, folder: Path, upstream: ScriptedUpstream, double: Double, *, url: str = "", more: str = ""
    ) -> None:
        self.double = double
        self.url = url
        self.dice = random.Random(5)
        self.home = folder / "home"
        self.whole: dict[str, int] = {}
        self.begun: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
        self._upstream = upstream
        self._more = more + (f'[database]\nurl = "{url}"' if url else "")
        self._clock = folder / "clock"
        self._clock.write_bytes(struct.pack("d", 0.0))
        self._steps = itertools.cycle(CLOCK_STEPS)
        self._starts = itertools.count()
        self.prices: set[int] = set()
        self._log = folder / "log"
        self._config = folder / "penstock.toml"
        self._ended = threading.Event()
        self.server: Server
        self._key = ""

    def begin(self) -> None:
        """The first start."""
        self.start()
        self._key = control(self.server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]

    def is_running(self) -> bool:
        """Whether there is a server."""
        return "server" in vars(self) and self.server.process.poll() is None

    def start(self, *, workers: int = 2, price: int = PRICE) -> Server:
        """A server on this home."""
        (self.home / "run" / "ready.json").unlink(missing_ok=True)
        self.prices.add(price)
        self._config.write_text(CONFIG.format(base=self._upstream.base, more=self._more, workers=workers, price=price))
        command = [sys.executable, "-m", "penstock", "serve", "--port", "0", "--control-port", "0"]
        path = os.pathsep.join([str(Path(__file__).with_name("clock")), *filter(None, [os.environ.get("PYTHONPATH")])])
        with self._log.open("ab") as out:
            process = subprocess.Popen(
                [*command, "--config", str(self._config)],
                env=scratch_env(self.home) | {"PYTHON_TESTS_CLOCK": str(self._clock), "PYTHONPATH": path},
                stdout=out,
                stderr=out,
            )
        try:
            ready = wait_ready(process, self.home, self._log)
        except AssertionError:
            process.terminate()
            raise
        self.server = Server(self.home, ready["gateway"].rstrip("/"), ready["control"].rstrip("/"), process, self._log)
        return self.server

    def stop(self, *, shipped: bool = True) -> None:
        """Ends the server as an operator would; by then most is shipped, unless it cannot be."""
        if shipped:
            self.wait_for(lambda: self.count() >= self.double.calls.total(), "the entries")
        family = descendants(self.server.process.pid)
        self.server.process.send_signal(signal.SIGTERM)
        assert self.server.process.wait(60) == 0, self._log.read_text()[-3000:]
        assert not [pid for pid in family if is_alive(pid)]

    def kill_worker(self) -> None:
        """-9 to one of the workers, and wait until there are as many again."""
        before = self.workers()
        pid = self.strike_worker()
        self.wait_for(lambda: pid not in self.workers() and len(self.workers()) == len(before), "a new worker")

    def strike_worker(self) -> int:
        """-9 to one of the workers, whose number it was: no other can start while the database is away."""
        pid = self.dice.choice(self.workers())
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_ledger(self) -> None:
        """-9 to the ledger's process, and wait for the next."""
        (pid,) = self._with_open("run/ledger.lock")
        os.kill(pid, signal.SIGKILL)
        self.wait_for(lambda: bool(self._with_open("run/ledger.lock") - {pid}), "a new ledger")

    def kill_supervisor(self) -> None:
        """-9 to the supervisor, and another server at once, beside children that still end."""
        self.server.process.kill()
        self.server.process.wait(30)
        self.start()

    def kill_all(self) -> None:
        """-9 to every process of the server, as when the machine goes."""
        # Stopped, so that no child is started while they are counted.
        self.server.process.send_signal(signal.SIGSTOP)
        family = descendants(self.server.process.pid)
        for pid in (self.server.process.pid, *family):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.server.process.wait(30)
        self.wait_for(lambda: not any(is_alive(pid) for pid in family), "the end of all")

    def lose_machine(self) -> None:
        """Everything dies at once, with torn records and garbage in the journal, and starts with another setting."""
        self.kill_all()
        litter(self.home / "journal")
        number = next(self._starts)
        self.start(workers=1 + number % 3, price=1 + number % 2)

    def fill_disk(self) -> None:
        """For a while no file can grow: a limit on their size stands for it."""
        refused, workers = self.refused[503], self.workers()
        before = [resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY)) for pid in workers]
        self.wait_for(lambda: self.refused[503] > refused + 50, "refusals")
        for pid, limits in zip(workers, before, strict=True):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        self.wait_for_answers(20)
        assert self.workers() == workers

    def set_clock(self) -> None:
        """Another time, from one moment to the next."""
        with self._clock.open("r+b") as file:
            file.write(struct.pack("d", next(self._steps)))
        self.wait_for_answers(20)

    def workers(self) -> list[int]:
        """The gateway workers: those that write to a journal."""
        return [pid for pid in descendants(self.server.process.pid) if self._writes_journal(pid)]

    @contextmanager
    def clients(self, count: int = 6) -> Iterator[None]:
        """Requests of all kinds from so many threads."""
        self._ended.clear()
        with ThreadPoolExecutor(count) as pool:
            work = [pool.submit(self._ask_on, random.Random(self.dice.random())) for _ in range(count)]
            try:
                yield
            finally:
                self._ended.set()
            for done in work:
                done.result(WITHIN_S)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Until it holds."""
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self._log.read_text()[-3000:]}"
            time.sleep(0.02)

    def wait_for_answers(self, count: int) -> None:
        """Until so many more have arrived whole."""
        wanted = len(self.whole) + count
        self.wait_for(lambda: len(self.whole) >= wanted, f"{count} more answers")

    @contextmanager
    def database(self) -> Iterator[Database]:
        """The server's."""
        db = Database.open(self.url or self.home / "penstock.db", home=self.home, upkeep=True)
        try:
            yield db
        finally:
            db.close()

    def count(self) -> int:
        """How many entries there are."""
        with self.database() as db:
            return LedgerStore(db).head()[0]

    def _writes_journal(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                # Whatever else it has open may be closed meanwhile.
                with contextlib.suppress(OSError):
                    written = link.lstat().st_mode & 0o200
                    if written and str(link.readlink()).startswith(str(self.home / "journal")):
                        return True
        return False

    def _with_open(self, name: str) -> set[int]:
        """The server's processes that have this file of the home open."""
        found = set()
        for pid in descendants(self.server.process.pid):
            with contextlib.suppress(OSError):
                for link in Path(f"/proc/{pid}/fd").iterdir():
                    with contextlib.suppress(OSError):
                        if str(link.readlink()) == str(self.home / name):
                            found.add(pid)
        return found

    def _ask_on(self, dice: random.Random) -> None:
        with httpx.Client(timeout=WITHIN_S, trust_env=False) as client:
            while not self._ended.is_set():
                try:
                    self._ask(client, dice.choice(KINDS), dice)
                except httpx.ConnectError:
                    self._ended.wait(0.01)  # there is no server at the moment
                except httpx.HTTPError:
                    continue

    def _ask(self, client: httpx.Client, kind: str, dice: random.Random) -> None:
        body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": kind}], "max_tokens": 100}
        if kind != "plain":
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        self.asked[kind] += 1
        patience = httpx.Timeout(WITHIN_S, read=dice.uniform(0.01, 0.3)) if kind == "before" else WITHIN_S
        request = client.build_request(
            "POST",
            f"{self.server.gateway}/v1/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {self._key}"},
            timeout=patience,
        )
        answer = client.send(request, stream=True)
        try:
            if answer.status_code not in (200, 502):
                self.refused[answer.status_code] += 1
                return
            self.begun[answer.headers["x-request-id"]] = kind
            self._read(answer, kind)
        finally:
            answer.close()

    def _read(self, answer: httpx.Response, kind: str) -> None:
        if kind == "at":
            return
        text = b""
        for chunk in answer.iter_raw():
            text += chunk
            if kind == "after":
                return
        if kind == "plain" or text.endswith(DONE):
            told = text if kind == "plain" else text.rstrip().split(b"\n\n")[-2].removeprefix(b"data: ")
            self.whole[answer.headers["x-request-id"]] = json.loads(told)["usage"]["prompt_tokens"]


def litter(journal: Path) -> None:
    """Puts torn records behind those of all workers, and garbage beside their files."""
    for file in journal.glob("*-*.journal"):
        if file.is_file():
            with file.open("ab") as out:
                out.write(file.read_bytes()[:40])
    folder, noise, link, other = (journal / name for name in GARBAGE)
    noise.write_bytes(os.urandom(300_000))
    if not folder.exists():
        folder.mkdir()
        link.symlink_to("nowhere")
        other.write_text("mine")


def check(*storms: Storm, killed: bool) -> list[LedgerEntry]:
    """After the servers of one database have stopped: each admitted request has one entry, and all sums agree; the
    entries. ``killed``: a worker may have died between an admission and its call, or before it had its answer."""
    double = storms[0].double
    for storm in storms:
        left = {path.name for path in (storm.home / "journal").iterdir()}
        assert left in (set(), {GARBAGE[0], *GARBAGE[2:]})
    entries = read_ledger(storms[0])
    with storms[0].database() as db, db.read() as connection:
        assert connection.execute(select(leases).where(leases.c.counter.startswith("b:"))).all() == []
    _check_prices(entries, storms[0].prices)
    _check_answers({entry.request_id: entry for entry in entries}, storms, double)
    _check_counts(entries, storms, double.calls, killed=killed)
    return entries


def read_ledger(storm: Storm) -> list[LedgerEntry]:
    """All entries, of which no request has two. What was spent is their sum, that of the days, and the budget's."""
    with storm.database() as db:
        verified, entries = verify(db), LedgerStore(db).entries(limit=1_000_000)
        assert verified.faults == ()
        assert verified.entries == len(entries) == len({entry.request_id for entry in entries})
        spent = sum(entry.amount_nanos for entry in entries)
        days = ledger_days.c
        with db.read() as connection:
            sums = connection.execute(select(func.sum(days.requests), func.sum(days.amount_nanos))).one()
            assert tuple(map(int, sums)) == (len(entries), spent)
            assert connection.execute(select(budget_periods.c.spent_nanos)).scalars().all() == [spent]
    return entries


def _check_counts(entries: list[LedgerEntry], storms: tuple[Storm, ...], calls: Counter[str], *, killed: bool) -> None:
    """As many entries as calls, by outcome. Who leaves early, or is killed, may do so before the upstream is called."""
    outcomes = Counter(entry.outcome for entry in entries)
    silent = Counter(entry.outcome for entry in entries if not entry.usage.output_tokens)
    if killed:
        uncalled = silent["interrupted"] + silent["disconnected"]
        assert calls.total() <= len(entries) <= calls.total() + uncalled, (calls, outcomes, silent)
        assert set(outcomes) <= {"completed", "disconnected", "upstream_closed", "upstream_unreachable", "interrupted"}
        return
    left = outcomes.pop("disconnected", 0) - silent["disconnected"]
    assert left == calls["at"] + calls["after"], (calls, outcomes, silent)
    assert calls["before"] <= silent["disconnected"] <= sum(storm.asked["before"] for storm in storms)
    assert outcomes == {"completed": calls["plain"] + calls["stream"], "upstream_closed": calls["early"] + calls["cut"]}


def _check_prices(entries: list[LedgerEntry], prices: set[int]) -> None:
    """Each is charged by the one price of its version."""
    possible: dict[str | None, set[int]] = {}
    for entry in entries:
        used = entry.usage
        fit = {
            price
            for price in prices
            if entry.amount_nanos == (used.input_tokens * price + used.output_tokens * 2) * 1000
        }
        possible[entry.price_version] = possible.get(entry.price_version, prices) & fit
        assert used.estimated == (entry.outcome != "completed")
    assert all(possible.values())


def _check_answers(by_id: dict[str, LedgerEntry], storms: tuple[Storm, ...], double: Double) -> None:
    """Every client that has heard of its request finds it in the ledger, with what the upstream reported of it."""
    entries = by_id.values()
    assert {entry.key_id for entry in entries} == {next(iter(entries)).key_id}
    completed = [entry.usage.input_tokens for entry in entries if entry.outcome == "completed"]
    assert len(set(completed)) == len(completed)
    assert set(completed) <= double.answered
    for storm in storms:
        assert storm.begun.keys() <= by_id.keys()
        for request_id, number in storm.whole.items():
            assert (by_id[request_id].outcome, by_id[request_id].usage.input_tokens) == ("completed", number)
        for request_id, kind in storm.begun.items():
            assert (
                by_id[request_id].usage.output_tokens or kind == "early" or by_id[request_id].outcome == "interrupted"
            )


@contextmanager
def upstream_double() -> Iterator[tuple[ScriptedUpstream, Double]]:
    """The upstream of one or more storms."""
    double = Double()
    with ScriptedUpstream(double) as upstream:
        yield upstream, double


@contextmanager
def blowing(*storms: Storm) -> Iterator[None]:
    """These servers; whatever of them is left at the end is killed."""
    try:
        for storm in storms:
            storm.begin()
        yield
    finally:
        for storm in storms:
            if storm.is_running():
                storm.kill_all()


@contextmanager
def storm(folder: Path, *, url: str = "") -> Iterator[Storm]:
    """One server and its upstream."""
    with upstream_double() as (upstream, double):
        made = Storm(folder, upstream, double, url=url)
        with blowing(made):
            yield made
