"""Runs the contestants in interleaved rounds: every scenario for every contestant, the order turned each round."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.contestants import Contestant, Running, long_prompt, request_text
from bench.load import Job
from bench.machine import CpuClock, cpu_clock, shares
from bench.processes import StartFailed, UpstreamDouble, cpu_ns, family, run_json


class Scenario(NamedTuple):
    """A way of asking; ``prompt_bytes`` is what the prompt has beyond a short question, ``spread`` asks with every key
    of the contestant in turn."""

    name: str
    connections: int
    streamed: bool
    prompt_bytes: int = 0
    spread: bool = False


SCENARIOS = (
    Scenario("plain_c1", 1, streamed=False),
    Scenario("plain_c32", 32, streamed=False),
    Scenario("stream_c1", 1, streamed=True),
    Scenario("stream_c32", 32, streamed=True),
)


# Slower than this at 32 connections, a contestant gets windows three times as long, or it shows too few answers.
_SLOW_PER_S = 500
_SLOW_TIMES = 3


class Plan(NamedTuple):
    """How long a run measures."""

    rounds: int
    duration_s: float
    warmup_s: float


FULL = Plan(rounds=5, duration_s=3.0, warmup_s=0.5)
QUICK = Plan(rounds=3, duration_s=0.7, warmup_s=0.1)

Measurement = dict[str, float]


class Measured(NamedTuple):
    """A run's raw result: measurements by contestant and scenario, one per round; why a contestant is absent."""

    samples: dict[str, dict[str, list[Measurement]]]
    versions: dict[str, str]
    absent: dict[str, str]


class Started(NamedTuple):
    """The contestants that run, those of them that are slow, and why the others are absent."""

    running: dict[str, Running]
    slow: set[str]
    absent: dict[str, str]


@contextlib.contextmanager
def started(contestants: Sequence[Contestant], upstream: UpstreamDouble, work: Path) -> Iterator[Started]:
    """Every contestant that can be started, until the end of the context."""
    now = Started({}, set(), {})
    with contextlib.ExitStack() as stack:
        for contestant in contestants:
            say(f"starting {contestant.name}")
            try:
                one = stack.enter_context(contestant.start(upstream.port, work / contestant.name))
                if _prove(one, upstream) < _SLOW_PER_S:
                    now.slow.add(contestant.name)
            except (StartFailed, RuntimeError, OSError) as error:
                now.absent[contestant.name] = str(error)
                say(f"{contestant.name} is absent: {error}")
            else:
                now.running[contestant.name] = one
        yield now


def measure(
    contestants: Sequence[Contestant], plan: Plan, work: Path, scenarios: Sequence[Scenario] = SCENARIOS
) -> Measured:
    """Start everything, run the rounds, stop everything."""
    with UpstreamDouble(work / "upstream.log") as upstream, started(contestants, upstream, work) as now:
        running = now.running
        samples: dict[str, dict[str, list[Measurement]]] = {
            name: {scenario.name: [] for scenario in scenarios} for name in running
        }
        order = list(running)
        slow_plan = plan._replace(duration_s=plan.duration_s * _SLOW_TIMES)
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}")
            for scenario in scenarios:
                for name in order:
                    try:
                        sample = sampled(running[name], scenario, slow_plan if name in now.slow else plan, upstream)
                    except RuntimeError as error:
                        say(f"{name} {scenario.name}: {error}")
                        continue
                    samples[name][scenario.name].append(sample)
            order = order[1:] + order[:1]
        return Measured(samples, {name: one.version for name, one in running.items()}, now.absent)


def sampled(running: Running, scenario: Scenario, plan: Plan, upstream: UpstreamDouble) -> Measurement:
    """One measurement, with the CPU time of the server under test and of everything foreign meanwhile."""
    served = upstream.served()
    sample, server_ns = watched(running, lambda: _run(running, scenario, plan))
    passed = upstream.served() - served
    if passed != sample["sent"]:
        raise RuntimeError(f"sent {sample['sent']:.0f} requests, the upstream answered {passed}")
    sample["cpu_us_per_request"] = server_ns / 1e3 / max(1, sample["sent"])
    return sample


def watched(running: Running, run: Callable[[], Measurement]) -> tuple[Measurement, int]:
    """What ``run`` measures, with the shares of the CPU that others took meanwhile as ``foreign`` and ``steal``; and
    the CPU time in nanoseconds of the server under test."""
    pids = [] if running.pid is None else family(running.pid)
    before = cpu_clock()
    ours, server, load = cpu_ns(family(os.getpid())), cpu_ns(pids), _ended_children_s()
    sample = run()
    server = cpu_ns(pids) - server
    ours = cpu_ns(family(os.getpid())) - ours
    load = _ended_children_s() - load
    after: CpuClock = cpu_clock()
    sample["foreign"], sample["steal"] = shares(before, after, ours + int(load * 1e9))
    return sample, server


def _ended_children_s() -> float:
    """CPU time of children that have ended: the load generators."""
    times = os.times()
    return times.children_user + times.children_system


def _run(running: Running, scenario: Scenario, plan: Plan) -> Measurement:
    job = Job(
        host="127.0.0.1",
        port=running.port,
        request=request_text(running, streamed=scenario.streamed, prompt=long_prompt(scenario.prompt_bytes)),
        connections=scenario.connections,
        duration_s=plan.duration_s,
        warmup_s=plan.warmup_s,
        streamed=scenario.streamed,
        keys=running.keys if scenario.spread else (),
    )
    return run_json("bench.load", job._asdict(), timeout_s=plan.duration_s + plan.warmup_s + 40)


def _prove(running: Running, upstream: UpstreamDouble) -> float:
    """A short run of each scenario: the answers are right, and every request reaches the upstream exactly once.

    Gives the plain requests per second at 32 connections.
    """
    samples = {scenario.name: sampled(running, scenario, Plan(1, 0.3, 0.2), upstream) for scenario in SCENARIOS}
    return samples["plain_c32"]["per_s"]


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
