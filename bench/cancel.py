"""How soon an upstream call ends after its client has hung up: while the first token is waited for, and in a stream.

``python -m bench.cancel --rounds 50`` starts a server on loopback over an upstream that is silent, or falls silent
after one event, hangs up as its client, and prints milliseconds until the upstream sees its own connection closed.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from bench.revocation import served

_CONFIG = """\
[[provider]]
name = "silent"
base_url = "http://127.0.0.1:{silent}/v1"
[[provider]]
name = "begun"
base_url = "http://127.0.0.1:{begun}/v1"
[[model]]
id = "silent"
targets = [{{ provider = "silent", model = "m" }}]
[[model]]
id = "begun"
targets = [{{ provider = "begun", model = "m" }}]
"""
_EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
# The model that is asked, and whether as a stream.
_CASES = {"plain, no token yet": ("silent", False), "stream, no token yet": ("silent", True), "stream": ("begun", True)}


class Upstream:
    """Takes a request, sends ``first``, and says when its connection was closed."""

    def __init__(self, first: bytes) -> None:
        self._first = first
        self.asked = asyncio.Event()
        self.closed: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        writer.write(self._first)
        self.asked.set()
        while await reader.read(65536):
            pass
        self.closed.set_result(time.monotonic())
        writer.close()

    def again(self) -> None:
        """For the next round."""
        self.asked.clear()
        self.closed = asyncio.get_running_loop().create_future()


async def _once(gateway: int, key: str, upstream: Upstream, *, model: str, stream: bool) -> float:
    upstream.again()
    body = b'{"model":"%b","stream":%b,"messages":[{"role":"user","content":"x"}]}' % (
        model.encode(),
        b"true" if stream else b"false",
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
    await upstream.asked.wait()
    if model == "begun":
        await reader.readuntil(b"\n\n")
    start = time.monotonic()
    writer.close()
    return (await upstream.closed - start) * 1000


async def _measure(rounds: int, work: Path) -> None:
    upstreams = {"silent": Upstream(b""), "begun": Upstream(_HEAD + b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT))}
    listening = {name: await asyncio.start_server(one.serve, "127.0.0.1", 0) for name, one in upstreams.items()}
    config = _CONFIG.format(**{name: server.sockets[0].getsockname()[1] for name, server in listening.items()})
    async with served(work, config, workers=1) as (gateway, control):
        key = control("GET", "/apps/bench/config-vars")["INFERENCE_KEY"]
        print("| hung up during | median ms | worst ms |\n|---|--:|--:|")
        for case, (model, stream) in _CASES.items():
            took = [await _once(gateway, key, upstreams[model], model=model, stream=stream) for _ in range(rounds)]
            print(f"| {case} | {statistics.median(took):.2f} | {max(took):.2f} |", flush=True)
    for server in listening.values():
        server.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.cancel", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as work:
        asyncio.run(_measure(parser.parse_args().rounds, Path(work)))


if __name__ == "__main__":
    main()
