"""Whether memory stays flat: the resident size of every process of one server over many requests, governance on.

``python -m bench.memory`` sends 200,000 requests to a server with limits, budgets and the ledger on, in short stretches
of which about one in eight is of streams, and looks at each process 100 times on the way. The first tenth warms up.
Growth is the largest size of the last tenth against the largest of the second; the target is that no process grows by
more than 5%. The result is written to bench/results/memory.json.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from bench import machine
from bench.contestants import Running, request_text
from bench.governance import GOVERNED
from bench.load import Job
from bench.peers import penstock
from bench.processes import ROOT, UpstreamDouble, family, run_json
from bench.rounds import say

MAX_GROWTH = 0.05
LOOKS = 100
_CONNECTIONS = 32
_RESULT = ROOT / "bench" / "results" / "memory.json"
_WORKERS = "[gateway]\nworkers = {workers}\n"


def roles(pid: int) -> dict[int, str]:
    """The processes of a server by their ids, as their titles say (app/nursery/title.py)."""
    named, alike = {pid: "supervisor"}, Counter[str]()
    for member in family(pid):
        title = Path(f"/proc/{member}/comm").read_text().strip().removeprefix("penstock ")
        alike[title] += 1
        named.setdefault(member, f"{title} {alike[title]}")
    return named


def rss_kib(pid: int) -> int:
    """The resident size; 0 when the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def growth(sizes: list[int]) -> float:
    """By how much the largest size of the last tenth is above the largest of the second."""
    tenth = max(1, len(sizes) // 10)
    warm = max(sizes[tenth : 2 * tenth])
    return max(sizes[-tenth:]) / warm - 1 if warm else 0.0


def measure(count: int, workers: int, work: Path) -> dict[str, Any]:
    """Send so many requests: the sizes in KiB of each process along the way, and how many requests it were."""
    extra = GOVERNED + _WORKERS.format(workers=workers)
    with UpstreamDouble(work / "upstream.log") as upstream, penstock.start(upstream.port, work, extra=extra) as running:
        assert running.pid is not None
        sent, looks = 0, 0
        sizes: dict[int, list[int]] = {pid: [] for pid in family(running.pid)}
        while sent < count:
            sent += _some(running, streamed=looks % 8 == 7)
            while sent * LOOKS >= looks * count and looks < LOOKS:
                looks += 1
                for pid, seen in sizes.items():
                    seen.append(rss_kib(pid))
                if looks % 10 == 0:
                    say(f"{sent:,} of {count:,} requests")
        named = roles(running.pid)
        return {"sent": sent, "sizes_kib": {named.get(pid, f"ended {pid}"): seen for pid, seen in sizes.items()}}


def _some(running: Running, *, streamed: bool) -> int:
    """A short while of one kind of request; how many they were."""
    job = Job(
        host="127.0.0.1",
        port=running.port,
        request=request_text(running, streamed=streamed),
        connections=_CONNECTIONS,
        duration_s=0.5,
        warmup_s=0.0,
        streamed=streamed,
    )
    return int(run_json("bench.load", job._asdict(), timeout_s=60)["sent"])


def build(measured: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """The whole result."""
    grown = {name: round(growth(sizes), 4) for name, sizes in measured["sizes_kib"].items()}
    met = all(value <= MAX_GROWTH for value in grown.values()) and not any(name.startswith("ended") for name in grown)
    return {"machine": told, **measured, "growth": grown, "target": MAX_GROWTH, "verdict": "met" if met else "missed"}


def markdown(result: dict[str, Any]) -> str:
    """The table that is printed."""
    lines = [f"{result['sent']:,} requests", "", "| process | after warm-up KiB | at the end KiB | growth |"]
    lines.append("|---|--:|--:|--:|")
    for name, sizes in result["sizes_kib"].items():
        warm = sizes[max(1, len(sizes) // 10)]
        lines.append(f"| {name} | {warm:,} | {sizes[-1]:,} | {result['growth'][name]:+.1%} |")
    return "\n".join([*lines, "", f"Target, at most {MAX_GROWTH:.0%} each: {result['verdict']}."])


def main() -> int:
    """Exit 0 when it measured; with --gate, 1 when the target was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--count", type=int, default=200_000, help="requests (200,000)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gate", action="store_true", help="exit 1 when the target is missed")
    parser.add_argument("--to", type=Path, default=_RESULT, help="the file of the result")
    args = parser.parse_args()
    told = machine.describe()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as work:
        result = build(measure(args.count, args.workers, Path(work)), told)
    args.to.parent.mkdir(parents=True, exist_ok=True)
    args.to.write_text(json.dumps(result, indent=1) + "\n")
    print(markdown(result))
    return int(args.gate and result["verdict"] == "missed")


if __name__ == "__main__":
    sys.exit(main())
