"""Draws a result as SVG into docs/performance/: throughput, latency distribution, streams and growth curves.

``python -m bench.plots`` draws from bench/results/latest.json, or from the file that is named. What a run did not
measure is not drawn, and an older drawing of it is left as it is.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from bench.load import SHARES
from bench.processes import ROOT
from bench.svg import Bars, Chart, Curves, drawn

FOLDER = ROOT / "docs" / "performance"
_LATEST = ROOT / "bench" / "results" / "latest.json"
# The order gives each contestant its colour in every drawing.
KINDS = ("direct", "nginx", "penstock", "portkey", "litellm")
_TICKS = ("p1", "p50", "p90", "p99", "p99_9")


def charts(result: dict[str, Any]) -> dict[str, Chart]:
    """The charts for which the result has figures, by file name without its ending."""
    note, medians = _note(result), result["medians"]
    made = {
        "throughput": Chart(
            "Requests per second",
            note,
            KINDS,
            [
                _bars("1 connection", "requests/s, log scale", medians, ("plain_c1", "per_s")),
                _bars("32 connections", "requests/s, log scale", medians, ("plain_c32", "per_s")),
            ],
        ),
        "latency": Chart(
            "Latency distribution of plain requests",
            note,
            KINDS,
            [_latency("1 connection", medians, "plain_c1"), _latency("32 connections", medians, "plain_c32")],
        ),
        "streams": Chart("Streams of 64 deltas", note, KINDS, _streams(result)),
        "growth": Chart("Cost of a request as the installation grows", note, KINDS, _growth(result)),
    }
    full = {name: chart._replace(panels=[one for one in chart.panels if _filled(one)]) for name, chart in made.items()}
    return {name: chart for name, chart in full.items() if chart.panels}


def draw(result: dict[str, Any], folder: Path = FOLDER) -> list[Path]:
    """Write the charts; which files were written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, chart in charts(result).items():
        written.append(folder / f"{name}.svg")
        written[-1].write_text(drawn(chart))
    return written


def _filled(panel: Bars | Curves) -> bool:
    return bool(panel.values if isinstance(panel, Bars) else panel.series)


def _note(result: dict[str, Any]) -> str:
    machine, plan = result["machine"], result["plan"]
    told = (
        f"{machine['date'][:10]}, {machine['commit']}, {machine['cores']} cores of {machine['cpu']}; "
        f"medians of {plan['rounds']} rounds of {plan['duration_s']:g} s"
    )
    return f"{told}; provisional, the machine was loaded" if result["too_loaded"] else told


def _bars(title: str, unit: str, medians: dict[str, Any], figure: tuple[str, str], scale: float = 1.0) -> Bars:
    scenario, key = figure
    found = {name: rows.get(scenario, {}).get(key) for name, rows in medians.items()}
    return Bars(title, unit, {name: one["median"] * scale for name, one in found.items() if one and one["median"] > 0})


def _latency(title: str, medians: dict[str, Any], scenario: str) -> Curves:
    """One curve a contestant; the axis stretches towards the slowest, so that each nine has the same room."""

    def across(share: float) -> float:
        return -math.log10(1 - share)

    series = {}
    for name, rows in medians.items():
        figures = rows.get(scenario, {})
        points = [(across(share), figures.get(f"{key}_us")) for key, share in SHARES.items()]
        if known := [(x, one["median"]) for x, one in points if one and one["median"] > 0]:
            series[name] = known
    ticks = [(across(SHARES[key]), key.replace("_", ".")) for key in _TICKS]
    return Curves(title, "percentile of requests", "microseconds, log scale", ticks, series)


def _streams(result: dict[str, Any]) -> list[Bars | Curves]:
    medians = result["medians"]
    stall_free = _measure(result, "stall_free").get("carried", {})
    return [
        _bars("1 connection, without pauses", "deltas/s, log scale", medians, ("stream_c1", "chunks_per_s")),
        _bars("32 connections", "deltas/s, log scale", medians, ("stream_c32", "chunks_per_s")),
        _bars("Time to the first event, 1 connection", "ms, log scale", medians, ("stream_c1", "first_p50_us"), 1e-3),
        Bars(
            "Streams at once without a stall, a delta each 20 ms",
            "streams, log scale",
            {name: float(count) for name, count in stall_free.items() if count},
        ),
    ]


def _measure(result: dict[str, Any], name: str) -> dict[str, Any]:
    """The figures of a further measure; empty where it was not taken."""
    return result.get("measures", {}).get(name) or {}


def _growth(result: dict[str, Any]) -> list[Bars | Curves]:
    """Curves over the number of apps."""
    sizes = _measure(result, "growth").get("sizes", {})
    if len(sizes) < 2:
        return []
    apps = sorted(int(size) for size in sizes)
    ticks = [(math.log10(count), f"{count:,}") for count in apps]
    panels: list[Bars | Curves] = []
    for title, key, unit in (
        ("CPU time of a plain request", "cpu_us_per_request", "microseconds, log scale"),
        ("Plain requests at 32 connections", "per_s", "requests/s, log scale"),
    ):
        points = [(math.log10(count), float(sizes[str(count)][key])) for count in apps]
        panels.append(Curves(title, "apps, with two keys each", unit, ticks, {"penstock": points}))
    return panels


def main() -> int:
    """Exit 0 when it drew, 1 when there is no result to draw."""
    parser = argparse.ArgumentParser(prog="python -m bench.plots", description=__doc__)
    parser.add_argument("result", nargs="?", type=Path, default=_LATEST, help="the result (bench/results/latest.json)")
    parser.add_argument("--to", type=Path, default=FOLDER, help="the folder of the drawings (docs/performance)")
    args = parser.parse_args()
    try:
        result = json.loads(args.result.read_text())
    except OSError as error:
        print(f"bench.plots: {error}; run make bench first", file=sys.stderr)
        return 1
    for path in draw(result, args.to):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
