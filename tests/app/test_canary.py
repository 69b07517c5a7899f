"""Marked secrets go through every path that we know; then everything that was written is searched for them."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.conftest import DONE, answer_plainly, control, delta
from tests.server import Server, descendants, running, scratch_env, titled, wait_ready
from tests.upstream import Exchange, ScriptedUpstream

CONFIG = """
[engine]
enabled = false
[gateway]
workers = 2
[[provider]]
name = "double"
base_url = "{base}"
api_key_env = "UPSTREAM_CREDENTIAL"
[[model]]
id = "scripted"
targets = [{{ provider = "double", model = "m" }}]
"""


@dataclass
class Canaries:
    """The server, its scripted upstream, and the marks that must stand nowhere."""

    server: Server
    upstream: ScriptedUpstream
    marks: dict[str, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)

    def mark(self, name: str) -> str:
        """The secret of that name, made on first use."""
        return self.marks.setdefault(name, f"canary-{name}-{secrets.token_hex(12)}")

    def chat(self, body: Any, *, key: str | None = None, path: str = "/v1/chat/completions") -> httpx.Response:
        """One call of the gateway; every error body is kept for the search."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"authorization": f"Bearer {key or self.marks['api key']}"}
        reply = httpx.post(self.server.gateway + path, content=content, headers=sent, timeout=30)
        if reply.status_code != 200:
            self.answers.append(reply.text)
        return reply

    def control(self, method: str, path: str, *, token: str | None = None, content: bytes = b"") -> None:
        """One call of the control plane that is refused."""
        headers = {"authorization": f"Bearer {token or self.marks['operator token']}"}
        reply = httpx.request(method, self.server.control + path, content=content, headers=headers, timeout=30)
        assert reply.status_code >= 400, reply.text
        self.answers.append(reply.text)

    def leaks(self, place: str, data: bytes, *, allowed: tuple[str, ...] = ()) -> list[str]:
        """The names of the marks that stand in the data."""
        return [
            f"{name} in {place}" for name, mark in self.marks.items() if mark.encode() in data and name not in allowed
        ]


@pytest.fixture(scope="module")
def canaries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canaries]:
    folder = tmp_path_factory.mktemp("canary")
    credential = f"canary-credential-{secrets.token_hex(12)}"
    with ScriptedUpstream(answer_plainly) as upstream, pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPSTREAM_CREDENTIAL", credential)
        config = folder / "penstock.toml"
        config.write_text(CONFIG.format(base=upstream.base))
        with running(folder / "home", "--config", str(config)) as server:
            found = Canaries(server, upstream)
            found.marks["upstream credential"] = credential
            found.marks["operator token"] = (server.home / "tokens" / "operator").read_text().strip()
            found.marks["master key"] = (server.home / "master.key").read_text().strip()
            found.marks["api key"] = control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]
            yield found


def ask(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": text}]} | fields


def send_through_the_gateway(canaries: Canaries) -> None:
    prompt, upstream = canaries.mark("prompt"), canaries.upstream
    credential = canaries.marks["upstream credential"]

    async def quotes(exchange: Exchange) -> None:
        assert exchange.header("authorization") == f"Bearer {credential}"
        error = {"error": {"message": f"Incorrect API key provided: {credential}.", "code": "invalid_api_key"}}
        await exchange.answer(json.dumps(error).encode(), status="400 Bad Request")

    async def quotes_in_an_answer(exchange: Exchange) -> None:
        await exchange.answer(json.dumps({"error": {"message": f"bad {credential}"}}).encode())

    async def breaks_off(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta(canaries.mark("answer")))
        await exchange.chunk(b'data: {"error":{"message":"key ' + credential.encode() + b' is bad"}}\n\n')
        exchange.reset()

    async def streams(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta(canaries.mark("answer")))
        await exchange.chunk(DONE)
        await exchange.chunk(b"")

    upstream.script = answer_plainly
    assert canaries.chat(ask(prompt)).status_code == 200
    for script, stream in ((quotes, False), (quotes_in_an_answer, False), (breaks_off, True), (streams, True)):
        upstream.script = script
        reply = canaries.chat(ask(prompt, stream=stream))
        assert credential not in reply.text, script.__name__
    upstream.script = answer_plainly
    for broken in (ask(prompt, temperature=prompt), ask(prompt, messages=prompt), [prompt], prompt.encode() * 3):
        assert canaries.chat(broken).status_code == 400
    canaries.chat(ask(prompt), key=canaries.mark("wrong key"))
    canaries.chat(ask(prompt), path=f"/v1/{canaries.marks['api key']}?key={canaries.marks['api key']}")
    with contextlib.suppress(httpx.HTTPError):
        httpx.get(canaries.server.gateway + "/v1/models", headers={"x-api-key": canaries.marks["api key"] + "\x00"})


def send_through_the_control_plane(canaries: Canaries) -> None:
    value, token = canaries.mark("config value"), canaries.mark("wrong token")
    control(canaries.server, "PATCH", "/apps/hello/config-vars", {"SECRET": value})
    control(canaries.server, "PATCH", "/apps/hello/config-vars", {"SECRET": value + "-2", "SECOND": value})
    stored = canaries.mark("stored credential")
    for number in range(2):
        control(canaries.server, "PUT", "/credentials/double", {"value": f"{stored}-{number}"})
    canaries.answers.append(str(control(canaries.server, "GET", "/credentials")))
    canaries.answers.append(str(control(canaries.server, "GET", "/audit-events")))
    canaries.control("PUT", "/credentials/double", content=json.dumps({"value": [stored]}).encode())
    canaries.control("PUT", "/credentials/double", content=json.dumps({"value": stored + "\n"}).encode())
    canaries.control("PUT", "/credentials/double", content=b'{"value": "' + stored.encode())
    made = control(canaries.server, "POST", "/apps/hello/addons", {"plan": "heroku-inference:standard"})
    control(canaries.server, "DELETE", f"/apps/hello/addons/{made['name']}", {"confirm": "hello"})
    make_secrets(canaries)
    for path in ("/account", "/apps/hello/config-vars", f"/{token}"):
        canaries.control("GET", path, token=token)
    canaries.control("PATCH", "/apps/hello/config-vars", content=b'{"SECRET": "' + value.encode())
    canaries.control("PATCH", "/apps/hello/config-vars", content=json.dumps({"SECRET": [value]}).encode())
    canaries.control("PATCH", "/apps/hello/config-vars", content=json.dumps({"SECRET": value * 4000}).encode())
    canaries.control("GET", f"/apps/hello/{canaries.marks['operator token']}")
    httpx.post(f"{canaries.server.control}/oauth/authorizations", auth=("operator@penstock.local", token))


def make_secrets(canaries: Canaries) -> None:
    """A key and an operator token, made twice with an Idempotency-Key, used, and for the key rotated."""
    server, operator = canaries.server, {"authorization": f"Bearer {canaries.marks['operator token']}"}
    control(server, "POST", "/operators", {"email": "second@example.com"})
    for name, path, body, secret in (
        ("second key", "/apps/hello/keys", {"attachment": "INFERENCE", "expires_in": 3600}, "secret"),
        ("second token", "/operators/second@example.com/tokens", {"description": "ci"}, "token"),
    ):
        headers = operator | {"idempotency-key": name.replace(" ", "-")}
        made = [httpx.post(server.control + path, json=body, headers=headers, timeout=30).json() for _ in range(2)]
        assert made[0] == made[1]
        canaries.marks[name] = made[0][secret]
    canaries.chat(ask("hi"), key=canaries.marks["second key"])
    canaries.control("GET", "/apps/hello", token=canaries.marks["second token"])
    rotated = control(server, "POST", "/apps/hello/keys/INFERENCE/actions/rotate", {"grace_s": 600})
    canaries.marks["rotated key"] = rotated["secret"]


def crash_and_fail(canaries: Canaries) -> None:
    """A worker that is killed and started again, and commands that fail."""
    for pid in titled(canaries.server.process.pid, "penstock worker"):
        os.kill(pid, 9)
    wait_ready(canaries.server.process, canaries.server.home, canaries.server.log)
    env = scratch_env(canaries.server.home) | {"PENSTOCK_CONTROL_TOKEN": canaries.marks["wrong token"]}
    for words in (("apps",), ("config:get", "SECRET", "-a", "hello"), ("settings",)):
        done = subprocess.run(
            [sys.executable, "-m", "penstock", *words], env=env, capture_output=True, text=True, check=False
        )
        canaries.answers.append(done.stdout + done.stderr)


def test_no_secret_is_written_anywhere_but_where_it_is_kept(canaries: Canaries) -> None:
    send_through_the_gateway(canaries)
    send_through_the_control_plane(canaries)
    crash_and_fail(canaries)
    home = canaries.server.home
    kept = {home / "tokens" / "operator": ("operator token",), home / "master.key": ("master key",)}
    found = [
        leak for answer in canaries.answers for leak in canaries.leaks(f"an answer: {answer[:200]}", answer.encode())
    ]
    for pid in (canaries.server.process.pid, *descendants(canaries.server.process.pid)):
        found += canaries.leaks("argv", Path(f"/proc/{pid}/cmdline").read_bytes())
    found += canaries.leaks("the log", canaries.server.log.read_bytes())
    for path in home.rglob("*"):
        if path.is_file():
            found += canaries.leaks(str(path.relative_to(home)), path.read_bytes(), allowed=kept.get(path, ()))
    assert not found
    # The search itself works: what is kept is found where it is kept.
    assert canaries.leaks("", (home / "master.key").read_bytes()) == ["master key in "]
    assert len(canaries.marks) == 13
