"""How many paced streams at once go through without a stall: directly, through nginx and through Penstock.

A stream is 64 deltas, one each 20 ms. It is free of stalls when no gap between two deltas is more than 60 ms longer at
the client than it was at the upstream (bench.pacing). A level of so many streams is carried when 99% of those that
were looked at are, and when the upstream itself kept its pace for 99% of them: on one machine it shares the cores. The
levels double until one is not carried twice in a row, and what lies between is halved until it is known to 1/8.
"""

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench import rounds
from bench.answers import PACED
from bench.contestants import PROMPT, Contestant, Running, request_text
from bench.outcome import Outcome, quotient
from bench.pacing import RAMP_S, Job
from bench.peers import direct, nginx, penstock
from bench.processes import UpstreamDouble, run_json

ROUNDS = 3
_FIRST, _MOST = 64, 8192
_SHARE = 0.99
_PRECISION = 8
_DURATION_S = 2.8
_WIDE = penstock.LIMITED + "[upstream]\nmax_connections = 16384\n"
CONTESTANTS = (
    Contestant("direct", direct.start),
    Contestant("nginx", nginx.start),
    Contestant("penstock", partial(penstock.start, extra=_WIDE)),
)


def holds(sample: rounds.Measurement) -> bool:
    """Whether the level of that measurement is carried."""
    counted = sample["counted"]
    enough = counted >= sample["streams"] / 2
    return enough and min(sample["stall_free"], sample["upstream_held"]) >= _SHARE * counted


def highest(carries: Callable[[int], bool], first: int = _FIRST, most: int = _MOST) -> int:
    """The largest level known to be carried, to 1/8 of it; 0 when not even one stream is."""
    good, bad = 0, first
    while bad <= most and carries(bad):
        good, bad = bad, bad * 2
    if bad > most:
        return good
    while bad - good > max(1, good // _PRECISION):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if carries(middle) else (good, middle)
    return good


def measure(work: Path, searches: int = ROUNDS) -> Outcome:
    """Search for the highest level of each contestant in turn, so often; medians."""
    found: dict[str, list[int]] = {}
    levels: list[dict[str, Any]] = []
    with UpstreamDouble(work / "upstream.log") as upstream, rounds.started(CONTESTANTS, upstream, work) as now:
        order = list(now.running)
        for number in range(searches):
            for name in order:
                known = found.setdefault(name, [])
                carries = partial(_carries, now.running[name], name, levels)
                known.append(highest(carries, _start(known)))
                rounds.say(f"stall-free streams, search {number + 1} of {searches}: {name} {known[-1]}")
            order = order[1:] + order[:1]
    carried = {name: statistics.median(each) for name, each in found.items()}
    return Outcome(
        figures={"carried": carried, "searches": found, "levels": levels, "absent": now.absent},
        ratios={
            "stall_free_vs_direct": quotient(carried.get("penstock"), carried.get("direct")),
            "stall_free_vs_nginx": quotient(carried.get("penstock"), carried.get("nginx")),
        },
        readings=levels,
        null_because=now.absent,
    )


def _start(known: list[int]) -> int:
    """A level well below what was found before."""
    return max(_FIRST, 1 << (min(known, default=0).bit_length() - 2)) if min(known, default=0) > _FIRST else _FIRST


def _carries(running: Running, name: str, levels: list[dict[str, Any]], streams: int) -> bool:
    """Try a level, and once more when it was not carried: a hiccup of the machine is no bound of the contestant."""
    request = request_text(running, streamed=True, prompt=f"{PROMPT} {PACED}")
    job = Job(host="127.0.0.1", port=running.port, request=request, streams=streams, duration_s=_DURATION_S)
    for _ in range(2):
        try:
            sample, cpu_ns = rounds.watched(
                running, lambda: run_json("bench.pacing", job._asdict(), timeout_s=RAMP_S + _DURATION_S + 60)
            )
        except RuntimeError as error:
            rounds.say(f"{name}, {streams} streams: {error}")
            continue
        seconds = RAMP_S / 2 + _DURATION_S
        levels.append({**sample, "contestant": name, "cpu_share": round(cpu_ns / 1e9 / seconds, 3)})
        if holds(sample):
            return True
    return False
