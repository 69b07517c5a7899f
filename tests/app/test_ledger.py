"""The ledger of a real server: as many entries as admitted requests, also after a worker was killed."""

import json
import os
import signal
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
from tests.app.test_reload import until
from tests.gateway.conftest import ANSWER, control
from tests.server import Server, running
from tests.upstream import Exchange, ScriptedUpstream

CONFIG = """
[engine]
enabled = false
[gateway]
workers = 2
[[provider]]
name = "lab"
base_url = "{base}"
[[model]]
id = "m"
targets = [{{ provider = "lab", model = "m" }}]
price = {{ input = 1, output = 2 }}
{more}
"""


@contextmanager
def served(folder: Path, upstream: ScriptedUpstream, more: str = "") -> Iterator[Server]:
    config = folder / "penstock.toml"
    config.write_text(CONFIG.format(base=upstream.base, more=more))
    with running(folder / "home", "--config", str(config)) as server:
        yield server


def entries(home: Path) -> list[LedgerEntry]:
    db = Database.open(home / "penstock.db", upkeep=True)
    try:
        return LedgerStore(db).entries(limit=100_000)
    finally:
        db.close()


def asker(server: Server) -> Callable[..., httpx.Response]:
    key = control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]

    def ask(**fields: Any) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(f"{server.gateway}/v1/chat/completions", json=body, headers=headers, timeout=30)

    return ask


def answers(ask: Callable[..., httpx.Response]) -> bool:
    """Whether the workers are there again."""
    try:
        return ask().status_code == 200
    except httpx.HTTPError:
        return False


async def answer(exchange: Exchange) -> None:
    await exchange.answer(json.dumps(ANSWER).encode())


def test_every_answer_has_one_entry_under_its_request_id_with_its_price(tmp_path: Path) -> None:
    with ScriptedUpstream(answer) as upstream, served(tmp_path, upstream) as server:
        ask = asker(server)
        asked = [ask() for _ in range(20)]
        until(lambda: len(entries(server.home)) == 20, what="20 entries")
        found = entries(server.home)
    assert {entry.request_id for entry in found} == {one.headers["x-request-id"] for one in asked}
    usage: Any = ANSWER["usage"]
    price = usage["prompt_tokens"] * 1000 + usage["completion_tokens"] * 2000
    assert {(entry.outcome, entry.app_name, entry.asked, entry.amount_nanos) for entry in found} == {
        ("completed", "hello", "m", price)
    }


def test_a_stopped_server_leaves_nothing_in_its_journal(tmp_path: Path) -> None:
    with ScriptedUpstream(answer) as upstream, served(tmp_path, upstream) as server:
        ask = asker(server)
        with ThreadPoolExecutor(8) as pool:
            statuses = [one.result().status_code for one in [pool.submit(ask) for _ in range(100)]]
    home = tmp_path / "home"
    assert (statuses, len(entries(home)), list((home / "journal").iterdir())) == ([200] * 100, 100, [])


def test_requests_of_a_killed_worker_are_entered_once_as_interrupted(tmp_path: Path) -> None:
    calls: list[Exchange] = []

    async def hold(exchange: Exchange) -> None:
        calls.append(exchange)
        if len(calls) > 1:
            await exchange.answer(json.dumps(ANSWER).encode())
            return
        await exchange.hung_up()

    with ScriptedUpstream(hold) as upstream, served(tmp_path, upstream) as server:
        ask = asker(server)
        with ThreadPoolExecutor(1) as pool:
            lost = pool.submit(ask)
            until(lambda: len(calls) == 1, what="the call")
            for file in (server.home / "journal").iterdir():
                os.kill(int(file.name.split("-")[1]), signal.SIGKILL)
            assert isinstance(lost.exception(), httpx.HTTPError)
        until(lambda: answers(ask), what="another worker's answer")
        until(lambda: len(entries(server.home)) == len(calls), what="the entries")
        outcomes = sorted(entry.outcome for entry in entries(server.home))
    assert outcomes.count("interrupted") == 1
    db = Database.open(tmp_path / "home" / "penstock.db", upkeep=True)
    assert verify(db).faults == ()
    db.close()


def test_a_limit_in_the_configuration_holds_over_the_workers(tmp_path: Path) -> None:
    more = '[[limit]]\nscope = "app"\nrequests_per_minute = 30\n'
    with ScriptedUpstream(answer) as upstream, served(tmp_path, upstream, more) as server:
        ask = asker(server)
        with ThreadPoolExecutor(8) as pool:
            asked = [one.result() for one in [pool.submit(ask) for _ in range(120)]]
        refused = [one for one in asked if one.status_code == 429]
        assert sum(one.status_code == 200 for one in asked) == 30
        assert len(refused) == 90
        error = refused[0].json()["error"]
        assert (error["code"], "the app hello" in error["message"].lower()) == ("rate_limit_exceeded", True)
        assert {one.headers["x-ratelimit-limit-requests"] for one in asked} == {"30"}
        assert all(int(one.headers["retry-after"]) >= 1 for one in refused)
    assert len(entries(tmp_path / "home")) == 30
