"""Prompts and answers on a real server: nowhere on the disk unless an app wants them, and never in clear text."""

import contextlib
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.conftest import DONE, control, delta
from tests.server import Server, running
from tests.upstream import Exchange, ScriptedUpstream

CONFIG = """
[engine]
enabled = false
[gateway]
workers = 2
[[provider]]
name = "double"
base_url = "{base}"
[[model]]
id = "scripted"
targets = [{{ provider = "double", model = "m" }}]
"""
ANSWER = f"canary-answer-{secrets.token_hex(12)}"


async def answers(exchange: Exchange) -> None:
    """Streams the marked answer in two parts, or says it plainly."""
    if json.loads(exchange.body).get("stream"):
        await exchange.begin_stream()
        for part in (ANSWER[:20], ANSWER[20:]):
            await exchange.chunk(delta(part))
        await exchange.chunk(DONE)
        await exchange.chunk(b"")
        return
    message = {"role": "assistant", "content": ANSWER}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": None}
    await exchange.answer(
        json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "m"} | body).encode()
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("kept")
    with ScriptedUpstream(answers) as upstream:
        config = folder / "penstock.toml"
        config.write_text(CONFIG.format(base=upstream.base))
        with running(folder / "home", "--config", str(config)) as found:
            yield found


def ask(server: Server, prompt: str, *, stream: bool) -> str:
    """One request; its id."""
    body = {"model": "scripted", "stream": stream, "messages": [{"role": "user", "content": prompt}]}
    key = server.config_var("hello", "INFERENCE_KEY")
    headers = {"authorization": f"Bearer {key}"}
    reply = httpx.post(f"{server.gateway}/v1/chat/completions", json=body, headers=headers, timeout=30)
    assert reply.status_code == 200, reply.text
    return reply.headers["x-request-id"]


def written(server: Server, *marks: str) -> list[str]:
    """The files of the server in which one of the marks stands."""
    paths = [server.log, *(path for path in server.home.rglob("*") if path.is_file())]
    return [str(path) for path in paths if any(mark.encode() in _bytes(path) for mark in marks)]


def _bytes(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):  # a file of the database that has just been merged
        return path.read_bytes()
    return b""


def contents(server: Server) -> list[dict[str, Any]]:
    """What is kept of the app."""
    found: list[dict[str, Any]] = json.loads(server.cli("contents", "-a", "hello", "--json").stdout)
    return found


def test_prompts_are_on_the_disk_only_when_they_are_kept_and_then_not_in_clear_text(server: Server) -> None:
    off, on = f"canary-off-{secrets.token_hex(12)}", f"canary-on-{secrets.token_hex(12)}"
    for stream in (False, True):
        ask(server, off, stream=stream)
    server.cli("policy:set", "-a", "hello", "--keep-content", "7")
    ids: list[str] = []
    deadline = time.monotonic() + 30
    while not ids:  # a worker knows of the change within the poll interval
        ask(server, on, stream=True)
        ids = [one["request_id"] for one in contents(server)]
        assert time.monotonic() < deadline
    plain = ask(server, on, stream=False)
    found = {one["request_id"]: one for one in contents(server)}
    while plain not in found:  # it is stored about a second after its end
        found = {one["request_id"]: one for one in contents(server)}
        assert time.monotonic() < deadline
    for id_, part in ((ids[0], "delta"), (plain, "message")):
        assert json.loads(found[id_]["request"])["messages"] == [{"role": "user", "content": on}]
        assert json.loads(found[id_]["answer"])["choices"][0][part]["content"] == ANSWER
    assert on in server.cli("contents", "-a", "hello", "--request", plain).stdout
    assert written(server, off, on, ANSWER) == []
    read = control(server, "GET", "/audit-events?action=content.read")
    assert read[-1]["after"]["request"] == plain
    server.cli("policy:set", "-a", "hello", "--keep-content", "off", "--confirm", "hello")
    ask(server, off, stream=True)
    assert contents(server) == []
    # The search itself works: what is written in clear text is found.
    (server.home / "note").write_text(on)
    assert written(server, on) == [str(server.home / "note")]
