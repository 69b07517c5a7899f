"""A new configuration is taken up while requests run: none of them notices, and a bad file changes nothing."""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest

from penstock.app.boot import Serving
from penstock.app.serving.plan import plan
from penstock.app.serving.reload import Reloader
from penstock.settings.load import config_file, load_settings
from penstock.settings.tree import Settings
from tests.gateway.conftest import ANSWER, DONE, control, delta
from tests.server import Server, children, descendants, running
from tests.upstream import Exchange, ScriptedUpstream

HEAD = """
[engine]
enabled = false
[gateway]
workers = 2
"""
ROWS = """
[[provider]]
name = "double"
base_url = "{base}"
api_key_file = "{key_file}"
idle_timeout_s = {idle}
[[model]]
id = "stays"
targets = [{{ provider = "double", model = "up" }}]
[[model]]
id = "{extra}"
targets = [{{ provider = "double", model = "up" }}]
"""


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@dataclass
class Reloading:
    """A server on a file of the test's own, before a scripted upstream."""

    server: Server
    upstream: ScriptedUpstream
    config: Path
    key_file: Path
    key: str
    sent: list[str]
    release: threading.Event

    def write(self, text: str) -> None:
        """Put another file in place."""
        self.config.write_text(text)

    def rows(self, extra: str, *, idle: int = 100, head: str = HEAD) -> str:
        """A good file, with one model by that id."""
        return head + ROWS.format(base=self.upstream.base, key_file=self.key_file, extra=extra, idle=idle)

    def heard(self) -> int:
        """How many reloads the server has spoken of, good and bad."""
        return self.server.log.read_text().count("reloaded")

    def reload(self, text: str, *, signalled: bool = True) -> str:
        """Put the file in place, wait until the server has looked at it; what it says then."""
        before = self.heard()
        self.write(text)
        if signalled:
            self.server.process.send_signal(signal.SIGHUP)
        until(lambda: self.heard() > before, "the reload is not spoken of")
        return self.server.log.read_text().rstrip().splitlines()[-1]

    def chat(self, client: httpx.Client, model: str = "stays", *, stream: bool = False) -> httpx.Response:
        """One request."""
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        headers = {"authorization": f"Bearer {self.key}"}
        return client.post(f"{self.server.gateway}/v1/chat/completions", json=body, headers=headers, timeout=60)

    def status(self, model: str) -> int:
        """How a request for that model ends, by every worker alike."""
        with httpx.Client() as one, httpx.Client() as other:
            first, second = self.chat(one, model).status_code, self.chat(other, model).status_code
        assert first == second
        return first


@contextmanager
def reloading(folder: Path) -> Iterator[Reloading]:
    """A running server. The upstream streams two deltas, and those of the model ``held`` only when it is told to."""
    release = threading.Event()
    sent: list[str] = []

    async def script(exchange: Exchange) -> None:
        body = json.loads(exchange.body)
        sent.append(exchange.header("authorization") or "")
        if not body.get("stream"):
            await exchange.answer(json.dumps(ANSWER).encode())
            return
        await exchange.begin_stream()
        await exchange.chunk(delta("Hel"))
        while body["messages"][0]["content"] == "hold" and not release.is_set():
            await exchange.chunk(b": wait\n\n")
            await asyncio.sleep(0.05)
        await exchange.chunk(delta("lo.") + DONE)
        await exchange.chunk(b"")

    folder.mkdir(exist_ok=True)
    key_file = folder / "key"
    key_file.write_text("first-key\n")
    key_file.chmod(0o600)
    with ScriptedUpstream(script) as upstream:
        config = folder / "penstock.toml"
        config.write_text(HEAD + ROWS.format(base=upstream.base, key_file=key_file, extra="round-0", idle=100))
        with running(folder / "home", "--config", str(config)) as server:
            key = control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]
            try:
                yield Reloading(server, upstream, config, key_file, key, sent, release)
            finally:
                release.set()


@contextmanager
def under_load(live: Reloading) -> Iterator[list[str]]:
    """Requests without a pause on four connections, plain and streamed; what went wrong with any."""
    wrong: list[str] = []
    over = threading.Event()

    def ask(stream: bool) -> None:
        with httpx.Client() as client:
            while not over.is_set():
                try:
                    answer = live.chat(client, stream=stream)
                    whole = answer.text.endswith("data: [DONE]\n\n") if stream else "Hello." in answer.text
                    if answer.status_code != 200 or not whole:
                        wrong.append(f"{answer.status_code} {answer.text[:200]}")
                except httpx.HTTPError as error:
                    wrong.append(repr(error))

    threads = [threading.Thread(target=ask, args=(stream,)) for stream in (True, False, True, False)]
    for thread in threads:
        thread.start()
    try:
        yield wrong
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloading]:
    """One server for the tests of this module, which put every file back."""
    with reloading(tmp_path_factory.mktemp("reload")) as found:
        yield found


def test_twenty_files_under_load_lose_no_request(live: Reloading) -> None:
    models = [model["model_id"] for model in httpx.get(f"{live.server.control}/available-models").json()]
    assert "round-0" in models
    asked = {"model": "stays", "messages": [{"role": "user", "content": "hold"}], "stream": True}
    headers = {"authorization": f"Bearer {live.key}"}
    url = f"{live.server.gateway}/v1/chat/completions"
    with httpx.Client(timeout=120) as client, client.stream("POST", url, json=asked, headers=headers) as held:
        pieces = held.iter_text()
        assert "Hel" in next(pieces)
        with under_load(live) as wrong:
            last = 0
            for number in range(1, 21):
                if number % 4 == 0:
                    said = live.reload("[[model]\n" if number % 8 else live.rows("x").replace("double", "nobody", 1))
                    assert f"ERROR penstock.app configuration not reloaded, the old one stays: {live.config}:" in said
                else:
                    said = live.reload(live.rows(f"round-{number}", idle=100 + number), signalled=number % 5 != 0)
                    assert f"configuration reloaded: model +round-{number}" in said
                    assert "provider ~double" in said
                    assert live.status(f"round-{last}") == 404
                    last = number
                assert live.status(f"round-{last}") == 200
                models = [model["model_id"] for model in httpx.get(f"{live.server.control}/available-models").json()]
                assert f"round-{last}" in models
        assert wrong == []
        live.release.set()  # the held stream began on an adapter that is long retired
        assert "".join(pieces).endswith("data: [DONE]\n\n")


def test_a_retired_adapter_keeps_no_connection(live: Reloading) -> None:
    assert live.status("stays") == 200
    live.reload(live.rows("round-0", idle=300))
    assert live.status("stays") == 200
    workers = [pid for pid in descendants(live.server.process.pid) if connections(pid, live.upstream.port)]
    assert 0 < sum(connections(pid, live.upstream.port) for pid in workers) <= len(workers)


def connections(pid: int, port: int) -> int:
    """How many connections of a process lead to that port."""
    mine = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    established = [row for row in rows if row[2].endswith(f":{port:04X}") and row[3] == "01"]
    return sum(f"socket:[{row[9]}]" in mine for row in established)


def test_a_key_in_a_file_is_read_again_and_reaches_the_upstream(live: Reloading) -> None:
    live.reload(live.rows("round-0"))
    assert live.status("stays") == 200
    assert live.sent[-1] == "Bearer first-key"
    before = live.heard()
    live.key_file.write_text("second-key\n")
    until(lambda: live.heard() > before, "the changed key file is not noticed")
    assert live.status("stays") == 200
    assert live.sent[-1] == "Bearer second-key"
    live.key_file.chmod(0o666)
    said = live.reload(live.rows("round-0"))
    assert "can be written by others" in said
    live.key_file.chmod(0o600)
    assert "second-key" not in live.server.log.read_text()


def test_a_stored_credential_reaches_the_upstream_without_a_word(live: Reloading) -> None:
    stored = live.rows("round-0").replace(f'api_key_file = "{live.key_file}"', "api_key_stored = true")
    assert "api_key_stored" in stored
    live.reload(stored)
    assert live.status("stays") == 503
    with httpx.Client() as client:
        said = live.chat(client).json()["error"]["message"]
    assert said.endswith("Set its key by penstock credentials:set double (no restart needed).")
    for secret in ("stored-key-1", "stored-key-2"):
        before = live.heard()
        control(live.server, "PUT", "/credentials/double", {"value": secret})
        until(lambda before=before: live.heard() > before, "the stored credential is not noticed")  # type: ignore[misc]
        assert live.status("stays") == 200
        assert live.sent[-1] == f"Bearer {secret}"
    before = live.heard()
    control(live.server, "DELETE", "/credentials/double")
    until(lambda: live.heard() > before, "the removed credential is not noticed")
    assert live.status("stays") == 503
    live.reload(live.rows("round-0"))
    assert "stored-key" not in live.server.log.read_text()


def test_what_needs_a_restart_is_named_and_the_rest_is_taken(live: Reloading) -> None:
    live.reload(live.rows("round-0"))
    live.reload(live.rows("restart", head=HEAD.replace("workers = 2", "workers = 3")))
    log = live.server.log.read_text()
    assert "configuration: gateway.workers needs a restart" in log
    assert live.status("restart") == 200


def test_the_defaults_of_limits_and_budgets_are_shown_as_the_new_file_has_them(live: Reloading) -> None:
    rows = '[[limit]]\nscope = "key"\nmax_tokens = 9\n[[budget]]\nscope = "app"\nperiod = "day"\namount = "0.50"\n'
    live.reload(live.rows("round-0") + rows)
    (limit,) = [row for row in control(live.server, "GET", "/limits/defaults") if row["source"] == "penstock.toml"]
    assert (limit["object_type"], limit["max_tokens"]) == ("key", 9)
    assert [row["amount"] for row in control(live.server, "GET", "/budgets/defaults")] == ["0.5"]
    live.reload(live.rows("round-0"))
    assert control(live.server, "GET", "/budgets/defaults") == []


def test_a_worker_that_is_started_again_has_the_newest_configuration(live: Reloading) -> None:
    live.reload(live.rows("newest"))
    before = set(children(live.server.process.pid))
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(set(children(live.server.process.pid)) - before) == len(before), "no new children")
    until(lambda: answers(live), "the new worker does not answer")
    assert live.status("newest") == 200
    until(lambda: answers_control(live), "the new control plane does not answer")
    assert "newest" in [model["model_id"] for model in httpx.get(f"{live.server.control}/available-models").json()]


def answers(live: Reloading) -> bool:
    """Whether the gateway takes requests."""
    try:
        return httpx.get(f"{live.server.gateway}/healthz").status_code == 200
    except httpx.HTTPError:
        return False


def answers_control(live: Reloading) -> bool:
    """Whether the control plane takes requests."""
    try:
        return httpx.get(f"{live.server.control}/available-models").status_code == 200
    except httpx.HTTPError:
        return False


MINE = {"id": "mine", "targets": [{"provider": "ollama", "model": "x"}]}


def test_what_one_child_cannot_apply_is_taken_back_from_all(caplog: pytest.LogCaptureFixture) -> None:
    old, new = (msgspec.convert({"home": "/nowhere", "model": rows}, Settings) for rows in ([], [MINE]))
    told: list[list[str]] = []

    async def reload() -> None:
        reloader = Reloader(old, load=lambda: new, file=lambda: None)
        reloader.begin(plan(old, environ={}), ())
        over = asyncio.Event()

        async def tell(serving: Serving) -> list[str]:
            told.append([model.id for model in serving.models])
            if len(told) == 2:
                over.set()
            return ["gateway worker 2: no such library"] if len(told) == 1 else []

        reloader.ask()
        running = asyncio.create_task(reloader.run(tell))
        await over.wait()
        await asyncio.sleep(0)  # the line of the log
        running.cancel()

    asyncio.run(reload())
    assert ["mine" in models for models in told] == [True, False]
    assert "not reloaded, the old one stays: gateway worker 2: no such library" in caplog.text


def test_a_file_that_breaks_its_reader_does_not_keep_the_next_one_from_being_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, told = tmp_path / "penstock.toml", asyncio.Event()

    async def tell(serving: Serving) -> list[str]:
        assert "mine" in [model.id for model in serving.models]
        told.set()
        return []

    async def reload() -> None:
        old = msgspec.convert({"home": str(tmp_path)}, Settings)
        reloader = Reloader(old, load=lambda: load_settings({}, config=config), file=lambda: config)
        reloader.begin(plan(old, environ={}), ())
        running = asyncio.create_task(reloader.run(tell))
        config.write_text("x = " + "[" * 50_000)
        reloader.ask()
        async with asyncio.timeout(20):
            while "not reloaded" not in caplog.text:  # noqa: ASYNC110 - said by a task of its own
                await asyncio.sleep(0.01)
            row = "[[model]]\nid = 'mine'\ntargets = [{provider = 'ollama', model = 'x'}]"
            config.write_text(f"home = '{tmp_path}'\n{row}\n")
            reloader.ask()
            await told.wait()
        running.cancel()

    asyncio.run(reload())


@pytest.mark.parametrize("signalled", [True, False])
def test_a_file_that_vanishes_leaves_what_was_served_and_is_told_once(
    signalled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "penstock.toml"
    row = '[[model]]\nid = "{}"\ntargets = [{{ provider = "ollama", model = "x" }}]\n'
    file.write_text(row.format("mine"))
    caplog.set_level("INFO", "penstock.app")
    flags = {"home": str(tmp_path / "home")}
    told: list[list[str]] = []

    async def reload() -> None:
        settings = load_settings(flags)
        reloader = Reloader(settings, load=lambda: load_settings(flags), file=lambda: config_file(flags))
        reloader.begin(plan(settings, environ={}), ())
        back = asyncio.Event()

        async def tell(serving: Serving) -> list[str]:
            told.append([model.id for model in serving.models])
            back.set()
            return []

        running = asyncio.create_task(reloader.run(tell))
        file.unlink()
        if signalled:
            reloader.ask()
        async with asyncio.timeout(60):
            await asyncio.to_thread(until, lambda: "file any more" in caplog.text, "the loss is not spoken of")
            file.write_text(row.format("newer"))
            await back.wait()
        await asyncio.sleep(0)  # the line of the log
        running.cancel()

    asyncio.run(reload())
    assert caplog.text.count("not reloaded, the old one stays") == 1
    assert len(told) == 1
    assert "newer" in told[0]
