"""The embedded engine through the whole server: crash, recovery, refusals, and what a client sees of them."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.gateway.conftest import control
from tests.server import Server, descendants, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("crash") / "home", "--set", "engine.context=2048") as started:
        yield started


def key_of(server: Server) -> str:
    found: str = control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]
    return found


def ask(server: Server, key: str, **fields: object) -> httpx.Response:
    body = {"model": "claude-4-5-sonnet", "messages": [{"role": "user", "content": "Count."}], "max_tokens": 4} | fields
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{server.gateway}/v1/chat/completions", json=body, headers=headers, timeout=60)


def engine_pid(server: Server) -> int:
    for pid in descendants(server.process.pid):
        if b"penstock.engine.child" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError("no engine child")


def test_a_killed_engine_ends_open_answers_with_a_typed_error_and_comes_back(server: Server) -> None:
    key = key_of(server)
    body = {
        "model": "claude-4-5-sonnet",
        "stream": True,
        "messages": [{"role": "user", "content": "Write a long story."}],
    }
    url, headers = f"{server.gateway}/v1/chat/completions", {"authorization": f"Bearer {key}"}
    with httpx.stream("POST", url, json=body | {"max_tokens": 2000}, headers=headers, timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        os.kill(engine_pid(server), signal.SIGKILL)
        rest = [line[6:] for line in lines if line.startswith("data: ")]
    assert json.loads(rest[-1])["error"]["code"] == "upstream_closed"
    assert "[DONE]" not in rest
    seen = [ask(server, key)]
    deadline = time.monotonic() + 60
    while seen[-1].status_code != 200 and time.monotonic() < deadline:
        seen.append(ask(server, key))
    assert seen[-1].status_code == 200
    for refusal in seen[:-1]:
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (503, "engine_not_ready")
        assert int(refusal.headers["retry-after"]) >= 1


def test_readiness_says_when_the_engine_is_away(server: Server) -> None:
    os.kill(engine_pid(server), signal.SIGKILL)
    states = set[int]()
    deadline = time.monotonic() + 60
    while states != {200, 503} and time.monotonic() < deadline:
        states.add(httpx.get(f"{server.gateway}/readyz").status_code)
    assert states == {200, 503}
    while httpx.get(f"{server.gateway}/readyz").status_code != 200:
        assert time.monotonic() < deadline


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(server: Server) -> None:
    answer = ask(server, key_of(server), messages=[{"role": "user", "content": "word " * 3000}])
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    assert "2048" in error["message"]
    assert any(int(number) > 3000 for number in error["message"].split() if number.isdigit())


def test_a_stand_in_is_labelled_everywhere(server: Server) -> None:
    key = key_of(server)
    assert ask(server, key).headers["penstock-stand-in"] == "smollm2-135m-instruct"
    assert "penstock-stand-in" not in ask(server, key, model="smollm2-135m-instruct").headers
    headers = {"authorization": f"Bearer {key}"}
    listed = httpx.get(f"{server.gateway}/v1/models", headers=headers).json()["data"]
    stand_ins = {model["id"]: model["stand_in"] for model in listed}
    assert (stand_ins["claude-4-5-sonnet"], stand_ins["smollm2-135m-instruct"]) == (True, False)
    assert {model["context_window"] for model in listed} == {2048}


def test_an_accepted_parameter_without_effect_is_named(server: Server) -> None:
    answer = ask(server, key_of(server), service_tier="flex", user="u1")
    assert answer.status_code == 200
    assert answer.headers["penstock-ignored-params"] == "service_tier, user"


def test_a_bad_weights_file_of_another_model_does_not_stop_the_start(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(home, "--set", "engine.context=512") as first:
        whole = home / "weights" / "smollm2-135m-instruct.gguf"
        broken = tmp_path / "broken.gguf"
        with whole.open("rb") as file:
            broken.write_bytes(file.read(5_000_000))
        first.cli("models:add", str(broken), "--as", "broken")
    with running(home, "--set", "engine.context=512") as second:
        assert ask(second, key_of(second)).status_code == 200
        assert "penstock models:remove broken" in second.log.read_text()
        second.cli("models:remove", "broken")
