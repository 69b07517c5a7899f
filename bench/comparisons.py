"""Measures that ask servers side by side as the main rounds do: long prompts, growth, and two workers beside one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench import peers, report, rounds
from bench.contestants import Contestant, Running
from bench.outcome import Outcome, quotient
from bench.peers import penstock

LONG_PROMPT = rounds.Scenario("long_prompt_c8", 8, streamed=False, prompt_bytes=400_000)
PLAIN = rounds.SCENARIOS[1]
STREAM = rounds.SCENARIOS[3]
SPREAD = PLAIN._replace(name="plain_c32_many_keys", spread=True)
# So many apps are asked in turn where all are not the same one.
_ASKED = 1_000
SIZES = (1, 1_000, 10_000, 100_000)


def long_prompts(plan: rounds.Plan, work: Path) -> Outcome:
    """Prompts of 100,000 tokens, 400 KB, 8 at a time: directly, through nginx and through Penstock."""
    contestants = [one for one in peers.ALL if one.name in ("direct", "nginx", "penstock")]
    medians, measured = _medians(contestants, plan, work, [LONG_PROMPT])
    ours, theirs = (_figure(medians, name, LONG_PROMPT, "per_s") for name in ("penstock", "nginx"))
    return _outcome({"medians": medians}, {"long_prompt_vs_nginx": quotient(ours, theirs)}, measured)


def growth(plan: rounds.Plan, work: Path, sizes: Sequence[int] = SIZES) -> Outcome:
    """Plain requests to servers whose databases hold so many apps, with two keys each: with one key, and with the keys
    of 1,000 apps in turn, where there are as many."""
    contestants = [Contestant(str(apps), partial(_grown, apps=apps)) for apps in sizes]
    medians, measured = _medians(contestants, plan, work, [PLAIN, SPREAD])
    taken = {
        name: {key: rows[PLAIN.name][key]["median"] for key in ("cpu_us_per_request", "per_s", "p50_us")}
        for name, rows in medians.items()
        if PLAIN.name in rows
    }
    few, many = (taken.get(str(size), {}) for size in (sizes[0], sizes[-1]))
    ratios = {
        "growth_cpu_many_apps_vs_1": quotient(many.get("cpu_us_per_request"), few.get("cpu_us_per_request")),
        "growth_per_s_many_apps_vs_1": quotient(many.get("per_s"), few.get("per_s")),
    }
    one_key, many_keys = (_figure(medians, str(sizes[-1]), each, "cpu_us_per_request") for each in (PLAIN, SPREAD))
    ratios["many_keys_cpu_vs_one_key"] = quotient(many_keys, one_key)
    return _outcome({"sizes": taken, "medians": medians}, ratios, measured)


def workers(plan: rounds.Plan, work: Path) -> Outcome:
    """CPU time of a request in all processes of a gateway, with one worker and with two."""
    contestants = [
        Contestant(
            f"workers_{count}", partial(penstock.start, extra=f"{penstock.LIMITED}[gateway]\nworkers = {count}\n")
        )
        for count in (1, 2)
    ]
    medians, measured = _medians(contestants, plan, work, [PLAIN, STREAM])
    ratios = {}
    for kind, scenario in (("plain", PLAIN), ("stream", STREAM)):
        two, one = (_figure(medians, f"workers_{count}", scenario, "cpu_us_per_request") for count in (2, 1))
        ratios[f"two_workers_{kind}_cpu_vs_one"] = quotient(two, one)
    return _outcome({"medians": medians}, ratios, measured)


@contextmanager
def _grown(upstream_port: int, work: Path, *, apps: int) -> Iterator[Running]:
    """Penstock over a database that is filled first; the app that is asked comes on top."""
    from bench.listing import Installation  # noqa: PLC0415 - the whole control plane, for this measure alone

    home = work / "home"
    home.mkdir(parents=True)
    keys: list[str] = []
    if apps > 1:
        rounds.say(f"filling a database with {apps:,} apps and {2 * apps:,} keys")
        filled = Installation(home / "penstock.db", home, apps=apps - 1)
        filled.db.close()
        # Those of every second app are on the plan with all models.
        keys = [filled.secrets.get(f"INFERENCE-{number:06d}", "") for number in range(1, 2 * _ASKED, 2)]
    with penstock.start(upstream_port, work) as running:
        own = running.headers["authorization"].removeprefix("Bearer ")
        yield running._replace(keys=(own, *filter(None, keys)))


def _medians(
    contestants: Sequence[Contestant], plan: rounds.Plan, work: Path, scenarios: Sequence[rounds.Scenario]
) -> tuple[dict[str, Any], rounds.Measured]:
    measured = rounds.measure(contestants, plan, work, scenarios)
    return report.medians_of(measured), measured


def _outcome(figures: dict[str, Any], ratios: dict[str, float | None], measured: rounds.Measured) -> Outcome:
    readings = [one for rows in measured.samples.values() for samples in rows.values() for one in samples]
    return Outcome({**figures, "absent": measured.absent}, ratios, readings, measured.absent)


def _figure(medians: dict[str, Any], name: str, scenario: rounds.Scenario, key: str) -> float | None:
    summary = medians.get(name, {}).get(scenario.name, {}).get(key)
    return None if summary is None else float(summary["median"])
