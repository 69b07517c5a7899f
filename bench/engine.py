"""The embedded model through the whole of Penstock beside the bare engine: the same driver, weights, slots and prompts.

``python -m bench.engine`` prints the result; --driver chooses the driver of both. The bare engine is its child process,
asked on its own socket with prompts that are rendered beforehand. Measured are tokens per second of 1, 8 and 16 streams
at a time, in turns; the time to the first token with a system prompt that was there before, and with a new one; and the
gaps between the tokens of 4 streams while a long prompt arrives. Ends of text are biased away: all answers are as long.
"""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from bench import machine, rounds
from bench.contestants import Running
from bench.dialogue import Answer, Bare, Side, Through, ask
from bench.outcome import Outcome, quotient
from bench.peers import penstock
from bench.processes import PEERS, StartFailed, UpstreamDouble, cpu_ns, family

STREAMS = (1, 8, 16)
RATIOS = (
    *(f"engine_c{count}_vs_bare" for count in STREAMS),
    "engine_ttft_warm_vs_cold",
    "engine_gap_growth_long_prompt",
)
MODEL = "smollm2-135m-instruct"
_SLOTS, _CONTEXT = 16, 2048
_SUBJECTS = ("rivers", "bridges", "lamps", "ships", "mills", "winter", "bread", "clocks")
_LINE = "The keeper of the lock writes down each barge, its load, its captain and the hour at which it came. "
_BACKGROUND = 4
# Of each stream: pieces that are not looked at, and then as many while nothing else happens.
_CALM_PIECES = 16


class Size(NamedTuple):
    """How much is asked: rounds, tokens by streams at a time, lines of the system prompt (of 23 tokens each) and of the
    long prompt, tokens of the streams that it meets; threads of each engine, 0 for as many as there are CPUs."""

    rounds: int
    tokens: dict[int, int]
    system_lines: int
    long_lines: int
    background_tokens: int
    threads: int = 0


FULL = Size(rounds=5, tokens={1: 128, 8: 64, 16: 64}, system_lines=26, long_lines=64, background_tokens=240)
# Shows that the tool works, on whatever machine; its figures say nothing.
SMALL = Size(rounds=1, tokens={1: 8, 8: 4, 16: 2}, system_lines=4, long_lines=4, background_tokens=60, threads=1)


class Bench(NamedTuple):
    """Both sides, by name, what is asked of them, and what the machine did meanwhile."""

    sides: dict[str, Side]
    size: Size
    readings: list[rounds.Measurement]


def measure(work: Path, driver: str = "", size: Size = FULL) -> Outcome:
    """Everything; ``driver`` is one of penstock.engine.drivers, empty for the default one. Raises StartFailed."""
    weights = _weights()
    home = work / "home"
    home.mkdir(parents=True, exist_ok=True)
    _enter(weights, home)
    settings = {
        "PENSTOCK_ENGINE_ENABLED": "true",
        "PENSTOCK_ENGINE_SLOTS": str(_SLOTS),
        "PENSTOCK_ENGINE_CONTEXT": str(_CONTEXT),
        "PENSTOCK_ENGINE_THREADS": str(size.threads),
    }
    if driver:
        settings["PENSTOCK_ENGINE_DRIVER"] = driver
    with (
        UpstreamDouble(work / "upstream.log") as upstream,
        penstock.start(upstream.port, work, environ=settings) as running,
    ):
        return asyncio.run(_all(running, weights, driver, size))


def _weights() -> Path:
    from penstock.engine.weights import Weights, WeightsError  # noqa: PLC0415 - only where the engine is measured

    try:
        return Path(Weights(PEERS / "engine").pull(MODEL).path)
    except WeightsError as error:
        raise StartFailed(f"no weights: {error}") from error


def _enter(weights: Path, home: Path) -> None:
    from penstock.engine.weights import Weights  # noqa: PLC0415 - as above

    Weights(home).add(weights, MODEL)


async def _all(running: Running, weights: Path, driver: str, size: Size) -> Outcome:
    async with _bare(weights, driver, size.threads) as bare:
        bench = Bench({"bare": bare, "penstock": Through(running.port, dict(running.headers), MODEL)}, size, [])
        throughput = await _throughput(bench)
        first = await _first_token(bench)
        gaps = await _long_prompt(bench)
    ratios: dict[str, float | None] = {}
    for count in STREAMS:
        key = "decode_tok_s" if count == 1 else "aggregate_tok_s"
        ours, theirs = (throughput[name][str(count)][key]["median"] for name in ("penstock", "bare"))
        ratios[f"engine_c{count}_vs_bare"] = quotient(ours, theirs)
    ratios["engine_ttft_warm_vs_cold"] = quotient(first["warm_ms"]["median"], first["cold_ms"]["median"])
    ratios["engine_gap_growth_long_prompt"] = gaps["penstock"]["growth"]
    what = {"slots": _SLOTS, "context": _CONTEXT, "driver": driver or "default", "model": MODEL}
    return Outcome(
        {**what, "size": size._asdict(), "streams": throughput, "first_token": first, "gaps": gaps},
        ratios,
        bench.readings,
    )


@contextlib.asynccontextmanager
async def _bare(weights: Path, driver: str, threads: int) -> AsyncIterator[Bare]:
    from penstock.engine import drivers, supervised  # noqa: PLC0415 - only where the engine is measured

    known = drivers.DRIVERS
    if driver and driver not in known:
        raise StartFailed(f"no driver '{driver}': {', '.join(known)}")
    with tempfile.TemporaryDirectory(prefix="penstock-bare-") as folder:
        spec = drivers.EngineSpec(
            model_id=MODEL,
            model_path=str(weights),
            socket_path=str(Path(folder, "engine.sock")),
            key=secrets.token_urlsafe(16),
            slots=_SLOTS,
            context=_CONTEXT,
            threads=threads,
        )
        process = supervised.EngineProcess(spec, driver=known[driver]) if driver else supervised.EngineProcess(spec)
        try:
            await process.start()
        except drivers.EngineFailed as error:
            raise StartFailed(str(error)) from error
        try:
            yield Bare(spec.socket_path, spec.key)
        finally:
            await process.stop()


async def _throughput(bench: Bench) -> dict[str, Any]:
    """By side and number of streams: tokens per second of one stream while it runs, and of all together."""
    taken: dict[str, dict[str, list[dict[str, float]]]] = {
        name: {str(count): [] for count in STREAMS} for name in bench.sides
    }
    for number in range(bench.size.rounds + 1):
        rounds.say(f"engine: round {number} of {bench.size.rounds}" if number else "engine: a round that warms up")
        for count in STREAMS:
            for name in _turned(bench, number):
                questions = [_question(number, stream) for stream in range(count)]
                with _watched(bench):
                    asked = [ask(bench.sides[name], question, bench.size.tokens[count]) for question in questions]
                    answers = await asyncio.gather(*asked)
                if number:
                    taken[name][str(count)].append(_rates(answers))
    return {name: {count: _summaries(each) for count, each in rows.items()} for name, rows in taken.items()}


def _rates(answers: list[Answer]) -> dict[str, float]:
    tokens = sum(one.tokens for one in answers)
    wall_s = max(one.times[-1] for one in answers) - min(one.sent_at for one in answers)
    alone = statistics.mean((one.tokens - 1) / (one.times[-1] - one.times[0]) for one in answers)
    return {"decode_tok_s": alone, "aggregate_tok_s": tokens / wall_s, "first_ms": _first_ms(answers)}


def _first_ms(answers: list[Answer]) -> float:
    return statistics.median((one.times[0] - one.sent_at) * 1e3 for one in answers)


async def _first_token(bench: Bench) -> dict[str, Any]:
    """Through Penstock: a system prompt that nobody has sent before, then the same one with another question."""
    cold: list[dict[str, float]] = []
    warm: list[dict[str, float]] = []
    for number in range(bench.size.rounds + 2):
        system = f"House {secrets.token_hex(8)}. " + _LINE * bench.size.system_lines
        for kept, question in ((cold, "What is a lock?"), (warm, "What is a barge?")):
            with _watched(bench):
                answer = await ask(bench.sides["penstock"], f"{question} ({number})", 4, system=system)
            kept.append({"ms": _first_ms([answer])})
    return {"cold_ms": _summaries(cold)["ms"], "warm_ms": _summaries(warm)["ms"]}


async def _long_prompt(bench: Bench) -> dict[str, Any]:
    """By side: gaps of 4 running streams before a long prompt arrives, and until its first token."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in bench.sides}
    for number in range(bench.size.rounds):
        for name in _turned(bench, number):
            with _watched(bench):
                taken[name].append(await _disturbed(bench.sides[name], bench.size, number))
    found: dict[str, Any] = {name: _summaries(each) for name, each in taken.items()}
    return {name: {**each, "growth": each.pop("growth")["median"]} for name, each in found.items()}


async def _disturbed(side: Side, size: Size, number: int) -> dict[str, float]:
    streams: list[list[float]] = [[] for _ in range(_BACKGROUND)]
    ready = asyncio.Event()

    def note(times: list[float], at: float) -> None:
        times.append(at)
        if all(len(each) >= 2 * _CALM_PIECES for each in streams):
            ready.set()

    under_way = [
        asyncio.create_task(
            ask(side, _question(number, each), size.background_tokens, seen=partial(note, streams[each]))
        )
        for each in range(_BACKGROUND)
    ]
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait((waiting, *under_way), return_when=asyncio.FIRST_COMPLETED)
        if not ready.is_set():
            raise RuntimeError("a stream ended before the long prompt arrived")
        long = await ask(side, f"{secrets.token_hex(8)} " + _LINE * size.long_lines, 1)
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, *under_way, return_exceptions=True)
    calm, during = gaps(streams, max(times[_CALM_PIECES] for times in streams), long.sent_at, long.times[0])
    means = (statistics.mean(calm), statistics.mean(during))
    return {
        "calm_ms": means[0] * 1e3,
        "during_ms": means[1] * 1e3,
        "during_worst_ms": max(during) * 1e3,
        "long_first_ms": (long.times[0] - long.sent_at) * 1e3,
        "growth": means[1] / means[0],
    }


def gaps(
    streams: list[list[float]], calm_from: float, sent_at: float, first_at: float
) -> tuple[list[float], list[float]]:
    """The gaps in seconds of streams that lie between ``calm_from`` and ``sent_at``, when the long prompt was sent; and
    those that touch the time from then to its first token. Raises RuntimeError when there are none."""
    pairs = [pair for times in streams for pair in pairwise(times)]
    calm = [after - before for before, after in pairs if before >= calm_from and after <= sent_at]
    during = [after - before for before, after in pairs if after > sent_at and before < first_at]
    if not calm or not during:
        raise RuntimeError("no stream ran before the long prompt, or while it was read")
    return calm, during


def _question(number: int, stream: int) -> str:
    return f"{number}.{stream}: write a long story about {_SUBJECTS[stream % len(_SUBJECTS)]}."


def _turned(bench: Bench, number: int) -> list[str]:
    names = list(bench.sides)
    return names if number % 2 else names[::-1]


def _summaries(samples: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    every = {key: [one[key] for one in samples] for key in samples[0]}
    return {
        key: {"median": round(statistics.median(each), 4), "min": round(min(each), 4), "max": round(max(each), 4)}
        for key, each in every.items()
    }


@contextlib.contextmanager
def _watched(bench: Bench) -> Iterator[None]:
    """Notes what others took of the machine meanwhile; both servers are children of this process."""
    before, ours = machine.cpu_clock(), cpu_ns(family(os.getpid()))
    yield
    foreign, steal = machine.shares(before, machine.cpu_clock(), cpu_ns(family(os.getpid())) - ours)
    bench.readings.append({"foreign": foreign, "steal": steal})


def main() -> int:
    """Exit 0 when it measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=__doc__)
    parser.add_argument("--driver", default="", help="the engine's driver on both sides (the default one)")
    parser.add_argument("--small", action="store_true", help="only show that it works: its figures say nothing")
    parser.add_argument("--threads", type=int, default=0, help="of each engine (as many as there are CPUs)")
    args = parser.parse_args()
    size = SMALL if args.small else FULL._replace(threads=args.threads)
    told = machine.describe()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as work:
        try:
            outcome = measure(Path(work), args.driver, size)
        except (StartFailed, RuntimeError, OSError) as error:
            print(f"bench.engine: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
    foreign, steal = ([one[key] for one in outcome.readings] for key in ("foreign", "steal"))
    loaded = machine.too_loaded(float(str(told["load_average_1m"])), foreign, steal)
    result = {"machine": told, "measures": outcome.figures, "ratios": outcome.ratios, "too_loaded": loaded}
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
