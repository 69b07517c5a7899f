"""A stop loses nothing of an answer that was settled."""

import json
import signal
import socket
import time
from pathlib import Path

from tests.gateway.conftest import ANSWER, control
from tests.server import running
from tests.upstream import Exchange, ScriptedUpstream

SIZE = 20_000_000


def test_the_end_of_a_large_answer_reaches_its_client_before_the_server_ends(tmp_path: Path) -> None:
    async def large(exchange: Exchange) -> None:
        await exchange.answer(json.dumps(ANSWER | {"padding": "x" * SIZE}).encode())

    with ScriptedUpstream(large) as upstream:
        config = tmp_path / "penstock.toml"
        config.write_text(
            f'[engine]\nenabled = false\n[[provider]]\nname = "double"\nbase_url = "{upstream.base}"\n'
            '[[model]]\nid = "m"\ntargets = [{ provider = "double", model = "m" }]\n'
        )
        with running(tmp_path / "home", "--config", str(config)) as server:
            key = control(server, "GET", "/apps/hello/config-vars")["INFERENCE_KEY"]
            body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
            host, port = server.gateway.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port)), timeout=30) as client:
                client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
                read = len(client.recv(65536))
                server.process.send_signal(signal.SIGTERM)
                while block := client.recv(300_000):
                    read += len(block)
                    time.sleep(0.02)  # the subject: a client that is still reading when the server stops
    assert read > SIZE
