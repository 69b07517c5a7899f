"""nginx as a bare reverse proxy: one worker, kept-alive upstream connections, no logging, no buffering of answers.

Requests up to 1 MiB are held in memory: by default it writes a long prompt to a file, which is slower. So is
passing a request on in pieces.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.contestants import Running
from bench.processes import PEERS, Server, StartFailed, answers, free_port, install

_CONFIG = """\
daemon off;
worker_processes 1;
pid {work}/nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  tcp_nodelay on;
  keepalive_requests 1000000000;
  client_body_temp_path {work}/body;
  proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi;
  scgi_temp_path {work}/scgi;
  upstream double {{
    server 127.0.0.1:{upstream};
    keepalive 128;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port};
    location /v1/ {{
      proxy_pass http://double;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      client_body_buffer_size 1m;
    }}
  }}
}}
"""


@contextmanager
def start(upstream_port: int, work: Path) -> Iterator[Running]:
    """Install from the distribution when missing and allowed, configure, run in the foreground."""
    program = _program()
    port = free_port()
    work.mkdir(parents=True, exist_ok=True)
    config = work / "nginx.conf"
    config.write_text(_CONFIG.format(work=work, upstream=upstream_port, port=port))
    argv = [program, "-e", "stderr", "-p", str(work), "-c", str(config)]
    with Server(argv, work / "nginx.log", env=os.environ) as server:
        server.wait_ready(lambda: answers(port), 10)
        version = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr.strip()
        yield Running(port, "/v1/chat/completions", {}, version.rpartition("/")[2], server.pid)


def _program() -> str:
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    if found := shutil.which("nginx", path=path):
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise StartFailed("nginx is not installed, and installing it takes root on Debian or Ubuntu")
    packages = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "nginx-light"]
    install(["apt-get", "update", "-q"], PEERS / "apt-updated")
    install(packages, PEERS / "nginx-installed")
    if found := shutil.which("nginx", path=path):
        return found
    raise StartFailed("apt-get installed nginx, but it is not there")
