"""The database goes away under load and comes back: the data plane serves on, and nothing acknowledged is lost."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.conftest import answer_plainly, control
from tests.postgres import Postgres
from tests.server import Server, descendants, running
from tests.upstream import ScriptedUpstream

CONFIG = """
[engine]
enabled = false
[gateway]
workers = 2
[database]
url = "{url}"
[[provider]]
name = "double"
base_url = "{base}"
[[model]]
id = "scripted"
targets = [{{ provider = "double", model = "m" }}]
"""
BODY = {"model": "scripted", "messages": [{"role": "user", "content": "hi"}]}
WITHIN_S = 60


class Load:
    """Chat requests and creates of apps from several threads, counted by status; ``made`` are the acknowledged apps."""

    def __init__(self, server: Server, key: str) -> None:
        self.chats: Counter[int] = Counter()
        self.creates: Counter[int] = Counter()
        self.made: list[str] = []
        self._server = server
        self._numbers = itertools.count()
        self._ended = threading.Event()
        self._key = {"authorization": f"Bearer {key}"}
        token = (server.home / "tokens" / "operator").read_text().strip()
        self._token = {"authorization": f"Bearer {token}"}

    @contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(6) as pool:
            work = [pool.submit(self._repeat, act) for act in (self._chat,) * 4 + (self._create,) * 2]
            try:
                yield
            finally:
                self._ended.set()
            for done in work:
                done.result(WITHIN_S)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < deadline, f"{what}: chats {self.chats}, creates {self.creates}"
            time.sleep(0.02)

    def _repeat(self, act: Callable[[httpx.Client], None]) -> None:
        with httpx.Client(timeout=30, trust_env=False) as client:
            while not self._ended.is_set():
                act(client)

    def _chat(self, client: httpx.Client) -> None:
        reply = client.post(f"{self._server.gateway}/v1/chat/completions", json=BODY, headers=self._key)
        self.chats[reply.status_code] += 1

    def _create(self, client: httpx.Client) -> None:
        name = f"made-{next(self._numbers)}"
        reply = client.post(f"{self._server.control}/apps", json={"name": name}, headers=self._token)
        self.creates[reply.status_code] += 1
        if reply.status_code == 201:
            self.made.append(name)
        else:
            assert reply.json()["id"] == "store_unavailable", reply.text


def chat(server: Server, key: str) -> httpx.Response:
    """One request with that key."""
    headers = {"x-api-key": key}
    return httpx.post(f"{server.gateway}/v1/chat/completions", json=BODY, headers=headers, timeout=30)


def all_apps(server: Server) -> set[str]:
    """The names of all apps, page by page."""
    token = (server.home / "tokens" / "operator").read_text().strip()
    headers, found = {"authorization": f"Bearer {token}"}, set()
    while True:
        reply = httpx.get(f"{server.control}/apps", headers=headers, timeout=30)
        found |= {app["name"] for app in reply.json()}
        if reply.status_code != 206:
            return found
        headers["range"] = reply.headers["next-range"]


@pytest.mark.parametrize(("leave", "return_"), [("stop", "start"), ("freeze", "thaw")])
def test_the_data_plane_serves_on_while_the_database_is_away(
    own_postgres: Postgres, tmp_path: Path, leave: str, return_: str
) -> None:
    with ScriptedUpstream(answer_plainly) as upstream:
        config = tmp_path / "penstock.toml"
        config.write_text(CONFIG.format(url=own_postgres.new_database(migrated=False), base=upstream.base))
        with running(tmp_path / "home", "--config", str(config)) as server:
            key: Any = control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]
            load, family = Load(server, key), descendants(server.process.pid)
            with load.running():
                load.wait_for(lambda: load.chats[200] > 100 and load.creates[201] > 5, "before")
                getattr(own_postgres, leave)()
                load.wait_for(lambda: load.creates[503] > 2, "the control plane refuses")
                served = load.chats[200]
                load.wait_for(lambda: load.chats[200] > served + 300, "the data plane serves on")
                assert httpx.get(f"{server.control}/healthz", timeout=30).status_code == 503
                unknown = chat(server, "inf-unknown")
                assert (unknown.status_code, unknown.json()["error"]["code"]) == (503, "store_unavailable")
                getattr(own_postgres, return_)()
                acknowledged = load.creates[201]
                load.wait_for(lambda: load.creates[201] > acknowledged + 5, "the control plane is back")
            assert set(load.chats) == {200}
            assert set(load.creates) == {201, 503}
            assert set(load.made) <= all_apps(server)
            assert descendants(server.process.pid) == family
            made = control(server, "POST", f"/apps/{load.made[-1]}/addons", {"plan": "heroku-inference:standard"})
            new = control(server, "GET", f"/apps/{made['app']['name']}/config-vars")["INFERENCE_KEY"]
            reply = httpx.post(
                f"{server.gateway}/v1/chat/completions", json=BODY, headers={"x-api-key": new}, timeout=30
            )
            assert reply.status_code == 200
