"""How many machine instructions a request costs: a figure that other load on the machine does not move.

``python -m bench.instructions`` runs one gateway between stub sockets under valgrind's cachegrind, twice per case with
different counts of requests; the difference is the requests' alone. It measures what PYTHONPATH names: the source, or
build/native (``make native``). ``--gate`` compares with the recorded budget of this Python (bench/instructions.json)
and exits 1 when a case is above it; ``--record`` writes it. Another Python than those that were recorded may cost a
quarter more than the dearest of them.
"""

import argparse
import asyncio
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.adapters import _ENDS, _AnsweringLoop, _blocks, _served
from bench.contestants import Running, request_text
from bench.stages import _KEY, SUBJECT, Bench
from penstock.app.banner import is_compiled
from penstock.domain.ids import secret_hash
from penstock.domain.limits import Budget, LimitRow, Limits, Scope
from penstock.gateway.limits import headers

BUDGET = Path(__file__).with_suffix(".json")
# What a case may cost beyond its budget before the gate closes: of a Python that was recorded, and of another.
SLACK, ELSEWHERE = 0.03, 0.25
# Requests of the two runs, by case.
COUNTS = {"plain": (100, 600), "governed": (100, 600), "streamed": (20, 120)}
_REFERENCES = re.compile(r"I\s+refs:\s+([\d,]+)")
_ALL = Limits(requests_per_minute=10**9, tokens_per_minute=10**12, concurrent_requests=10**6)


def serving(bench: Bench, case: str) -> Callable[[], Awaitable[None]]:
    """The work of one request of the case."""
    mode = "streamed" if case == "streamed" else "plain"
    loop: Any = asyncio.get_running_loop()
    loop.blocks = _blocks("openai", mode)
    running = Running(8400, "/v1/chat/completions", {"authorization": f"Bearer {_KEY}"}, "")
    return _served(bench.app, request_text(running, streamed=mode == "streamed").encode(), _ENDS[mode])


async def serve(case: str, count: int) -> None:
    """So many requests of the case."""
    with tempfile.TemporaryDirectory() as folder:
        scopes = (Scope.KEY, Scope.APP) if case == "governed" else ()
        limits = tuple(LimitRow(scope=one, subject_id=SUBJECT, limits=_ALL) for one in scopes)
        budgets = tuple(
            Budget(id=one, scope=one, subject_id=SUBJECT, period="month", amount_nanos=9 * 10**17) for one in scopes
        )
        bench = Bench(Path(folder), limits=limits, budgets=budgets)
        await bench.keys.find(secret_hash(_KEY))
        work = serving(bench, case)
        # Written anew by the clock, not by requests.
        headers._FRESH_S = 3600.0
        gc.collect()
        gc.disable()
        for _ in range(count):
            await work()
        bench.journal.close()


def counted(case: str, count: int) -> int:
    """Instructions of a process that serves so many requests. Raises CalledProcessError."""
    tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    # Addresses decide about hashes and alignment: they are the same in every run.
    fixed = ["setarch", "-R"] if shutil.which("setarch") else []
    argv = [*fixed, *tool, sys.executable, "-m", "bench.instructions", "--serve", case, str(count)]
    env = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=env)
    found = _REFERENCES.search(done.stderr)
    assert found is not None, done.stderr
    return int(found[1].replace(",", ""))


def measure(cases: Iterable[str]) -> dict[str, int]:
    """Instructions per request, by case. Raises CalledProcessError."""
    found = {}
    for case in cases:
        fewer, more = COUNTS[case]
        found[case] = (counted(case, more) - counted(case, fewer)) // (more - fewer)
    return found


def build() -> str:
    """Names the Python that was measured, and how our own code ran."""
    python = f"{platform.python_implementation()} {platform.python_version()} {' '.join(platform.python_build())}"
    return f"{python}, {'compiled' if is_compiled() else 'source'}"


def allowed(budgets: Mapping[str, Mapping[str, int]], build: str, case: str) -> float:
    """The most that a case may cost there; without end where nothing like it was recorded."""
    if case in budgets.get(build, {}):
        return budgets[build][case] * (1 + SLACK)
    kind = build.rpartition(", ")[2]
    alike = [one[case] for name, one in budgets.items() if name.endswith(kind) and case in one]
    return max(alike) * (1 + ELSEWHERE) if alike else float("inf")


def main() -> int:
    """Exit 0 when it measured; 2 without valgrind."""
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    parser.add_argument("--gate", action="store_true", help="exit 1 above the budget")
    parser.add_argument("--record", action="store_true", help="write the budget of this Python")
    parser.add_argument("--only", nargs="+", choices=list(COUNTS), default=list(COUNTS), metavar="CASE")
    parser.add_argument("--serve", nargs=2, metavar=("CASE", "COUNT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        with asyncio.Runner(loop_factory=_AnsweringLoop) as runner:
            runner.run(serve(asked.serve[0], int(asked.serve[1])))
        return 0
    if shutil.which("valgrind") is None:
        print("bench.instructions: valgrind is missing (Debian: apt-get install valgrind)", file=sys.stderr)
        return 2
    found = measure(asked.only)
    budgets: dict[str, dict[str, int]] = json.loads(BUDGET.read_text()) if BUDGET.exists() else {}
    print(f"{build()}\n\n| case | instructions a request | at most |\n|---|--:|--:|")
    over = []
    for case, count in found.items():
        most = allowed(budgets, build(), case)
        over += [case] if count > most else []
        print(f"| {case} | {count:,} | {most:,.0f} |")
    if asked.record:
        budgets[build()] = budgets.get(build(), {}) | found
        BUDGET.write_text(json.dumps(budgets, indent=1, sort_keys=True) + "\n")
    if not asked.gate:
        return 0
    print(f"Over the budget: {', '.join(over) or 'none'}.")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
