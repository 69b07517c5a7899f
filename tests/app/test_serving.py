"""A built-in id on a real server in production: served once its provider can be called, else a 503 that says how."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.gateway.conftest import ANSWER, control
from tests.server import running
from tests.upstream import Exchange, ScriptedUpstream

CONFIG = """
[engine]
enabled = false
[[provider]]
name = "anthropic"
kind = "openai"
base_url = "{base}"
api_key_file = "{key}"
"""


def test_a_built_in_id_goes_to_its_provider_and_one_without_says_what_to_set(tmp_path: Path) -> None:
    asked: list[tuple[str, str | None]] = []

    async def script(exchange: Exchange) -> None:
        asked.append((json.loads(exchange.body)["model"], exchange.header("authorization")))
        await exchange.answer(json.dumps(ANSWER).encode())

    key_file, config = tmp_path / "key", tmp_path / "penstock.toml"
    key_file.write_text("vendor-key\n")
    key_file.chmod(0o600)
    with ScriptedUpstream(script) as upstream:
        config.write_text(CONFIG.format(base=upstream.base, key=key_file))
        with running(tmp_path / "home", "--config", str(config), "--mode", "production") as server:
            key = control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]
            headers = {"authorization": f"Bearer {key}"}
            body = {"model": "claude-4-5-sonnet", "messages": [{"role": "user", "content": "hi"}]}
            url = f"{server.gateway}/v1/chat/completions"
            served = httpx.post(url, json=body, headers=headers, timeout=30)
            refused = httpx.post(url, json=body | {"model": "nova-pro"}, headers=headers, timeout=30)
            listed = httpx.get(f"{server.gateway}/v1/models", headers=headers).json()["data"]
            assert "vendor-key" not in server.log.read_text()
    assert (served.status_code, asked) == (200, [("claude-sonnet-4-5", "Bearer vendor-key")])
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (503, "model_unavailable")
    assert "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in error["message"]
    sonnet = next(model for model in listed if model["id"] == "claude-4-5-sonnet")
    assert (sonnet["stand_in"], sonnet["served_by"], sonnet["max_output_tokens"]) == (False, "claude-sonnet-4-5", 64000)
    assert "nova-pro" not in [model["id"] for model in listed]


def test_a_start_names_the_line_of_a_contradiction(tmp_path: Path) -> None:
    config = tmp_path / "penstock.toml"
    config.write_text('[[provider]]\nname = "lab"\nbase_url = "ftp://x"\n')
    command = [sys.executable, "-m", "penstock", "serve", "--config", str(config)]
    env = {**os.environ, "PENSTOCK_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"penstock: {config}:3: [[provider]] 'lab': base_url must be ")
