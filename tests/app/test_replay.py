"""Idempotency-Key and resumable streams at a real server: workers die, the database goes away, clients come back."""

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from penstock.domain.ledger import LedgerEntry
from penstock.ledger.journal import read_journal
from penstock.ledger.records import Admitted
from tests.app.test_ledger import entries
from tests.gateway.conftest import answer_plainly, control
from tests.gateway.repeats import Steps, events
from tests.postgres import Postgres
from tests.server import Server, running
from tests.upstream import Exchange, ScriptedUpstream

CONFIG = """
[engine]
enabled = false
[gateway]
workers = 2
[idempotency]
detached_s = 20
[upstream]
breaker_min_calls = 100000
[[provider]]
name = "double"
base_url = "{base}"
[[model]]
id = "scripted"
max_attempts = 1
targets = [{{ provider = "double", model = "m" }}]
price = {{ input = 1, output = 2 }}
"""
WITHIN_S = 60
# Of an answer that arrived whole: 7 tokens in, 2 out.
PRICE = 7 * 1000 + 2 * 2000
STREAM = {"model": "scripted", "messages": [{"role": "user", "content": "hi"}], "stream": True}


@dataclass
class Site:
    """A server with two workers, its upstream, and a key."""

    server: Server
    upstream: ScriptedUpstream
    key: str

    def headers(self, value: str, last: str | None = None) -> dict[str, str]:
        """Of a request under the Idempotency-Key, resumed behind an event."""
        resumed = {} if last is None else {"last-event-id": last}
        return {"authorization": f"Bearer {self.key}", "idempotency-key": value} | resumed

    def post(self, value: str, body: Any = STREAM) -> httpx.Response:
        """The whole answer, on a connection of its own."""
        url = f"{self.server.gateway}/v1/chat/completions"
        return httpx.post(url, json=body, headers=self.headers(value), timeout=WITHIN_S)

    @contextlib.contextmanager
    def stream(self, value: str, last: str | None = None) -> Iterator[Iterator[str]]:
        """The lines of an open stream."""
        url = f"{self.server.gateway}/v1/chat/completions"
        headers = self.headers(value, last)
        with httpx.Client(timeout=WITHIN_S) as client, client.stream("POST", url, json=STREAM, headers=headers) as got:
            assert got.status_code == 200, got.read()
            yield got.iter_lines()

    def admitted(self) -> list[tuple[float, int, str]]:
        """Time, worker's process and id of every admission in the journal, of which the ledger removes what it has."""
        found = []
        for file in (self.server.home / "journal").glob("*.journal"):
            with contextlib.suppress(FileNotFoundError):
                pid = int(file.name.split("-")[1])
                found += [(r.admitted_at, pid, r.request_id) for r in read_journal(file) if isinstance(r, Admitted)]
        return found

    def ledger(self) -> list[LedgerEntry]:
        """Every entry, once all that was admitted has one."""
        found: list[LedgerEntry] = []

        def is_whole() -> bool:
            # The journal first: what is gone from it meanwhile has its entry.
            admitted = {request_id for _, _, request_id in self.admitted()}
            found[:] = entries(self.server.home)
            return admitted <= {entry.request_id for entry in found}

        wait_for(is_whole)
        return found

    def charges(self) -> dict[bytes, list[int]]:
        """The amounts of all entries by what they are charged under."""
        found: dict[bytes, list[int]] = {}
        for entry in self.ledger():
            found.setdefault(entry.idempotency_id or b"", []).append(entry.amount_nanos)
        return found

    def kill_worker(self) -> None:
        """kill -9 of the worker that admitted last."""
        _, pid, _ = max(self.admitted())
        os.kill(pid, signal.SIGKILL)


def wait_for(condition: Callable[[], bool]) -> None:
    """Fails when it does not come about."""
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def site(folder: Path, script: Any, extra: str = "") -> Iterator[Site]:
    """A server of the test's own."""
    with ScriptedUpstream(script) as upstream:
        config = folder / "penstock.toml"
        config.write_text(CONFIG.format(base=upstream.base) + extra)
        with running(folder / "home", "--config", str(config)) as server:
            yield Site(server, upstream, control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for the tests that leave it running."""
    with site(tmp_path_factory.mktemp("replay"), answer_plainly) as made:
        yield made


def read_until(lines: Iterator[str], word: str) -> str:
    """The id of the event with the word."""
    last = ""
    for line in lines:
        if line.startswith("id: "):
            last = line.removeprefix("id: ")
        if word in line:
            return last
    raise AssertionError(f"no {word}")


def test_a_stream_whose_worker_is_killed_is_made_anew_under_the_same_charge(shared: Site) -> None:
    steps = shared.upstream.script = Steps("word")
    before = shared.charges()
    with contextlib.suppress(httpx.TransportError), shared.stream("crash") as lines:
        assert read_until(lines, "word") != ""
        shared.kill_worker()
        for line in lines:
            assert "[DONE]" not in line
    got: list[httpx.Response] = []
    again = threading.Thread(target=lambda: got.append(shared.post("crash")))
    again.start()
    wait_for(lambda: steps.calls == 2)
    steps.say("made", "end")
    again.join(WITHIN_S)
    made = events(got[0].content)
    assert (made[0][0], made[-1][1]) == ("2-1", "[DONE]")
    assert shared.post("crash").content == got[0].content
    after = shared.charges()
    assert [sorted(after[one]) for one in after.keys() - before.keys()] == [[0, PRICE]]


def test_who_has_seen_the_end_gets_the_same_answer_after_a_crash(shared: Site) -> None:
    shared.upstream.script = answer_plainly
    plain = {name: value for name, value in STREAM.items() if name != "stream"}
    first = shared.post("kept", plain)
    calls = shared.upstream.requests
    shared.kill_worker()

    def again() -> httpx.Response:
        with contextlib.suppress(httpx.TransportError):
            return shared.post("kept", plain)
        return httpx.Response(0)

    answers: list[httpx.Response] = []
    wait_for(lambda: answers.append(again()) or answers[-1].status_code == 200)  # type: ignore[func-returns-value]
    assert answers[-1].content == first.content
    assert answers[-1].headers["idempotent-replayed"] == "true"
    assert answers[-1].headers["x-request-id"] == first.headers["x-request-id"]
    assert shared.upstream.requests == calls


def test_a_client_that_reconnects_goes_on_at_whichever_worker_it_meets(shared: Site) -> None:
    steps = shared.upstream.script = Steps("word0")
    got, last = "", None
    words = [f"word{number}" for number in range(8)]
    for number, word in enumerate(words):
        if number:
            steps.say(word)
        with shared.stream("moving", last) as lines:
            last = read_until(lines, word)
            got += word
            assert int(last) > number
    steps.say("end")
    with shared.stream("moving", last) as lines:
        assert read_until(lines, "[DONE]") == str(int(last or 0) + 1)
    whole = events(shared.post("moving").content)
    assert [number for number, _ in whole] == [str(number + 1) for number in range(len(whole))]
    text = "".join(
        choice["delta"].get("content") or "" for _, data in whole[:-1] for choice in json.loads(data)["choices"]
    )
    assert text == got
    assert steps.calls == 1


def test_whatever_is_killed_whenever_a_repeated_request_is_charged_once(shared: Site) -> None:
    async def slow(exchange: Exchange) -> None:
        time.sleep(dice.random() * 0.05)  # noqa: ASYNC251 - the upstream's own thread, so that kills come in between
        await answer_plainly(exchange)

    dice = random.Random(5)
    shared.upstream.script = slow
    plain = {name: value for name, value in STREAM.items() if name != "stream"}
    before, calls = shared.charges(), shared.upstream.requests
    answers: dict[str, set[bytes]] = {}

    def insist(value: str) -> None:
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                got = shared.post(value, plain)
                if got.status_code == 200:
                    answers.setdefault(value, set()).add(got.content)
                    if len(answers[value]) > 1 or "idempotent-replayed" in got.headers:
                        return
                else:
                    assert got.status_code in (401, 503), got.text

    clients = [threading.Thread(target=insist, args=(f"soak-{number}",)) for number in range(12)]
    for client in clients:
        client.start()
    for more in (3, 6):
        wait_for(lambda more=more: shared.upstream.requests > calls + more)  # type: ignore[misc]
        with contextlib.suppress(ProcessLookupError):
            shared.kill_worker()
    for client in clients:
        client.join(WITHIN_S)
    assert {value: len(bodies) for value, bodies in answers.items()} == {f"soak-{number}": 1 for number in range(12)}
    after = shared.charges()
    assert [sum(after[one]) for one in after.keys() - before.keys()] == [PRICE] * 12


def test_the_openai_sdk_reads_a_keyed_stream_and_its_repeat(shared: Site) -> None:
    steps = shared.upstream.script = Steps("Hello", " there", "end")
    client = OpenAI(base_url=f"{shared.server.gateway}/v1", api_key=shared.key, max_retries=0, timeout=WITHIN_S)
    texts = []
    for _ in range(2):
        stream: Any = client.chat.completions.create(**STREAM, extra_headers={"Idempotency-Key": "sdk"})  # type: ignore[call-overload]
        texts.append("".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices))
    assert texts == ["Hello there"] * 2
    assert steps.calls == 1


def test_an_open_run_ends_before_the_server_does_and_is_kept(tmp_path: Path) -> None:
    steps = Steps("one")
    with site(tmp_path, steps) as made:
        with made.stream("drain") as lines:
            read_until(lines, "one")
        made.server.process.send_signal(signal.SIGTERM)
        steps.say("two", "end")
        made.server.process.wait(WITHIN_S)
        assert [(entry.outcome, entry.amount_nanos) for entry in made.ledger()] == [("completed", PRICE)]
    with running(tmp_path / "home", "--config", str(tmp_path / "penstock.toml")) as server:
        again = Site(server, made.upstream, made.key).post("drain")
        assert b"two" in again.content
        assert again.headers["idempotent-replayed"] == "true"


def test_without_the_database_a_key_is_refused_and_what_runs_goes_on(own_postgres: Postgres, tmp_path: Path) -> None:
    steps = Steps("one")
    url = own_postgres.new_database(migrated=False)
    with site(tmp_path, steps, f'[database]\nurl = "{url}"\n') as made:
        with made.stream("outage") as lines:
            read_until(lines, "one")
            own_postgres.stop()
            refused = made.post("another")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
            assert int(refused.headers["retry-after"]) > 0
            steps.say("two", "end")
            read_until(lines, "[DONE]")
            own_postgres.start()
        got: list[httpx.Response] = []
        wait_for(lambda: got.append(made.post("outage")) or got[-1].status_code == 200)  # type: ignore[func-returns-value]
        assert b"two" in got[-1].content
        assert steps.calls == 1
