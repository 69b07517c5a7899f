"""The benches of governance: what they conclude from what they measured, and that they run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.governance import build, markdown
from bench.memory import build as build_memory
from bench.memory import growth
from bench.processes import ROOT
from bench.rounds import QUICK, SCENARIOS, Measured

QUIET: dict[str, Any] = {"load_average_1m": 0.0}


def result(governed: float, load: float = 0.0) -> dict[str, Any]:
    def sample(rate: float) -> dict[str, float]:
        kinds = {"per_s": rate, "chunks_per_s": rate, "cpu_us_per_request": 1.0, "rest_s": 0.0}
        return kinds | {"foreign": 0.0, "steal": 0.0}

    rates = {"governed": governed, "free": 100.0}
    samples = {name: {one.name: [sample(rate)] * 3 for one in SCENARIOS} for name, rate in rates.items()}
    return build(Measured(samples, {}, {}), SCENARIOS, QUICK, {"load_average_1m": load})


def test_the_target_is_a_share_of_the_same_server_without() -> None:
    assert (result(85.0)["ratios"]["plain_c32"], result(85.0)["verdict"]) == (0.85, "met")
    assert result(84.9)["verdict"] == "missed"


def test_a_loaded_machine_gets_no_verdict_on_governance() -> None:
    loaded = result(99.0, load=50.0)
    assert loaded["verdict"] is None
    assert "No verdict" in markdown(loaded)


def test_growth_is_counted_after_the_warm_up() -> None:
    assert growth([10, *[100] * 99]) == 0.0
    assert growth([10] * 10 + [100] * 80 + [106] * 10) == pytest.approx(0.06)
    sizes = {"sizes_kib": {"worker 1": [100] * 90 + [106] * 10, "process 2": [100] * 100}, "sent": 1}
    assert build_memory(sizes, QUIET)["verdict"] == "missed"
    assert build_memory({"sizes_kib": {"worker 1": [100] * 100}, "sent": 1}, QUIET)["verdict"] == "met"


def test_a_process_that_has_ended_is_no_flat_one() -> None:
    assert build_memory({"sizes_kib": {"ended 7": [100] * 50 + [0] * 50}, "sent": 1}, QUIET)["verdict"] == "missed"


def test_the_memory_of_every_process_is_looked_at(tmp_path: Path) -> None:
    to = tmp_path / "memory.json"
    command = [sys.executable, "-m", "bench.memory", "--count", "500", "--workers", "1", "--to", str(to)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(to.read_text())
    assert found["sent"] >= 500
    assert "worker 1" in found["sizes_kib"]
    assert all(len(sizes) == 100 for sizes in found["sizes_kib"].values())
