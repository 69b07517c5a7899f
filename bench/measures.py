"""The measures of a run beyond its main rounds, and what a quick run does with each.

``python -m bench.measures NAME ...`` takes some of them alone, prints them as JSON and writes nothing; QUICK=1 or
--quick shortens them.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from bench import comparisons, engine, rounds, stalls, startup
from bench.outcome import Outcome
from bench.report import Further


class Measure(NamedTuple):
    """One of them: ``ratios`` are the names that it fills, ``quick`` what a quick run takes; None leaves it out."""

    name: str
    ratios: tuple[str, ...]
    full: Callable[[Path], Outcome]
    quick: Callable[[Path], Outcome] | None


_SHORT = rounds.Plan(rounds=2, duration_s=0.6, warmup_s=0.1)
ALL: tuple[Measure, ...] = (
    Measure(
        "startup",
        ("start_to_ready_ms", "version_ms", "idle_worker_rss_mib", "idle_worker_pss_mib"),
        startup.measure,
        lambda work: startup.measure(work, 2),
    ),
    Measure(
        "long_prompt",
        ("long_prompt_vs_nginx",),
        lambda work: comparisons.long_prompts(rounds.FULL, work),
        lambda work: comparisons.long_prompts(_SHORT, work),
    ),
    Measure(
        "workers",
        ("two_workers_plain_cpu_vs_one", "two_workers_stream_cpu_vs_one"),
        lambda work: comparisons.workers(rounds.FULL, work),
        None,
    ),
    Measure("stall_free", ("stall_free_vs_direct", "stall_free_vs_nginx"), stalls.measure, None),
    Measure(
        "growth",
        ("growth_cpu_many_apps_vs_1", "growth_per_s_many_apps_vs_1", "many_keys_cpu_vs_one_key"),
        lambda work: comparisons.growth(rounds.FULL, work),
        None,
    ),
    Measure("engine", engine.RATIOS, engine.measure, None),
)
LEFT_OUT = "left out of a quick run"
NO_TIME = "left out of a quick run that had taken too long already"
NOT_ASKED = "left out of this run (--measures)"


def told_of_quick() -> str:
    """What a quick run leaves out or shortens, in one line."""
    out, short = ([one.name for one in ALL if (one.quick is None) is left] for left in (True, False))
    return f"quick: 3 short rounds, shorter {' and '.join(short)}; left out: {', '.join(out)}"


def take(
    work: Path,
    *,
    quick: bool,
    names: Iterable[str] | None = None,
    every: Iterable[Measure] = ALL,
    until: float = math.inf,
) -> Further:
    """Take them in turn. One that cannot be taken leaves its ratios None and its reason behind, and the next begins;
    after ``until`` of the monotonic clock none does."""
    wanted = None if names is None else set(names)
    taken = Further({}, {}, {}, [])
    for measure in every:
        run = measure.quick if quick else measure.full
        if wanted is not None and measure.name not in wanted:
            _without(taken, measure, NOT_ASKED)
        elif run is None:
            _without(taken, measure, LEFT_OUT)
        elif time.monotonic() > until:
            _without(taken, measure, NO_TIME)
        else:
            rounds.say(f"measure: {measure.name}")
            folder = work / f"measure-{measure.name}"
            folder.mkdir(parents=True)
            try:
                _add(taken, measure, run(folder))
            except Exception as error:  # noqa: BLE001 - what else was measured is not lost by it
                rounds.say(f"{measure.name} could not be taken: {error}")
                _without(taken, measure, f"{type(error).__name__}: {error}"[:400])
    return taken


def _without(taken: Further, measure: Measure, reason: str) -> None:
    taken.figures[measure.name] = None
    taken.ratios.update(dict.fromkeys(measure.ratios))
    taken.null_because.update(dict.fromkeys((measure.name, *measure.ratios), reason))


def _add(taken: Further, measure: Measure, outcome: Outcome) -> None:
    taken.figures[measure.name] = outcome.figures
    taken.readings.extend(outcome.readings)
    absent = "; ".join(f"{name}: {reason}" for name, reason in outcome.null_because.items())
    for name in measure.ratios:
        value = taken.ratios[name] = outcome.ratios.get(name)
        if value is None:
            taken.null_because[name] = outcome.null_because.get(name, absent or "no valid measurement")


def main() -> int:
    """Exit 0 when every one that was asked for could be taken, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.measures", description=__doc__)
    quick = os.environ.get("QUICK", "") not in ("", "0")
    names = [one.name for one in ALL]
    parser.add_argument("names", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", default=quick, help="shortened (also QUICK=1)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as work:
        taken = take(Path(work), quick=args.quick, names=args.names)
    asked = {name: taken.figures[name] for name in args.names}
    ratios = {name: taken.ratios[name] for one in ALL if one.name in args.names for name in one.ratios}
    missing = {name: taken.null_because[name] for name, value in ratios.items() if value is None}
    print(json.dumps({"measures": asked, "ratios": ratios, "null_because": missing}, indent=1))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
