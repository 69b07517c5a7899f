"""What each adapter costs: CPU time of a whole request through one gateway, with stubs for both sockets.

``python -m bench.adapters`` prints a table, then JSON: microseconds by adapter, plain and streamed with 64 deltas, each
of which arrives alone, and the ratio to pass-through. The least of many short batches counts, and the adapters take
turns, so that other load on the machine moves neither much. The kernel's share is not in it.
"""

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from bench.answers import DELTAS, PLAIN_MARK
from bench.contestants import Running, request_text
from bench.stages import _KEY, Bench, _Socket
from penstock.domain.ids import secret_hash
from penstock.web.http1 import HttpConnection
from penstock.web.hub import HttpLimits, Hub
from penstock.web.server import refusal
from tests.providers.vendors import Answer

PASS_THROUGH = "openai"
ADAPTERS = (PASS_THROUGH, "azure", "anthropic", "bedrock", "gemini")
# A translated dialect may cost this much more than pass-through.
BOUND = 2.5
_PER_BATCH = {"plain": 50, "streamed": 8}
_BASE = "http://127.0.0.1:9/v1"
_PLAIN = Answer(text=PLAIN_MARK.decode(), pieces=1)
_STREAMED = Answer(text=" drop" * DELTAS, pieces=DELTAS, usage=(12, DELTAS, 0, 0))
_ENDS = {"plain": b"}", "streamed": b"[DONE]"}


class Case(NamedTuple):
    """One adapter in one mode: the blocks that its upstream sends, and the work that is timed."""

    adapter: str
    mode: str
    blocks: list[bytes]
    serve: Callable[[], Awaitable[None]]


class _AnsweringLoop(uvloop.Loop):
    """Connections of this loop end at a stub that plays the upstream, a block in each turn."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[bytes] = []

    async def create_connection(self, factory: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        protocol = factory()

        def send(at: int) -> None:
            protocol.data_received(self.blocks[at])
            if at + 1 < len(self.blocks):
                self.call_soon(send, at + 1)

        socket = _Socket(lambda _: self.call_soon(send, 0))
        protocol.connection_made(socket)
        return socket, protocol


def _blocks(name: str, mode: str) -> list[bytes]:
    """The upstream's answer as it comes from the socket."""
    double = import_module(f"tests.providers.vendors.{name}").Double()
    if mode == "plain":
        body = double.plain(_PLAIN)
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        return [head.encode() + body]
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {double.stream_type}\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in double.events(_STREAMED)]
    return [head.encode(), *chunks[:-1], chunks[-1] + b"0\r\n\r\n"]


def _adapter(name: str) -> Any:
    """The adapter of the double's kind, made as the product makes it."""
    from tests.providers.lane import make  # noqa: PLC0415 - an older tree, measured for comparison, has no such thing

    return make(import_module(f"tests.providers.vendors.{name}").Double(), _BASE)[0]


def _served(app: Any, request: bytes, end: bytes) -> Callable[[], Awaitable[None]]:
    """A whole request through the server's protocol to ``app``, until its answer's last bytes are written."""
    done: list[asyncio.Future[None]] = []
    seen: list[bytes] = []

    def written(data: bytes) -> None:
        seen.append(data)
        if (end in data) if end != b"}" else (PLAIN_MARK in data):
            done[0].set_result(None)

    protocol = HttpConnection(Hub(app, limits=HttpLimits(), hang_up_reason="gone", refusal=refusal))
    protocol.connection_made(_Socket(written))

    async def serve() -> None:
        done[:] = [asyncio.get_running_loop().create_future()]
        seen.clear()
        protocol.data_received(request)
        async with asyncio.timeout(10):
            await done[0]
        await asyncio.sleep(0)

    return serve


def _cases(bench: Bench, names: tuple[str, ...], modes: tuple[str, ...]) -> list[Case]:
    cases = []
    running = Running(8400, "/v1/chat/completions", {"authorization": f"Bearer {_KEY}"}, "")
    for mode in modes:
        request = request_text(running, streamed=mode == "streamed").encode()
        cases += [Case(name, mode, _blocks(name, mode), _served(bench.app, request, _ENDS[mode])) for name in names]
    return cases


async def _measure(
    bench: Bench, names: tuple[str, ...], modes: tuple[str, ...], rounds: int
) -> dict[str, dict[str, float]]:
    """Microseconds of CPU time by mode and adapter."""
    loop: Any = asyncio.get_running_loop()
    own = bench.adapters["double"]
    adapters = {name: own if name == PASS_THROUGH else _adapter(name) for name in names}
    least: dict[str, dict[str, float]] = {mode: {} for mode in modes}
    cases = _cases(bench, names, modes)
    for turn in range(rounds + 1):
        if turn == 1:
            gc.collect()
            gc.freeze()
        for case in cases:
            loop.blocks, bench.adapters["double"] = case.blocks, adapters[case.adapter]
            count = _PER_BATCH[case.mode]
            start = time.thread_time_ns()
            for _ in range(count):
                await case.serve()
            spent = (time.thread_time_ns() - start) / count / 1e3
            if turn:  # the first turn warms up
                found = least[case.mode]
                found[case.adapter] = min(found.get(case.adapter, spent), spent)
    return least


def report(least: dict[str, dict[str, float]]) -> str:
    """The table, in Markdown: a column of microseconds and one of ratios for each mode."""
    heads = "".join(f" {mode} us | ratio |" for mode in least)
    lines = [f"| adapter |{heads}", "|---|" + "--:|--:|" * len(least)]
    for name in next(iter(least.values())):
        bases = [found.get(PASS_THROUGH, float("nan")) for found in least.values()]
        cells = [
            f" {found[name]:.0f} | {found[name] / base:.2f} |"
            for found, base in zip(least.values(), bases, strict=True)
        ]
        lines.append(f"| {name} |{''.join(cells)}")
    return "\n".join(lines)


async def _main(names: tuple[str, ...], modes: tuple[str, ...], rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        await bench.keys.find(secret_hash(_KEY))
        least = await _measure(bench, names, modes, rounds)
        print(report(least))
        over = [
            f"{name} {mode}"
            for mode, found in least.items()
            for name, spent in found.items()
            if PASS_THROUGH in found and spent > BOUND * found[PASS_THROUGH]
        ]
        print(f"\nOver {BOUND} times pass-through: {', '.join(over) or 'none'}.\n")
        print(json.dumps({mode: {name: round(us, 1) for name, us in found.items()} for mode, found in least.items()}))
        bench.journal.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.adapters")
    parser.add_argument("--only", nargs="+", choices=ADAPTERS, default=ADAPTERS)
    parser.add_argument("--mode", nargs="+", choices=tuple(_ENDS), default=tuple(_ENDS))
    parser.add_argument("--rounds", type=int, default=60)
    asked = parser.parse_args()
    with asyncio.Runner(loop_factory=_AnsweringLoop) as runner:
        runner.run(_main(tuple(asked.only), tuple(asked.mode), asked.rounds))
    sys.exit(0)
