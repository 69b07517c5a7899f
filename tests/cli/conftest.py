"""The console script as a subprocess, against a real control plane and a scripted gateway."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cli.double import Asked, Double, delta, send, send_events, serving
from tests.cli.program import Penstock
from tests.server import ROOT, scratch_env


def send_models(handler: BaseHTTPRequestHandler, model: str) -> None:
    """The list of models, or one of them; there is none by the name ``nope``."""
    if not model:
        data = [{"id": "claude-4-5-sonnet", "stand_in": True}, {"id": "smollm2-135m-instruct", "stand_in": False}]
        send(handler, 200, {"object": "list", "data": data})
    elif model == "nope":
        send(handler, 404, {"error": {"message": "The model 'nope' does not exist."}})
    else:
        send(handler, 200, {"id": model, "object": "model"})


def gateway_script(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
    """A gateway that repeats the last message; on the model ``broken-model`` it fails in the middle."""
    if asked.path.startswith("/v1/models"):
        send_models(handler, asked.path.removeprefix("/v1/models").removeprefix("/"))
    elif not asked.headers.get("authorization", "").startswith("Bearer inf-"):
        send(handler, 401, {"error": {"message": "no key"}, "message": "no key"})
    elif asked.path != "/v1/chat/completions":
        send(handler, 404, {"error": {"message": "no such route"}, "message": "no such route"})
    elif asked.body["model"] == "no-such-model":
        send(handler, 404, {"error": {"message": "The model 'no-such-model' does not exist."}})
    elif not asked.body.get("stream"):
        answer = {"message": {"role": "assistant", "content": f"echo: {asked.body['messages'][-1]['content']}"}}
        send(handler, 200, {"id": "chatcmpl-1", "model": asked.body["model"], "choices": [answer]})
    elif asked.body["model"] == "broken-model":
        send_events(handler, delta("half"), {"error": {"message": "The upstream ended early."}})
    elif asked.body["model"] == "silent-model":
        send_events(handler, delta("half"))
    elif asked.body["messages"][-1]["content"] == "go on":
        send_events(handler, delta("on and on"))
        handler.rfile.read(1)  # Until the client hangs up.
    else:
        words = f"echo: {asked.body['messages'][-1]['content']}".split(" ")
        send_events(handler, *[delta(f"{word} ") for word in words], "[DONE]")


@pytest.fixture(scope="session")
def gateway() -> Iterator[Double]:
    """The scripted gateway."""
    with serving(gateway_script) as double:
        yield double


@pytest.fixture(scope="session")
def penstock(tmp_path_factory: pytest.TempPathFactory, gateway: Double) -> Iterator[Penstock]:
    """The console script, pointed at a real control plane of its own."""
    with controlled(tmp_path_factory.mktemp("cli") / "home", gateway.url) as found:
        yield found


@contextlib.contextmanager
def controlled(home: Path, gateway_url: str, *mode: str) -> Iterator[Penstock]:
    """The console script with a control plane in a new home, in that mode."""
    home.mkdir()
    command = [sys.executable, "-m", "tests.cli.control_process", str(home), gateway_url, *mode]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        assert port, "the control plane did not start"
        env = scratch_env(home) | {"PENSTOCK_CONTROL_URL": f"http://127.0.0.1:{port}"}
        yield Penstock(env, Path(sys.executable).with_name("penstock"))
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.fixture
def offline(tmp_path: Path) -> Penstock:
    """The console script where no server runs and the home is empty."""
    env = scratch_env(tmp_path / "home") | {"PENSTOCK_CONTROL_URL": "http://127.0.0.1:9"}
    return Penstock(env, Path(sys.executable).with_name("penstock"))


@pytest.fixture
def app(penstock: Penstock) -> Iterator[str]:
    """An app of the test's own."""
    name = f"test-{uuid4().hex[:12]}"
    penstock.ok("create", name)
    yield name
    with contextlib.suppress(subprocess.TimeoutExpired):
        penstock("apps:destroy", name, "--confirm", name)
