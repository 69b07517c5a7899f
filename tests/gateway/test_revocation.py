"""A key that goes takes its open requests with it, in every worker; what the key still stands for goes on."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.store.database import Database
from penstock.store.nouns.keys import KeyStore
from tests.gateway.conftest import ANSWER, CONFIG, DONE, Gateway, control, delta
from tests.server import running
from tests.upstream import Exchange, ScriptedUpstream

WORKERS = 3
BODY = {"model": "scripted", "messages": [{"role": "user", "content": "x"}]}


class Slow:
    """An upstream's script: streams say "a" and wait, plain requests wait, until the client hangs up or ``finish``."""

    def __init__(self) -> None:
        self.hung_up = 0
        self._finish: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one exchange."""
        self._loop = asyncio.get_running_loop()
        self._finish = self._finish or asyncio.Event()
        asked = json.loads(exchange.body)
        if "now" in asked["messages"][0]["content"]:
            await exchange.answer(json.dumps(ANSWER).encode())
            return
        if asked.get("stream"):
            await exchange.begin_stream()
            await exchange.chunk(delta("a"))
        gone, done = asyncio.create_task(exchange.hung_up()), asyncio.create_task(self._finish.wait())
        await asyncio.wait((gone, done), return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            self.hung_up += 1
        else:
            await exchange.chunk(delta("b") + DONE)
            await exchange.chunk(b"")
        gone.cancel()
        done.cancel()

    def finish(self) -> None:
        """Complete what is open."""
        assert self._loop is not None
        assert self._finish is not None
        self._loop.call_soon_threadsafe(self._finish.set)


@dataclass
class Stream:
    """One streamed answer, read by a thread of its own; ``text`` is all of it once ``ended`` is set."""

    key: str
    url: str
    began: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    request_id: str = ""
    text: str = ""

    def read(self) -> None:
        """Send the request and read to the end."""
        try:
            body, headers = BODY | {"stream": True}, {"authorization": f"Bearer {self.key}"}
            with httpx.stream("POST", self.url, json=body, headers=headers, timeout=60) as answer:
                self.request_id = answer.headers["x-request-id"]
                for part in answer.iter_text():
                    self.text += part
                    self.began.set()
        finally:
            self.ended.set()
            self.began.set()

    def error(self) -> str:
        """The code of the typed error that must be the last event."""
        assert "[DONE]" not in self.text
        assert 'finish_reason": "' not in self.text
        last = self.text.strip().split("\n\n")[-1]
        code: str = json.loads(last.removeprefix("data: "))["error"]["code"]
        return code


@dataclass
class House:
    """A gateway of several workers over the slow upstream."""

    gateway: Gateway
    slow: Slow
    opened: list[Stream] = field(default_factory=list)

    def app(self, name: str) -> str:
        """A new app with the standard plan as INFERENCE; its key."""
        control(self.gateway.server, "POST", "/apps", {"name": name})
        order = {"plan": "heroku-inference:standard", "attachment": {"name": "INFERENCE"}}
        control(self.gateway.server, "POST", f"/apps/{name}/addons", order)
        return self.shown(name)

    def shown(self, app: str) -> str:
        """The key that the config vars show."""
        return str(control(self.gateway.server, "GET", f"/apps/{app}/config-vars")["INFERENCE_KEY"])

    def stream(self, key: str) -> Stream:
        """A stream that has begun and goes on."""
        made = Stream(key, f"{self.gateway.server.gateway}/v1/chat/completions")
        threading.Thread(target=made.read, daemon=True).start()
        self.opened.append(made)
        assert made.began.wait(30)
        assert not made.ended.is_set(), made.text
        return made

    def streams_everywhere(self, key: str) -> list[Stream]:
        """Open streams on a key, at least one in each worker."""
        found: list[Stream] = []
        while len({worker_of(one.request_id) for one in found}) < WORKERS:
            assert len(found) < 100, "one worker takes everything"
            found.append(self.stream(key))
        return found

    def answers_everywhere(self, key: str) -> list[httpx.Response]:
        """Answers to short requests on a key, from every worker."""
        found: list[httpx.Response] = []
        while len({worker_of(one.headers["x-request-id"]) for one in found}) < WORKERS:
            assert len(found) < 300, "one worker takes everything"
            found.append(self.quick(key))
        return found

    def quick(self, key: str, **fields: Any) -> httpx.Response:
        """A request that the upstream answers at once."""
        return self.gateway.post(BODY | {"messages": [{"role": "user", "content": "now"}]} | fields, key=key)


def worker_of(request_id: str) -> str:
    """What all request ids of one worker begin with."""
    return request_id[:-8]


def code_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal."""
    return answer.status_code, answer.json()["error"]["code"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, ScriptedUpstream]]:
    folder = tmp_path_factory.mktemp("revocation")
    with ScriptedUpstream(Slow()) as upstream:
        config = folder / "penstock.toml"
        config.write_text(CONFIG.format(base=upstream.base).replace("first_byte_timeout_s = 2.0", ""))
        with running(folder / "home", "--config", str(config), "--workers", str(WORKERS)) as server:
            yield Gateway(server, upstream, ""), upstream


@pytest.fixture
def house(server: tuple[Gateway, ScriptedUpstream]) -> Iterator[House]:
    gateway, upstream = server
    slow = Slow()
    upstream.script = slow
    upstream.arrived.clear()
    made = House(gateway, slow)
    yield made
    with contextlib.suppress(AssertionError):
        slow.finish()
    for stream in made.opened:
        assert stream.ended.wait(30)


def test_a_revocation_cuts_its_streams_in_every_worker_and_no_other(house: House) -> None:
    leaked, kept = house.app("leaked"), house.app("kept")
    victims, bystanders = house.streams_everywhere(leaked), house.streams_everywhere(kept)
    # A change that leaves the key what it is; the workers have seen it when they have seen the revocation.
    control(house.gateway.server, "PATCH", "/apps/kept", {"name": "kept-on"})

    gone = control(house.gateway.server, "DELETE", "/apps/leaked/keys/INFERENCE")

    assert [key["prefix"] for key in gone] == [leaked[:12]]
    assert all(stream.ended.is_set() for stream in victims)
    assert house.slow.hung_up == len(victims)
    assert {stream.error() for stream in victims} == {"key_revoked"}
    assert {code_of(answer) for answer in house.answers_everywhere(leaked)} == {(401, "invalid_api_key")}
    assert {house.gateway.settled(stream.request_id).outcome for stream in victims} == {"key_revoked"}
    assert not any(stream.ended.is_set() for stream in bystanders)
    house.slow.finish()
    for stream in bystanders:
        assert stream.ended.wait(30)
        assert stream.text.endswith("data: [DONE]\n\n")
    assert {answer.status_code for answer in house.answers_everywhere(kept)} == {200}


def test_a_request_without_an_answer_yet_is_cut_with_a_401(house: House) -> None:
    key = house.app("waiting")
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(house.gateway.post(BODY, key=key)))
    thread.start()
    assert house.gateway.upstream.arrived.wait(30)
    control(house.gateway.server, "DELETE", "/apps/waiting/keys/INFERENCE")
    assert house.slow.hung_up == 1
    thread.join(30)
    assert code_of(answers[0]) == (401, "key_revoked")
    assert answers[0].json()["error"]["type"] == "authentication_error"
    assert answers[0].headers["www-authenticate"] == "Bearer"
    assert house.gateway.settled(answers[0].headers["x-request-id"]).outcome == "key_revoked"


def test_a_request_whose_body_is_still_arriving_is_cut(house: House) -> None:
    key = house.app("uploading")
    address = httpx.URL(house.gateway.server.gateway)
    with socket.create_connection((address.host, address.port or 80), timeout=30) as client:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: 500\r\n"
        )
        client.sendall(head.encode() + b"expect: 100-continue\r\n\r\n")
        assert b"100 Continue" in client.recv(100)  # the key has been taken: what remains is the body
        control(house.gateway.server, "DELETE", "/apps/uploading/keys/INFERENCE")
        answer = b""
        while part := client.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 401")
    assert b'"code":"key_revoked"' in answer


@pytest.mark.parametrize("path", ["/apps/{app}", "/apps/{app}/addons/{addon}"])
def test_whatever_takes_the_key_away_cuts_its_streams(house: House, path: str) -> None:
    app = f"taken-{'addon' if 'addon' in path else 'app'}"
    stream = house.stream(house.app(app))
    addon = control(house.gateway.server, "GET", f"/apps/{app}/addons")[0]["name"]
    control(house.gateway.server, "DELETE", path.format(app=app, addon=addon))
    assert stream.ended.is_set()
    assert stream.error() == "key_revoked"


def test_during_the_grace_both_keys_work_and_then_the_old_one_dies(house: House) -> None:
    old = house.app("rotating")
    stream = house.stream(old)
    made = control(house.gateway.server, "POST", "/apps/rotating/keys/INFERENCE/actions/rotate", {"grace_s": 4})
    assert house.shown("rotating") == made["secret"] != old
    assert not stream.ended.is_set()
    assert {house.quick(key).status_code for key in (old, made["secret"])} == {200}
    assert stream.ended.wait(30)
    assert stream.error() == "expired_api_key"
    assert house.gateway.settled(stream.request_id).outcome == "expired_api_key"
    assert {code_of(answer) for answer in house.answers_everywhere(old)} == {(401, "expired_api_key")}
    assert house.quick(made["secret"]).status_code == 200


def test_without_grace_the_old_key_is_gone_when_the_rotation_answers(house: House) -> None:
    old = house.app("leaking")
    stream = house.stream(old)
    made = control(house.gateway.server, "POST", "/apps/leaking/keys/INFERENCE/actions/rotate", {"grace_s": 0})
    assert stream.ended.is_set()
    assert stream.error() == "key_revoked"
    assert {code_of(answer) for answer in house.answers_everywhere(old)} == {(401, "invalid_api_key")}
    assert house.quick(made["secret"]).status_code == 200


def test_a_key_for_some_models_has_no_other(house: House) -> None:
    house.app("limited")
    order = {"attachment": "INFERENCE", "models": ["also-scripted"]}
    made = control(house.gateway.server, "POST", "/apps/limited/keys", order)
    assert (made["models"], made["extra"]) == (["scripted"], True)
    key = made["secret"]
    assert house.quick(key).status_code == house.quick(key, model="also-scripted").status_code == 200
    assert house.quick(key, model="standard").status_code == 200
    assert code_of(house.quick(key, model="fallback")) == (403, "model_not_allowed")
    headers = {"authorization": f"Bearer {key}"}
    listed = httpx.get(f"{house.gateway.server.gateway}/v1/models", headers=headers).json()
    assert [model["id"] for model in listed["data"]] == ["scripted"]
    assert house.quick(house.shown("limited"), model="fallback").status_code == 200


def test_a_worker_that_stops_has_written_when_its_keys_were_last_used(tmp_path: Path) -> None:
    with ScriptedUpstream(Slow()) as upstream:
        config = tmp_path / "penstock.toml"
        config.write_text(CONFIG.format(base=upstream.base))
        with running(tmp_path / "home", "--config", str(config)) as server:
            house = House(Gateway(server, upstream, ""), Slow())
            house.app("unused")
            key = house.app("used")
            answer = house.quick(key)
            assert answer.status_code == 200
    db = Database.open(tmp_path / "home" / "penstock.db")
    try:
        used = {held.secret: held.key.last_used_at for held in KeyStore(db).list()}
    finally:
        db.close()
    assert [secret for secret, at in used.items() if at is not None] == [key]
