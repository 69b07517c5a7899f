"""Penstock as an operator runs it: ``penstock serve``, one worker; authentication, limits, budgets and ledger on."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.contestants import MODEL, Running
from bench.processes import Server, StartFailed, http

_CONFIG = """\
[[provider]]
name = "double"
kind = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"

[[model]]
id = "{model}"
targets = [{{ provider = "double", model = "{model}" }}]
"""
# A limit of each kind and a budget on every key and every app, all of them far away.
LIMITED = 'price = { input = "0.15", output = "0.60", cached_input = "0.075" }\n' + "".join(
    f"""\
[[limit]]
scope = "{scope}"
requests_per_minute = 500000000
tokens_per_minute = 900000000000
concurrent_requests = 100000
[[budget]]
scope = "{scope}"
period = "month"
amount = "900000000"
"""
    for scope in ("key", "app")
)
_PLAN = "heroku-inference:standard"


@contextmanager
def start(
    upstream_port: int, work: Path, *, extra: str = LIMITED, environ: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Serve from a scratch home, provision an app as a user does, and use the key that it gets. ``extra`` is more of
    penstock.toml, which the model's row comes before, and ``environ`` more of its environment.

    A database that lies in the work folder's ``home`` already is the one that is served."""
    home = work / "home"
    home.mkdir(parents=True, exist_ok=True)
    config = home / "penstock.toml"
    config.write_text(_CONFIG.format(upstream=upstream_port, model=MODEL) + extra)
    env = environment(home, config) | dict(environ or {})
    ready = home / "run" / "ready.json"
    with Server([sys.executable, "-m", "penstock", "serve"], work / "penstock.log", env=env) as server:
        server.wait_ready(ready.exists, 60)
        addresses = json.loads(ready.read_text())
        key = _provision(_port(addresses["control"]), (home / "tokens" / "operator").read_text().strip())
        headers = {"authorization": f"Bearer {key}"}
        yield Running(_port(addresses["gateway"]), "/v1/chat/completions", headers, _version(), server.pid)


def environment(home: Path, config: Path) -> dict[str, str]:
    """For a server on free ports, without its embedded model and without what this shell sets for others."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")} | {
        "PENSTOCK_HOME": str(home),
        "PENSTOCK_CONFIG": str(config),
        "PENSTOCK_ENGINE_ENABLED": "false",
        "PENSTOCK_GATEWAY_PORT": "0",
        "PENSTOCK_CONTROL_PORT": "0",
    }


def _version() -> str:
    """With a word where the hot modules are compiled, as in a tree of scripts/native.py that PYTHONPATH names."""
    found = find_spec("penstock")
    compiled = found is not None and found.origin is not None and Path(found.origin).with_name("compiled.txt").exists()
    return version("penstock") + (" compiled" if compiled else "")


def _port(url: str) -> int:
    port = urlsplit(url).port
    if port is None:
        raise StartFailed(f"no port in {url}")
    return port


def _provision(control: int, token: str) -> str:
    """An app with the standard plan; its INFERENCE_KEY."""
    app = _call(control, token, "POST", "/apps", {"name": "bench-app"})["name"]
    _call(control, token, "POST", f"/apps/{app}/addons", {"plan": _PLAN})
    return str(_call(control, token, "GET", f"/apps/{app}/config-vars")["INFERENCE_KEY"])


def _call(port: int, token: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    headers = {
        "authorization": f"Bearer {token}",
        "accept": "application/vnd.heroku+json; version=3",
        "content-type": "application/json",
    }
    status, text = http(method, port, path, body=json.dumps(body).encode() if body else b"", headers=headers)
    if status >= 300:
        raise StartFailed(f"{method} {path} gave {status}: {text[:200]!r}")
    answer: dict[str, Any] = json.loads(text)
    return answer
