"""What governance costs: throughput with limits, budgets and the ledger on, against the same server without.

``python -m bench.governance`` runs two servers at once and asks them in turn, the order turned each round. ``governed``
has a limit of each kind on every key and app, all of them far away, a budget on every app, and ships its journal as it
does by default. ``free`` has the same prices and no limit or budget, and ships once a minute: its journal is written,
because it was before there was a ledger, but next to nothing reads it. After each measurement both servers are left to
come to rest, and what is spent on the way counts as CPU time of the requests before it. The result is written to
bench/results/governance.json.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench import machine, report, rounds
from bench.contestants import Contestant, Running
from bench.peers import penstock
from bench.processes import ROOT, UpstreamDouble, cpu_ns, family

TARGET = 0.85
_RESULT = ROOT / "bench" / "results" / "governance.json"
_PRICE = 'price = { input = "0.15", output = "0.60", cached_input = "0.075" }\n'
_LIMITED = """\
requests_per_minute = 500000000
tokens_per_minute = 2000000000
concurrent_requests = 100000
"""
GOVERNED = _PRICE + "".join(
    f'[[limit]]\nscope = "{scope}"\n{_LIMITED}[[budget]]\nscope = "{scope}"\nperiod = "month"\namount = "900000000"\n'
    for scope in ("key", "app")
)
FREE = _PRICE + "[limits]\nheroku_defaults = false\n[ledger]\nship_s = 60\n"
CONTESTANTS = (
    Contestant("governed", partial(penstock.start, extra=GOVERNED)),
    Contestant("free", partial(penstock.start, extra=FREE)),
)
_UNITS = {False: "per_s", True: "chunks_per_s"}
_REST_S, _QUIET_SHARE, _LONGEST_REST_S = 0.25, 0.04, 20.0


def measure(plan: rounds.Plan, scenarios: tuple[rounds.Scenario, ...], work: Path) -> rounds.Measured:
    """The rounds, with a rest after each measurement."""
    with UpstreamDouble(work / "upstream.log") as upstream, contextlib.ExitStack() as stack:
        running = {one.name: stack.enter_context(one.start(upstream.port, work / one.name)) for one in CONTESTANTS}
        samples: dict[str, dict[str, list[rounds.Measurement]]] = {
            name: {scenario.name: [] for scenario in scenarios} for name in running
        }
        order = list(running)
        for number in range(plan.rounds + 1):
            rounds.say(f"round {number} of {plan.rounds}" if number else "a round that warms up")
            for scenario in scenarios:
                for name in order:
                    sample = rounds.sampled(running[name], scenario, plan, upstream)
                    spent, sample["rest_s"] = _rest(running)[name]
                    sample["cpu_us_per_request"] += spent / 1e3 / max(1, sample["sent"])
                    if number:
                        samples[name][scenario.name].append(sample)
            order.reverse()
        return rounds.Measured(samples, {name: one.version for name, one in running.items()}, {})


def _rest(running: Mapping[str, Running]) -> dict[str, tuple[int, float]]:
    """Wait until the servers do next to nothing: what each spent on the way in ns of CPU time, and how long it was."""
    began = time.monotonic()
    first = last = {name: _cpu_ns(one) for name, one in running.items()}
    rested = dict.fromkeys(running, 0.0)
    busy = set(running)
    while busy and (now := time.monotonic()) - began < _LONGEST_REST_S:
        time.sleep(_REST_S)  # a share of the CPU is one of a stretch of time
        cpu = {name: _cpu_ns(one) for name, one in running.items()}
        share = {name: (cpu[name] - last[name]) / 1e9 / (time.monotonic() - now) for name in running}
        busy = {name for name in running if share[name] > _QUIET_SHARE}
        rested.update(dict.fromkeys(busy, time.monotonic() - began))
        last = cpu
    return {name: (last[name] - first[name], rested[name]) for name in running}


def _cpu_ns(running: Running) -> int:
    return 0 if running.pid is None else cpu_ns(family(running.pid))


def build(
    measured: rounds.Measured, scenarios: tuple[rounds.Scenario, ...], plan: rounds.Plan, told: dict[str, Any]
) -> dict[str, Any]:
    """The whole result; ``verdict`` is None where the machine was not quiet."""
    medians = {
        name: {scenario: report.summarised(samples) for scenario, samples in rows.items() if samples}
        for name, rows in measured.samples.items()
    }
    ratios = {}
    for scenario in scenarios:
        governed, free = (medians[name][scenario.name][_UNITS[scenario.streamed]] for name in ("governed", "free"))
        ratios[scenario.name] = round(governed["median"] / free["median"], 4)
    every = [one for rows in measured.samples.values() for samples in rows.values() for one in samples]
    foreign, steal = ([one[name] for one in every] for name in ("foreign", "steal"))
    loaded = machine.too_loaded(float(told["load_average_1m"]), foreign, steal)
    met = all(ratio >= TARGET for ratio in ratios.values())
    return {
        "machine": told,
        "plan": plan._asdict(),
        "medians": medians,
        "ratios": ratios,
        "target": TARGET,
        "too_loaded": loaded,
        "verdict": None if loaded else "met" if met else "missed",
    }


def markdown(result: dict[str, Any]) -> str:
    """The table that is printed."""
    lines = [
        "| | governed | free | ratio | CPU us/request | free's | rest s | free's |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, ratio in result["ratios"].items():
        rows = [result["medians"][who][name] for who in ("governed", "free")]
        rates = [row["chunks_per_s" if name.startswith("stream") else "per_s"]["median"] for row in rows]
        cpu, rest = ([row[key]["median"] for row in rows] for key in ("cpu_us_per_request", "rest_s"))
        lines.append(
            f"| {name} | {rates[0]:,.0f} | {rates[1]:,.0f} | {ratio:.3f} "
            f"| {cpu[0]:.0f} | {cpu[1]:.0f} | {rest[0]:.1f} | {rest[1]:.1f} |"
        )
    why = f"No verdict, the figures are provisional: {result['too_loaded']}."
    said = f"Target, at least {TARGET} everywhere: {result['verdict']}."
    return "\n".join([*lines, "", why if result["too_loaded"] else said])


def main() -> int:
    """Exit 0 when it measured; with --gate, 1 when the target was missed and 2 when no verdict could be given."""
    parser = argparse.ArgumentParser(prog="python -m bench.governance", description=__doc__)
    quick = os.environ.get("QUICK", "") not in ("", "0")
    parser.add_argument("--quick", action="store_true", default=quick, help="3 short rounds (also QUICK=1)")
    parser.add_argument("--gate", action="store_true", help="exit 1 when the target is missed, 2 without a verdict")
    parser.add_argument("--rounds", type=int, help="how many rounds")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in rounds.SCENARIOS], metavar="SCENARIO")
    args = parser.parse_args()
    told = machine.describe()
    plan = rounds.QUICK if args.quick else rounds.FULL
    plan = plan._replace(rounds=args.rounds or plan.rounds)
    scenarios = tuple(one for one in rounds.SCENARIOS if not args.only or one.name in args.only)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as work:
        result = build(measure(plan, scenarios, Path(work)), scenarios, plan, told)
    _RESULT.parent.mkdir(parents=True, exist_ok=True)
    _RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(markdown(result))
    if not args.gate:
        return 0
    return {"met": 0, "missed": 1}.get(str(result["verdict"]), 2)


if __name__ == "__main__":
    sys.exit(main())
