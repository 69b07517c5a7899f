"""LiteLLM's proxy: one worker, master key on, no database, otherwise as its production page advises."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.contestants import MODEL, Running
from bench.processes import PEERS, Server, answers, free_port, install

# Newer releases ask for a certifi that not every mirror has (2026-11).
VERSION = "1.105.2"
_KEY = "sk-bench"
_CONFIG = """\
model_list:
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: none
general_settings:
  master_key: {key}
litellm_settings:
  telemetry: false
  set_verbose: false
"""


@contextmanager
def start(upstream_port: int, work: Path) -> Iterator[Running]:
    """Install into its own virtual environment, configure, run."""
    home = PEERS / "litellm"
    install([sys.executable, "-m", "venv", str(home)], home / "venv-made")
    python = home / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "-q"]
    install([*pip, f"litellm[proxy]=={VERSION}"], home / f"installed-{VERSION}")
    port = free_port()
    work.mkdir(parents=True, exist_ok=True)
    config = work / "litellm.yaml"
    config.write_text(_CONFIG.format(model=MODEL, upstream=upstream_port, key=_KEY))
    argv = [str(home / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    env = {
        **os.environ,
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "NO_PROXY": "127.0.0.1",
    }
    with Server([*argv, "--num_workers", "1"], work / "litellm.log", env=env) as server:
        server.wait_ready(lambda: answers(port, "/health/liveliness"), 120)
        yield Running(port, "/v1/chat/completions", {"authorization": f"Bearer {_KEY}"}, _version(python), server.pid)


def _version(python: Path) -> str:
    code = "import importlib.metadata as m; print(m.version('litellm'))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
