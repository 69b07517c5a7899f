"""Portkey's open-source gateway on Node: one process, no plugins, the target named by request headers."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.contestants import Running
from bench.processes import PEERS, Server, StartFailed, answers, free_port, install

VERSION = "1.15.2"
# Its streams end in a 500 (headers are immutable) with every later release of this dependency: Portkey issue #1389.
_NODE_SERVER = "1.14.1"
_PACKAGE = {
    "name": "bench-portkey",
    "private": True,
    "dependencies": {"@portkey-ai/gateway": VERSION, "@hono/node-server": _NODE_SERVER},
    "overrides": {"@hono/node-server": _NODE_SERVER},
}
# The gateway binds every interface and has no option for it; the bench stays on loopback.
_LOOPBACK = """\
const net = require('net');
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (first, ...rest) {
  if (typeof first === 'number') first = { port: first };
  if (first && first.port) first = { ...first, host: '127.0.0.1' };
  return listen.call(this, first, ...rest.filter((x) => typeof x === 'function'));
};
"""


@contextmanager
def start(upstream_port: int, work: Path) -> Iterator[Running]:
    """Install from npm into its own folder, run."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise StartFailed("node and npm are not installed")
    home = PEERS / "portkey"
    home.mkdir(parents=True, exist_ok=True)
    (home / "package.json").write_text(json.dumps(_PACKAGE, indent=1) + "\n")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    install(command, home / f"installed-{VERSION}-{_NODE_SERVER}", cwd=home)
    work.mkdir(parents=True, exist_ok=True)
    shim = work / "loopback.cjs"
    shim.write_text(_LOOPBACK)
    port = free_port()
    entry = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    argv = [node, "--require", str(shim), str(entry), f"--port={port}", "--headless"]
    env = {**os.environ, "NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream_port}/v1",
        "authorization": "Bearer none",
    }
    with Server(argv, work / "portkey.log", env=env, cwd=home) as server:
        server.wait_ready(lambda: answers(port), 30)
        yield Running(port, "/v1/chat/completions", headers, VERSION, server.pid)
