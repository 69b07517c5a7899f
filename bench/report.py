"""Makes medians, spreads, ratios and the verdict of a run, as JSON and as Markdown."""

import math
import statistics
from typing import Any, NamedTuple

from bench.machine import too_loaded
from bench.rounds import SCENARIOS, Measured, Measurement, Plan

GATEWAY = "penstock"
PEERS = ("nginx", "litellm", "portkey")
_UNITS = {"plain": "per_s", "stream": "chunks_per_s"}


class Target(NamedTuple):
    """A promise about one ratio: at least, or at most."""

    ratio: str
    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:
        """Whether the value keeps it."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def text(self) -> str:
        """The promise in words."""
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"


TARGETS = (
    Target("plain_c32_vs_nginx", at_least=0.33),
    Target("plain_c32_vs_litellm", at_least=120),
    Target("plain_c32_vs_portkey", at_least=8),
    Target("plain_c1_added_p50_ms", at_most=0.2),
    Target("plain_c1_added_p99_ms", at_most=1),
    Target("stream_chunks_vs_nginx", at_least=0.25),
    Target("stream_chunks_vs_litellm", at_least=100),
    Target("stream_chunks_vs_portkey", at_least=5),
    Target("stream_c1_added_first_byte_p50_ms", at_most=0.3),
    Target("stall_free_vs_direct", at_least=0.75),
    Target("long_prompt_vs_nginx", at_least=0.5),
    Target("growth_cpu_many_apps_vs_1", at_most=1.05),
    Target("growth_per_s_many_apps_vs_1", at_least=0.95),
    Target("two_workers_plain_cpu_vs_one", at_most=1.1),
    Target("two_workers_stream_cpu_vs_one", at_most=1.1),
    Target("idle_worker_rss_mib", at_most=60),
    Target("start_to_ready_ms", at_most=500),
    Target("version_ms", at_most=100),
    Target("engine_c1_vs_bare", at_least=0.97),
    Target("engine_c8_vs_bare", at_least=0.95),
    Target("engine_c16_vs_bare", at_least=0.95),
    Target("engine_ttft_warm_vs_cold", at_most=0.5),
    Target("engine_gap_growth_long_prompt", at_most=2),
)


class Further(NamedTuple):
    """What the further measures gave (bench.measures): figures by measure, ratios, why some are None, and readings of
    the machine."""

    figures: dict[str, Any]
    ratios: dict[str, float | None]
    null_because: dict[str, str]
    readings: list[Measurement]


NOTHING = Further({}, {}, {}, [])


def build(measured: Measured, plan: Plan, machine: dict[str, Any], further: Further = NOTHING) -> dict[str, Any]:
    """The whole result, as bench/results/latest.json holds it."""
    medians = medians_of(measured)
    own = _ratios(medians)
    because = {name: _reason(name, measured.absent) for name, value in own.items() if value is None}
    ratios = own | further.ratios
    every = [one for rows in measured.samples.values() for samples in rows.values() for one in samples]
    every += further.readings
    quiet = too_loaded(float(machine["load_average_1m"]), [s["foreign"] for s in every], [s["steal"] for s in every])
    return {
        "machine": machine,
        "plan": plan._asdict(),
        "versions": measured.versions,
        "absent": measured.absent,
        "medians": medians,
        "ratios": ratios,
        "measures": further.figures,
        "null_because": because | further.null_because,
        "too_loaded": quiet,
        "verdict": None if quiet else _verdict(ratios),
    }


def medians_of(measured: Measured) -> dict[str, Any]:
    """Every figure of every contestant and scenario, summarised."""
    return {
        name: {scenario: summarised(samples) for scenario, samples in by_scenario.items() if samples}
        for name, by_scenario in measured.samples.items()
    }


def summarised(samples: list[Measurement]) -> dict[str, dict[str, float]]:
    """Median, least and most over the rounds, for every figure."""
    summary = {}
    for key in samples[0]:
        values = [sample[key] for sample in samples if not math.isnan(sample[key])]
        if values:
            median = statistics.median(values)
            summary[key] = {"median": round(median, 4), "min": round(min(values), 4), "max": round(max(values), 4)}
    return summary


def _ratios(medians: dict[str, Any]) -> dict[str, float | None]:
    ratios: dict[str, float | None] = {}
    for scenario in SCENARIOS:
        unit = _UNITS["stream" if scenario.streamed else "plain"]
        label = f"stream_chunks_c{scenario.connections}" if scenario.streamed else scenario.name
        ours = _median(medians, GATEWAY, scenario.name, unit)
        for peer in PEERS:
            theirs = _median(medians, peer, scenario.name, unit)
            ratios[f"{label}_vs_{peer}"] = None if ours is None or not theirs else round(ours / theirs, 4)
    for name in (GATEWAY, *PEERS):
        prefix = "" if name == GATEWAY else f"{name}_"
        for label, scenario_name, key in (
            ("plain_c1_added_p50_ms", "plain_c1", "p50_us"),
            ("plain_c1_added_p99_ms", "plain_c1", "p99_us"),
            ("stream_c1_added_first_byte_p50_ms", "stream_c1", "first_p50_us"),
        ):
            with_it = _median(medians, name, scenario_name, key)
            direct = _median(medians, "direct", scenario_name, key)
            ratios[prefix + label] = None if with_it is None or direct is None else round((with_it - direct) / 1e3, 4)
    for peer in PEERS:
        ratios[f"stream_chunks_vs_{peer}"] = ratios[f"stream_chunks_c32_vs_{peer}"]
    return ratios


def _reason(ratio: str, absent: dict[str, str]) -> str:
    """Why a ratio is null: the contestant that it needs is absent, or its answers were not valid."""
    needed = [peer for peer in PEERS if peer in ratio]
    if not ratio.startswith(PEERS):
        needed.append(GATEWAY)
    return "; ".join(f"{name}: {absent[name]}" for name in needed if name in absent) or "no valid measurement"


def _median(medians: dict[str, Any], name: str, scenario: str, key: str) -> float | None:
    summary = medians.get(name, {}).get(scenario, {}).get(key)
    return None if summary is None else float(summary["median"])


def _verdict(ratios: dict[str, float | None]) -> dict[str, str]:
    verdict = {}
    for target in TARGETS:
        value = ratios.get(target.ratio)
        told = "not measured" if value is None else ("met" if target.met(value) else "missed")
        verdict[target.ratio] = told
    return verdict


def markdown(result: dict[str, Any]) -> str:
    """The result as a page: machine, a table per scenario, ratios, verdict."""
    machine = result["machine"]
    packages = ", ".join(f"{name} {found}" for name, found in machine["packages"].items())
    versions = ", ".join(f"{name} {found}" for name, found in result["versions"].items() if name != "direct")
    plan = result["plan"]
    lines = [
        f"Taken {machine['date']} at commit {machine['commit']} on {machine['cores']} cores of {machine['cpu']}, "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel']}, Python {machine['python']}; {packages}.",
        f"Compared: {versions}. Medians of {plan['rounds']} interleaved rounds of {plan['duration_s']:g} s, "
        "least and most in brackets; load generator and upstream double share the machine.",
        "",
    ]
    for scenario in SCENARIOS:
        lines += _table(scenario.name, streamed=scenario.streamed, medians=result["medians"])
    lines += ["| ratio or difference | value |", "|---|--:|"]
    for name, value in result["ratios"].items():
        lines.append(f"| {name} | {'null' if value is None else f'{value:.3g}'} |")
    lines += ["", *_absent_lines(result), "", *_verdict_lines(result)]
    return "\n".join(lines) + "\n"


def _table(name: str, *, streamed: bool, medians: dict[str, Any]) -> list[str]:
    rate = ("chunks_per_s", "chunks/s") if streamed else ("per_s", "req/s")
    columns = [rate, ("p50_us", "p50 us"), ("p90_us", "p90 us"), ("p99_us", "p99 us")]
    if streamed:
        columns.append(("first_p50_us", "first byte p50 us"))
    columns.append(("cpu_us_per_request", "CPU us/request"))
    lines = [f"**{name}**", "", f"| | {' | '.join(title for _, title in columns)} |", "|---|" + "--:|" * len(columns)]
    for contestant, by_scenario in medians.items():
        summary = by_scenario.get(name)
        if summary:
            lines.append(f"| {contestant} | {' | '.join(_cell(summary.get(key)) for key, _ in columns)} |")
    return [*lines, ""]


def _cell(summary: dict[str, float] | None) -> str:
    if summary is None:
        return "-"
    return f"{summary['median']:,.0f} ({summary['min']:,.0f}-{summary['max']:,.0f})"


def _absent_lines(result: dict[str, Any]) -> list[str]:
    """Why what is null is null, the names with one reason together."""
    names: dict[str, list[str]] = {}
    for name, reason in result["null_because"].items():
        names.setdefault(reason, []).append(name)
    absent = [f"Absent: {name}: {reason}" for name, reason in result["absent"].items()]
    return [*absent, *(f"Null, {reason}: {', '.join(each)}." for reason, each in names.items())]


def _verdict_lines(result: dict[str, Any]) -> list[str]:
    if result["too_loaded"]:
        return [f"No verdict, the figures are provisional: {result['too_loaded']}."]
    told = result["verdict"]
    lines = ["| target | value | |", "|---|--:|---|"]
    for target in TARGETS:
        value = result["ratios"].get(target.ratio)
        shown = "null" if value is None else f"{value:.3g}"
        lines.append(f"| {target.ratio} {target.text()} | {shown} | {told[target.ratio]} |")
    return lines
