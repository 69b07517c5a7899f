"""The further measures of a run: what was not taken is null with its reason, and the rest stands beside it."""

from pathlib import Path
from typing import Any

import pytest

from bench.dialogue import Answer, Bare, Through
from bench.engine import RATIOS, gaps
from bench.measures import ALL, LEFT_OUT, NO_TIME, Measure, take, told_of_quick
from bench.outcome import Outcome, quotient
from bench.processes import StartFailed
from bench.report import TARGETS, build, markdown
from bench.rounds import QUICK, SCENARIOS, Measured

MACHINE: dict[str, Any] = {
    "date": "d",
    "cpu": "c",
    "cores": 2,
    "memory_gib": 1,
    "kernel": "k",
    "python": "p",
    "packages": {},
    "commit": "x",
    "load_average_1m": 0.0,
}


def fails(_: Path) -> Outcome:
    raise StartFailed("no weights: the index does not answer")


def works(_: Path) -> Outcome:
    reading = {"foreign": 0.0, "steal": 0.0}
    return Outcome({"sizes": {}}, {"growth_cpu_many_apps_vs_1": 1.01, "lost": None}, [reading], {"nginx": "no root"})


MEASURES = (
    Measure("engine", ("engine_c1_vs_bare",), fails, None),
    Measure("growth", ("growth_cpu_many_apps_vs_1", "lost"), works, works),
)


def result(quick: bool, work: Path) -> dict[str, Any]:
    sample = {"per_s": 5.0, "chunks_per_s": 5.0, "p50_us": 1.0, "p99_us": 2.0, "foreign": 0.0, "steal": 0.0}
    samples = {name: {one.name: [sample] for one in SCENARIOS} for name in ("direct", "nginx", "penstock")}
    measured = Measured(samples, {}, {"litellm": "no wheel", "portkey": "no node"})
    return build(measured, QUICK, MACHINE, take(work, quick=quick, every=MEASURES))


def test_a_measure_that_cannot_be_taken_is_null_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    told = result(quick=False, work=tmp_path)
    assert told["ratios"]["engine_c1_vs_bare"] is None
    assert "the index does not answer" in told["null_because"]["engine_c1_vs_bare"]
    assert told["ratios"]["growth_cpu_many_apps_vs_1"] == 1.01
    assert told["null_because"]["lost"] == "nginx: no root"
    assert told["measures"] == {"engine": None, "growth": {"sizes": {}}}


def test_a_quick_run_says_what_it_leaves_out(tmp_path: Path) -> None:
    assert result(quick=True, work=tmp_path)["null_because"]["engine_c1_vs_bare"] == LEFT_OUT
    assert all(one.name in told_of_quick() for one in ALL)


def test_every_null_ratio_has_a_reason_and_stands_on_the_page(tmp_path: Path) -> None:
    told = result(quick=False, work=tmp_path)
    missing = [name for name, value in told["ratios"].items() if value is None]
    assert sorted(missing) == sorted(set(told["null_because"]) & set(told["ratios"]))
    page = markdown(told)
    assert "Null, litellm: no wheel: " in page
    assert "| engine_c1_vs_bare at least 0.97 | null | not measured |" in page
    assert "| growth_cpu_many_apps_vs_1 at most 1.05 | 1.01 | met |" in page


def test_the_readings_of_a_measure_count_for_the_verdict(tmp_path: Path) -> None:
    def loud(_: Path) -> Outcome:
        return Outcome({}, {"a": 1.0}, [{"foreign": 0.9, "steal": 0.0}] * 50)

    taken = take(tmp_path, quick=False, every=[Measure("loud", ("a",), loud, None)])
    told = build(Measured({"direct": {}}, {}, {}), QUICK, MACHINE, taken)
    assert told["verdict"] is None
    assert "processes outside the run" in told["too_loaded"]


def test_every_target_is_of_a_ratio_that_a_run_can_fill() -> None:
    own = build(Measured({}, {}, {}), QUICK, MACHINE)["ratios"]
    filled = {*own, *(name for one in ALL for name in one.ratios)}
    assert {target.ratio for target in TARGETS} <= filled


def test_a_measure_that_was_not_asked_for_is_null(tmp_path: Path) -> None:
    taken = take(tmp_path, quick=False, names=["growth"], every=MEASURES)
    assert taken.ratios["engine_c1_vs_bare"] is None
    assert "--measures" in taken.null_because["engine_c1_vs_bare"]


def test_a_measure_that_would_begin_too_late_is_left_out(tmp_path: Path) -> None:
    taken = take(tmp_path, quick=True, every=MEASURES, until=0.0)
    assert taken.null_because["growth_cpu_many_apps_vs_1"] == NO_TIME


def test_a_quotient_with_a_missing_side_is_missing() -> None:
    assert quotient(1.0, 4.0) == 0.25
    assert quotient(None, 4.0) is quotient(1.0, None) is quotient(1.0, 0.0) is None


def test_gaps_are_told_apart_by_when_the_long_prompt_came() -> None:
    stream = [0.0, 1.0, 2.0, 3.0, 7.0, 8.0, 9.0]
    calm, during = gaps([stream], calm_from=1.0, sent_at=3.5, first_at=7.5)
    assert (calm, during) == ([1.0, 1.0], [4.0, 1.0])
    with pytest.raises(RuntimeError, match="no stream ran"):
        gaps([[0.0, 1.0]], calm_from=0.0, sent_at=3.0, first_at=4.0)


def test_both_ways_to_the_engine_count_its_tokens_and_refuse_its_errors() -> None:
    bare, through = Bare("/nowhere", "key"), Through(1, {}, "m")
    assert bare.piece({"content": "a"}) == (True, None)
    assert bare.piece({"content": "", "stop": True, "tokens_predicted": 9}) == (False, 9)
    assert through.piece({"choices": [{"delta": {"content": "a"}}]}) == (True, None)
    assert through.piece({"choices": [], "usage": {"completion_tokens": 9}}) == (False, 9)
    for side in (bare, through):
        with pytest.raises(RuntimeError, match="oh no"):
            side.piece({"error": {"message": "oh no"}})
    assert set(RATIOS) >= {"engine_c1_vs_bare", "engine_c16_vs_bare"}
    assert Answer(0.0, [1.0], 1).tokens == 1
