"""A real server whose only models are served by a scripted upstream: the gateway between two real sockets."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.ledger.journal import read_journal
from penstock.ledger.records import Admitted, Record, Settled
from tests.server import Server, running
from tests.upstream import Exchange, ScriptedUpstream

CONFIG = """
[engine]
enabled = false
[gateway]
workers = 2
max_body_bytes = 1048576
header_timeout_s = 1.0
body_timeout_s = 1.5
write_timeout_s = 1.5
[upstream]
first_byte_timeout_s = 2.0
breaker_min_calls = 100000
[[provider]]
name = "double"
base_url = "{base}"
[[provider]]
name = "dead"
base_url = "http://127.0.0.1:9/v1"
[[model]]
id = "scripted"
aliases = ["also-scripted"]
max_attempts = 1
targets = [{{ provider = "double", model = "upstream-name" }}]
[[model]]
id = "fallback"
targets = [{{ provider = "dead", model = "x" }}, {{ provider = "double", model = "second" }}]
[[model]]
id = "dead"
targets = [{{ provider = "dead", model = "x" }}]
"""


@dataclass
class Gateway:
    """The server, the upstream behind it, and a key of the standard plan."""

    server: Server
    upstream: ScriptedUpstream
    key: str

    def post(self, body: Any, *, key: str | None = None, headers: dict[str, str] | None = None) -> httpx.Response:
        """POST /v1/chat/completions with a JSON value or raw bytes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"authorization": f"Bearer {key or self.key}"} | (headers or {})
        return httpx.post(f"{self.server.gateway}/v1/chat/completions", content=content, headers=sent, timeout=30)

    def chat(self, **fields: Any) -> httpx.Response:
        """POST a small valid request with these fields changed."""
        return self.post({"model": "scripted", "messages": [{"role": "user", "content": "hi"}]} | fields)

    def get(self, path: str, **headers: str) -> httpx.Response:
        """GET a page with the key."""
        return httpx.get(self.server.gateway + path, headers={"authorization": f"Bearer {self.key}"} | headers)

    def records(self) -> list[Record]:
        """Every journal record of every worker."""
        return [record for file in sorted((self.server.home / "journal").iterdir()) for record in read_journal(file)]

    def settled(self, request_id: str) -> Settled:
        """The one settlement of a request, once it is written; fails unless it was admitted and settled once."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            records = [record for record in self.records() if record.request_id == request_id]
            settled = [record for record in records if type(record) is Settled]
            if settled:
                assert sum(isinstance(record, Admitted) for record in records) == 1
                assert len(settled) == 1
                return settled[0]
            time.sleep(0.02)
        raise AssertionError(f"{request_id} is not settled")


def control(server: Server, method: str, path: str, body: Any = None) -> Any:
    """One call of the Platform API as the operator."""
    token = (server.home / "tokens" / "operator").read_text().strip()
    headers = {"authorization": f"Bearer {token}", "accept": "application/vnd.heroku+json; version=3"}
    answer = httpx.request(method, server.control + path, json=body, headers=headers, timeout=30)
    assert answer.is_success, answer.text
    return answer.json()


@pytest.fixture(scope="package")
def gateway_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One server for all tests of this folder."""

    async def unset(exchange: Exchange) -> None:
        await exchange.answer(b"{}", status="500 No Script")

    folder: Path = tmp_path_factory.mktemp("gateway")
    with ScriptedUpstream(unset) as upstream:
        config = folder / "penstock.toml"
        config.write_text(CONFIG.format(base=upstream.base))
        with running(folder / "home", "--config", str(config)) as server:
            key = control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]
            yield Gateway(server, upstream, key)


@pytest.fixture
def gateway(gateway_server: Gateway) -> Gateway:
    """The server with an upstream that answers "Hello." plainly until the test scripts something else."""
    gateway_server.upstream.script = answer_plainly
    gateway_server.upstream.arrived.clear()
    gateway_server.upstream.cancelled.clear()
    return gateway_server


ANSWER = {
    "id": "chatcmpl-up",
    "object": "chat.completion",
    "created": 1,
    "model": "upstream-name",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 3},
    },
}


async def answer_plainly(exchange: Exchange) -> None:
    """The upstream's plain answer."""
    await exchange.answer(json.dumps(ANSWER).encode())


def delta(text: str) -> bytes:
    """One streamed delta."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return (
        b"data: " + json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"
    )


USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}\n\n'
DONE = b"data: [DONE]\n\n"
