"""The ledger of a real server: as many entries as admitted requests, none for those that a limit refused."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from penstock.domain.ledger import LedgerEntry
from penstock.store.database import Database
from penstock.store.metering.ledger import LedgerStore
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


async def answer(exchange: Exchange) -> None:
    await exchange.answer(json.dumps(ANSWER).encode())


def test_a_limit_of_the_configuration_holds_over_the_workers_and_each_answer_has_one_entry_with_its_price(
    tmp_path: Path,
) -> None:
    more = '[[limit]]\nscope = "app"\nrequests_per_minute = 30\n'
    with ScriptedUpstream(answer) as upstream, served(tmp_path, upstream, more) as server:
        ask = asker(server)
        with ThreadPoolExecutor(8) as pool:
            asked = [one.result() for one in [pool.submit(ask) for _ in range(120)]]
        answered, refused = ([one for one in asked if one.status_code == status] for status in (200, 429))
        assert (len(answered), len(refused)) == (30, 90)
        error = refused[0].json()["error"]
        assert (error["code"], "the app hello" in error["message"].lower()) == ("rate_limit_exceeded", True)
        assert {one.headers["x-ratelimit-limit-requests"] for one in asked} == {"30"}
        assert all(int(one.headers["retry-after"]) >= 1 for one in refused)
    home = tmp_path / "home"
    found = entries(home)
    assert not list((home / "journal").iterdir())
    assert sorted(entry.request_id for entry in found) == sorted(one.headers["x-request-id"] for one in answered)
    usage: Any = ANSWER["usage"]
    price = usage["prompt_tokens"] * 1000 + usage["completion_tokens"] * 2000
    assert {(entry.outcome, entry.app_name, entry.asked, entry.amount_nanos) for entry in found} == {
        ("completed", "hello", "m", price)
    }
