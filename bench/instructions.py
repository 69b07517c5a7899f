"""How many machine instructions a request costs: a figure that other load on the machine does not move.

``python -m bench.instructions`` runs one gateway between stub sockets under valgrind's cachegrind, twice per case with
different counts of requests; the difference is the requests' alone. ``--gate`` compares with the recorded budget
(bench/instructions.json) and exits 1 when a case is above it, 2 when this is another Python than it was recorded with;
``--record`` writes it.
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
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.adapters import _ENDS, _AnsweringLoop, _blocks, _served
from bench.contestants import Running, request_text
from bench.stages import _KEY, SUBJECT, Bench
from penstock.domain.ids import secret_hash
from penstock.domain.limits import Budget, LimitRow, Limits, Scope

BUDGET = Path(__file__).with_suffix(".json")
# What a case may cost beyond its budget before the gate closes.
SLACK = 0.03
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


def measure() -> dict[str, int]:
    """Instructions per request, by case."""
    return {
        case: (counted(case, more) - counted(case, fewer)) // (more - fewer) for case, (fewer, more) in COUNTS.items()
    }


def build() -> str:
    """Names the Python that was measured."""
    return f"{platform.python_implementation()} {platform.python_version()} {' '.join(platform.python_build())}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    parser.add_argument("--gate", action="store_true", help="exit 1 above the budget, 2 under another Python")
    parser.add_argument("--record", action="store_true", help="write the budget")
    parser.add_argument("--serve", nargs=2, metavar=("CASE", "COUNT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        with asyncio.Runner(loop_factory=_AnsweringLoop) as runner:
            runner.run(serve(asked.serve[0], int(asked.serve[1])))
        return 0
    if shutil.which("valgrind") is None:
        print("bench.instructions: valgrind is missing (Debian: apt-get install valgrind)", file=sys.stderr)
        return 2
    found = measure()
    budget: dict[str, Any] = json.loads(BUDGET.read_text()) if BUDGET.exists() else {"build": "", "instructions": {}}
    print("| case | instructions a request | budget |\n|---|--:|--:|")
    for case, count in found.items():
        print(f"| {case} | {count:,} | {budget['instructions'].get(case, 0):,} |")
    if asked.record:
        BUDGET.write_text(json.dumps({"build": build(), "instructions": found}, indent=1) + "\n")
    if not asked.gate:
        return 0
    if budget["build"] != build():
        print(f"No verdict: the budget was recorded with {budget['build']}, this is {build()}.")
        return 2
    over = [case for case, count in found.items() if count > budget["instructions"][case] * (1 + SLACK)]
    print(f"Over the budget: {', '.join(over) or 'none'}.")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
