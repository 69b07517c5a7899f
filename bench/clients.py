"""Why the hot path has its own upstream client: CPU time per call of providers/transport.py, aiohttp and httpx.

``python -m bench.clients`` installs the stock clients into bench/.peers/clients, runs each in turn in a process of
that environment against the upstream double, and prints a table. CPU time, not wall time, decides: it does not
depend on what else the machine does.
"""

import asyncio
import contextlib
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.answers import DELTA_MARK, DELTAS, PLAIN_MARK
from bench.contestants import body_text
from bench.processes import PEERS, ROOT, StartFailed, UpstreamDouble, install

VERSIONS = ("aiohttp==3.14.5", "httpx==0.28.1", "uvloop==0.23.0", "httptools==0.9.0", "msgspec==0.22.0")
CLIENTS = ("transport", "aiohttp", "httpx")
_CONCURRENCY = 32
_HEADERS = {"content-type": "application/json", "authorization": "Bearer none"}

Call = Callable[[bytes], Awaitable[bytes]]


@contextlib.asynccontextmanager
async def _transport(base: str) -> AsyncIterator[Call]:
    from penstock.providers.transport import Endpoint, Transport  # noqa: PLC0415 - only this client needs it

    client = Transport(Endpoint(base))
    headers = tuple(_HEADERS.items())

    async def call(body: bytes) -> bytes:
        answer = await client.post("/chat/completions", headers, body)
        pieces = []
        while piece := await answer.block():
            pieces.append(piece)
        return b"".join(pieces)

    yield call
    await client.aclose()


@contextlib.asynccontextmanager
async def _aiohttp(base: str) -> AsyncIterator[Call]:
    aiohttp: Any = importlib.import_module("aiohttp")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call(body: bytes) -> bytes:
            async with session.post(f"{base}/chat/completions", data=body, headers=_HEADERS) as answer:
                return b"".join([piece async for piece in answer.content.iter_any()])

        yield call


@contextlib.asynccontextmanager
async def _httpx(base: str) -> AsyncIterator[Call]:
    httpx: Any = importlib.import_module("httpx")
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=_CONCURRENCY)) as client:

        async def call(body: bytes) -> bytes:
            async with client.stream("POST", f"{base}/chat/completions", content=body, headers=_HEADERS) as answer:
                return b"".join([piece async for piece in answer.aiter_raw()])

        yield call


_MAKERS = {"transport": _transport, "aiohttp": _aiohttp, "httpx": _httpx}


async def _measure(name: str, base: str, *, streamed: bool, seconds: float) -> dict[str, float]:
    """Calls per second and CPU time per call, 32 calls at a time, every answer checked."""
    body = body_text(streamed=streamed).encode()
    mark, times = (DELTA_MARK, DELTAS) if streamed else (PLAIN_MARK, 1)
    calls = 0

    async def caller(call: Call, until: float) -> None:
        nonlocal calls
        while time.perf_counter() < until:
            answer = await call(body)
            if answer.count(mark) != times:
                raise ValueError(f"wrong answer: {answer[:200]!r}")
            calls += 1

    async def all_callers(call: Call, duration_s: float) -> None:
        until = time.perf_counter() + duration_s
        await asyncio.gather(*(caller(call, until) for _ in range(_CONCURRENCY)))

    async with _MAKERS[name](base) as call:
        await all_callers(call, 0.3)
        calls, before = 0, resource.getrusage(resource.RUSAGE_SELF)
        await all_callers(call, seconds)
        after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"per_s": calls / seconds, "cpu_us": cpu_s / calls * 1e6}


def _child(name: str, base: str, streamed: bool, seconds: float) -> None:
    uvloop: Any = importlib.import_module("uvloop")
    print(json.dumps(uvloop.run(_measure(name, base, streamed=streamed, seconds=seconds))))


def _sample(python: Path, name: str, base: str, *, streamed: bool) -> dict[str, float]:
    argv = [str(python), "-m", "bench.clients", "--child", name, base, "streamed" if streamed else "plain"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT, env=env)
    if done.returncode != 0:
        raise StartFailed(done.stderr.strip()[-300:])
    sample: dict[str, float] = json.loads(done.stdout)
    return sample


def _compare(rounds: int) -> None:
    home = PEERS / "clients"
    install([sys.executable, "-m", "venv", str(home)], home / "venv-made")
    python = home / "bin" / "python"
    install([str(python), "-m", "pip", "install", "-q", *VERSIONS], home / f"installed-{VERSIONS[0]}")
    print("| client | answers | calls/s | CPU us/call |\n|---|---|--:|--:|")
    with tempfile.TemporaryDirectory() as work, UpstreamDouble(Path(work) / "upstream.log") as upstream:
        base = f"http://127.0.0.1:{upstream.port}/v1"
        for streamed in (False, True):
            samples: dict[str, list[dict[str, float]]] = {name: [] for name in CLIENTS}
            for _ in range(rounds):
                for name in CLIENTS:
                    samples[name].append(_sample(python, name, base, streamed=streamed))
            for name, taken in samples.items():
                rate, cpu = (statistics.median(one[key] for one in taken) for key in ("per_s", "cpu_us"))
                print(f"| {name} | {'streamed' if streamed else 'plain'} | {rate:,.0f} | {cpu:,.0f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], sys.argv[3], sys.argv[4] == "streamed", 1.0)
    else:
        _compare(rounds=3 if os.environ.get("QUICK") else 5)
