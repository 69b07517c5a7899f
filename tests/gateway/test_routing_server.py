"""What all workers of a real server do together: one health page, one limit, also after one of them is killed."""

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.gateway.routing.notices import Notice, Notices, merged
from tests.gateway.conftest import ANSWER, Gateway, control
from tests.gateway.lab import refuses, says, stalls
from tests.server import descendants, running
from tests.upstream import Exchange, ScriptedUpstream

CONFIG = """
[engine]
enabled = false
[gateway]
workers = 2
[upstream]
breaker_min_calls = 3
breaker_rest_s = 600
[[provider]]
name = "broken"
base_url = "{broken}"
[[provider]]
name = "narrow"
base_url = "{narrow}"
max_concurrent = 3
max_queue = 0
[[model]]
id = "broken"
targets = [{{ provider = "broken", model = "x" }}, {{ provider = "narrow", model = "x" }}]
[[model]]
id = "narrow"
targets = [{{ provider = "narrow", model = "x" }}]
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, ScriptedUpstream]]:
    """A server of two workers with a provider that has a limit and, second, one that fails."""
    folder: Path = tmp_path_factory.mktemp("routing")
    with ScriptedUpstream(says("Hello.")) as narrow, ScriptedUpstream(refuses("500 Oops")) as broken:
        config = folder / "penstock.toml"
        config.write_text(CONFIG.format(narrow=narrow.base, broken=broken.base))
        with running(folder / "home", "--config", str(config)) as server:
            key = control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]
            yield Gateway(server, narrow, key), broken


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it holds; fails after 20 seconds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def state(gateway: Gateway, target: str) -> dict[str, Any]:
    """What /readyz says of a target."""
    answer = httpx.get(f"{gateway.server.gateway}/readyz")
    assert answer.status_code == 200  # an open breaker makes no worker unready
    return next(row for row in answer.json()["targets"] if row["target"] == target)


def files(gateway: Gateway) -> list[Path]:
    """The workers' notices."""
    return list((gateway.server.home / "run").glob("targets-*.json"))


def test_every_worker_tells_what_each_has_seen_and_a_killed_ones_word_is_forgotten(
    pair: tuple[Gateway, ScriptedUpstream],
) -> None:
    gateway, broken = pair
    gateway.upstream.script = says("Hello.")
    assert state(gateway, "broken/x") == {"target": "broken/x", "state": "closed"}
    # Each connection meets one of the workers: until both have had enough of the target.
    eventually(lambda: gateway.chat(model="broken").status_code == 200 and len(files(gateway)) == 2)
    for _ in range(10):  # whichever worker answers
        said = state(gateway, "broken/x")
        assert (said["state"], said["error"], said["workers"]) == ("open", "upstream_error", 2)
        assert 500 < said["retry_in_s"] <= 600
    assert broken.requests == 6
    workers = [
        pid for pid in descendants(gateway.server.process.pid) if any(str(pid) in f.name for f in files(gateway))
    ]
    os.kill(workers[0], signal.SIGKILL)
    eventually(lambda: state(gateway, "broken/x").get("workers") == 1)
    assert len(files(gateway)) == 1


def test_the_limit_of_a_provider_holds_over_all_workers_and_a_killed_one_gives_back(
    pair: tuple[Gateway, ScriptedUpstream],
) -> None:
    gateway, _ = pair
    now = most = 0

    async def slow(exchange: Exchange) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            await asyncio.sleep(0.1)
            await exchange.answer(json.dumps(ANSWER).encode())
        finally:
            now -= 1

    async def rush(count: int) -> list[int]:
        headers = {"authorization": f"Bearer {gateway.key}"}
        body = {"model": "narrow", "messages": [{"role": "user", "content": "x"}]}
        async with httpx.AsyncClient(timeout=30, headers=headers) as client:
            url = f"{gateway.server.gateway}/v1/chat/completions"
            return [a.status_code for a in await asyncio.gather(*(client.post(url, json=body) for _ in range(count)))]

    for _ in range(2):
        now = most = 0
        gateway.upstream.script = slow
        statuses = asyncio.run(rush(60))
        assert most == 3
        assert set(statuses) == {200, 429}
        assert gateway.chat(model="narrow").status_code == 200
        # Those that hold a slot die with it.
        gateway.upstream.script, before = stalls, gateway.upstream.requests
        threads = [threading.Thread(target=ask, args=(gateway,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        eventually(lambda before=before: gateway.upstream.requests == before + 3)  # type: ignore[misc]
        for pid in worker_pids(gateway):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(worker_pids(gateway)) == 2 and answers(gateway))
        for thread in threads:
            thread.join(10)


def ask(gateway: Gateway) -> None:
    """One request whose answer does not matter."""
    with contextlib.suppress(httpx.HTTPError):
        gateway.chat(model="narrow")


def worker_pids(gateway: Gateway) -> list[int]:
    """The gateway's processes: those that write to our journal."""
    journal = str(gateway.server.home / "journal")
    found = []
    for pid in descendants(gateway.server.process.pid):
        try:
            links = [link for link in Path(f"/proc/{pid}/fd").iterdir() if link.lstat().st_mode & 0o200]
            opened = [str(link.readlink()) for link in links]
        except OSError:
            continue
        if any(name.startswith(journal) for name in opened):
            found.append(pid)
    return found


def answers(gateway: Gateway) -> bool:
    """Whether a slot is free."""
    gateway.upstream.script = says("Hello.")
    try:
        return gateway.chat(model="narrow").status_code == 200
    except httpx.HTTPError:
        return False


def test_notices_of_the_living_are_merged_and_the_worst_is_told(tmp_path: Path) -> None:
    one, now = Notices(tmp_path), time.time()
    one.write(
        [Notice("a", "open", now + 60, "upstream_error"), Notice("b", "resting", now + 5), Notice("c", "open", 1)]
    )
    one.write([Notice("a", "open", now + 60, "upstream_error")])
    (tmp_path / "targets-1.json").write_text('[["a","open",9e9]]')  # of one that is dead
    (tmp_path / "targets-2.json").write_text("")
    assert one.read() == [Notice("a", "open", now + 60, "upstream_error")]
    assert [path.name for path in tmp_path.glob("targets-*")] == [f"targets-{os.getpid()}.json"]
    said = [
        Notice("a", "resting", now + 60),
        Notice("a", "open", now + 9, "x"),
        Notice("b", "open", now - 1),
        Notice("z", "open", 9e9),
    ]
    rows = merged(["a", "b", "c"], [*said, Notice("c", "resting", now - 1)])
    assert [(row["target"], row["state"]) for row in rows] == [("a", "open"), ("b", "half_open"), ("c", "closed")]
    assert (rows[0]["workers"], rows[0]["error"], rows[1]["retry_in_s"]) == (2, "x", 0)
    one.close()
    assert not list(tmp_path.glob("targets-*"))


def test_answers_tell_their_way_unless_the_operator_forbids_it(tmp_path: Path) -> None:
    with ScriptedUpstream(says("Hello.")) as upstream:
        config = tmp_path / "penstock.toml"
        text = CONFIG.format(narrow=upstream.base, broken=upstream.base)
        config.write_text(text.replace("workers = 2", "workers = 1\nroute_headers = false"))
        with running(tmp_path / "home", "--config", str(config)) as server:
            key = control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]
            answer = Gateway(server, upstream, key).chat(model="narrow")
            assert answer.status_code == 200
            assert not [name for name in answer.headers if name in ("penstock-target", "penstock-attempts")]
