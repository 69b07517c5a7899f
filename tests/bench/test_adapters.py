"""The bench of the adapters measures what it says: each adapter answers in both modes, beside pass-through."""

import json
import subprocess
import sys

from bench.adapters import ADAPTERS, report


def test_the_ratios_are_to_pass_through() -> None:
    table = report({"plain": {"openai": 100.0, "gemini": 250.0}, "streamed": {"openai": 1000.0, "gemini": 1500.0}})
    assert table.splitlines()[2:] == ["| openai | 100 | 1.00 | 1000 | 1.00 |", "| gemini | 250 | 2.50 | 1500 | 1.50 |"]


def test_every_adapter_is_measured_in_both_modes() -> None:
    command = [sys.executable, "-m", "bench.adapters", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {mode: tuple(by_adapter) for mode, by_adapter in found.items()} == {"plain": ADAPTERS, "streamed": ADAPTERS}
