"""A real server under a load of all kinds, anything of which may be killed, and what must be true afterwards."""

import contextlib
import json
import os
import random
import signal
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

from penstock.domain.ledger import LedgerEntry
from penstock.store.database import Database
from penstock.store.metering.ledger import LedgerStore
from penstock.store.metering.verify import verify
from tests.gateway.conftest import ANSWER, DONE, USAGE, control, delta
from tests.server import Server, descendants, is_alive, scratch_env, wait_ready
from tests.upstream import Exchange, ScriptedUpstream

CONFIG = """
[engine]
enabled = false
[gateway]
workers = 2
[serve]
drain_s = 5
[upstream]
breaker_min_calls = 100000
[journal]
rotate_bytes = 65536
[[provider]]
name = "double"
base_url = "{base}"
[[model]]
id = "m"
max_attempts = 1
targets = [{{ provider = "double", model = "m" }}]
price = {{ input = 1, output = 2 }}
{more}
"""
# Of an answer that arrived whole: 7 tokens in, 2 out.
PRICE = 7 * 1000 + 2 * 2000
WITHIN_S = 90.0
KINDS = ("plain", "plain", "stream", "stream", "before", "after", "cut")


async def script(exchange: Exchange) -> None:
    """Answers as the prompt says."""
    kind = json.loads(exchange.body)["messages"][0]["content"]
    if kind == "plain":
        await exchange.answer(json.dumps(ANSWER).encode())
        return
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


class Storm:
    """One home, its server as long as it lives, and clients that go on whatever happens. ``whole`` and ``begun`` are
    the ids of requests whose answer arrived whole, or in part."""

    def __init__(self, folder: Path, upstream: ScriptedUpstream, *, more: str = "", seed: int = 0) -> None:
        self.upstream = upstream
        self.dice = random.Random(seed)
        self.home = folder / "home"
        self.whole: set[str] = set()
        self.begun: set[str] = set()
        self.refused: Counter[int] = Counter()
        self.asked = 0
        self._log = folder / "log"
        self._config = folder / "penstock.toml"
        self._config.write_text(CONFIG.format(base=upstream.base, more=more))
        self._ended = threading.Event()
        self.server = self.start()
        self._key = control(self.server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]

    def start(self) -> Server:
        """A server on this home."""
        command = [sys.executable, "-m", "penstock", "serve", "--port", "0", "--control-port", "0"]
        with self._log.open("ab") as out:
            process = subprocess.Popen(
                [*command, "--config", str(self._config)], env=scratch_env(self.home), stdout=out, stderr=out
            )
        ready = wait_ready(process, self.home, self._log)
        self.server = Server(self.home, ready["gateway"].rstrip("/"), ready["control"].rstrip("/"), process, self._log)
        return self.server

    def stop(self) -> None:
        """Ends the server as an operator would."""
        family = descendants(self.server.process.pid)
        self.server.process.send_signal(signal.SIGTERM)
        assert self.server.process.wait(60) == 0, self._log.read_text()[-3000:]
        assert not [pid for pid in family if is_alive(pid)]

    def kill_worker(self) -> None:
        """-9 to one of the workers, and wait until there are as many again."""
        pid = self.dice.choice(self.workers())
        os.kill(pid, signal.SIGKILL)
        self.wait_for(lambda: pid not in self.workers() and len(self.workers()) == 2, "a new worker")

    def kill_ledger(self) -> None:
        """-9 to the ledger's process, and wait for the next."""
        (pid,) = self._with_open("run/ledger.lock")
        os.kill(pid, signal.SIGKILL)
        self.wait_for(lambda: bool(self._with_open("run/ledger.lock") - {pid}), "a new ledger")

    def kill_supervisor(self) -> None:
        """-9 to the supervisor, and another server at once, beside children that still end."""
        self.server.process.kill()
        self.server.process.wait(30)
        (self.home / "run" / "ready.json").unlink(missing_ok=True)
        self.start()

    def workers(self) -> list[int]:
        """The gateway workers: those that write to a journal."""
        found = []
        for pid in descendants(self.server.process.pid):
            with contextlib.suppress(OSError):
                for link in Path(f"/proc/{pid}/fd").iterdir():
                    written = link.lstat().st_mode & 0o200
                    if written and str(link.readlink()).startswith(str(self.home / "journal")):
                        found.append(pid)
                        break
        return found

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

    def entries(self, url: str | None = None) -> list[LedgerEntry]:
        """The whole ledger, which is proven to be whole."""
        db = Database.open(url or self.home / "penstock.db", home=self.home, upkeep=True)
        try:
            assert verify(db).faults == ()
            return LedgerStore(db).entries(limit=1_000_000)
        finally:
            db.close()

    def check(self, entries: list[LedgerEntry], *, killed: bool) -> None:
        """After the server has stopped: each admitted request has one entry. ``killed``: a worker may have died between
        an admission and its call, which the upstream then cannot have counted."""
        by_id = {entry.request_id: entry for entry in entries}
        outcomes = Counter(entry.outcome for entry in entries)
        assert len(by_id) == len(entries)
        assert not list((self.home / "journal").iterdir())
        assert self.whole | self.begun <= by_id.keys()
        assert {(by_id[one].outcome, by_id[one].amount_nanos) for one in self.whole} == {("completed", PRICE)}
        uncalled = sum(entry.outcome == "interrupted" and not entry.usage.output_tokens for entry in entries)
        calls = self.upstream.requests
        assert (calls <= len(entries) <= calls + uncalled) if killed else len(entries) == calls, (calls, outcomes)
        assert {entry.key_id for entry in entries} == {entries[0].key_id}
        assert set(outcomes) <= {"completed", "disconnected", "upstream_closed", "cancelled", "interrupted"}
        assert killed or not outcomes["interrupted"]

    def _with_open(self, name: str) -> set[int]:
        """The server's processes that have this file of the home open."""
        found = set()
        for pid in descendants(self.server.process.pid):
            with contextlib.suppress(OSError):
                if any(str(link.readlink()) == str(self.home / name) for link in Path(f"/proc/{pid}/fd").iterdir()):
                    found.add(pid)
        return found

    def _ask_on(self, dice: random.Random) -> None:
        with httpx.Client(timeout=20, trust_env=False) as client:
            while not self._ended.is_set():
                self.asked += 1
                with contextlib.suppress(httpx.HTTPError):
                    self._ask(client, dice.choice(KINDS), dice)

    def _ask(self, client: httpx.Client, kind: str, dice: random.Random) -> None:
        body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": kind}]}
        body["stream"] = kind != "plain"
        patience = httpx.Timeout(20, read=dice.uniform(0.01, 0.3)) if kind == "before" else 20
        request = client.build_request(
            "POST",
            f"{self.server.gateway}/v1/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {self._key}"},
            timeout=patience,
        )
        answer = client.send(request, stream=True)
        try:
            if answer.status_code != 200:
                self.refused[answer.status_code] += 1
                return
            self.begun.add(answer.headers["x-request-id"])
            text = b""
            for chunk in answer.iter_raw():
                text += chunk
                if kind == "after":
                    return
            if kind == "plain" or b"[DONE]" in text:
                self.whole.add(answer.headers["x-request-id"])
        finally:
            answer.close()


@contextmanager
def storm(folder: Path, *, more: str = "", seed: int = 0) -> Iterator[Storm]:
    """A server and its upstream; whatever of it is left at the end is killed."""
    with ScriptedUpstream(script) as upstream:
        made = Storm(folder, upstream, more=more, seed=seed)
        try:
            yield made
        finally:
            if made.server.process.poll() is None:
                for pid in (made.server.process.pid, *descendants(made.server.process.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                made.server.process.wait(30)
