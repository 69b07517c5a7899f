"""How limits are kept ([limits]) needs a restart, which the log says; the limits themselves ([[limit]]) do not."""

import contextlib
import signal
import time
from pathlib import Path

import httpx

from tests.app.test_reload import until
from tests.gateway.conftest import answer_plainly, control
from tests.postgres import Postgres
from tests.server import Server, running
from tests.upstream import ScriptedUpstream

CONFIG = """
[engine]
enabled = false
[database]
url = "{url}"
[limits]
lease_s = {lease_s}
on_outage = "{on_outage}"
[[limit]]
scope = "app"
requests_per_minute = {per_minute}
[[provider]]
name = "double"
base_url = "{base}"
[[model]]
id = "m"
targets = [{{ provider = "double", model = "m" }}]
"""
LEASE_S = 1.0


def ask(server: Server, key: str) -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    return httpx.post(
        f"{server.gateway}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}, timeout=30
    )


def test_in_an_outage_the_lease_and_what_then_are_those_of_the_start_while_a_limit_changes_at_once(
    own_postgres: Postgres, tmp_path: Path
) -> None:
    config, url = tmp_path / "penstock.toml", own_postgres.new_database(migrated=False)
    with ScriptedUpstream(answer_plainly) as upstream, contextlib.ExitStack() as stack:

        def write(per_minute: int, lease_s: float, on_outage: str) -> None:
            rows = {"per_minute": per_minute, "lease_s": lease_s, "on_outage": on_outage}
            config.write_text(CONFIG.format(url=url, base=upstream.base, **rows))

        write(1000, LEASE_S, "refuse")
        with running(tmp_path / "home", "--config", str(config)) as server:
            key = control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]
            assert ask(server, key).headers["x-ratelimit-limit-requests"] == "1000"
            write(900, 60, "admit")
            server.process.send_signal(signal.SIGHUP)
            until(lambda: "configuration reloaded: limit" in server.log.read_text(), "the reload")
            for name in ("lease_s", "on_outage"):
                assert f"configuration: limits.{name} needs a restart" in server.log.read_text()
            until(lambda: ask(server, key).headers["x-ratelimit-limit-requests"] == "900", "the changed limit")
            own_postgres.stop()
            stack.callback(own_postgres.start)
            until(lambda: ask(server, key).status_code == 503, "the end of the lease")
            refused = ask(server, key)
            assert (refused.json()["error"]["code"], refused.headers["retry-after"]) == ("limits_unavailable", "1")
            own_postgres.start()
            until(lambda: ask(server, key).status_code == 200, "the database is back")
        write(900, LEASE_S, "admit")
        with running(tmp_path / "home", "--config", str(config)) as server:
            assert ask(server, key).status_code == 200
            own_postgres.stop()
            over = time.monotonic() + 2 * LEASE_S
            while time.monotonic() < over:
                assert ask(server, key).status_code == 200
            own_postgres.start()
