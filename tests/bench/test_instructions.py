"""The regression gate: what a request costs in instructions stays within the recorded budget."""

import os
import subprocess
import sys

import pytest

from bench.instructions import ELSEWHERE, SLACK, allowed
from bench.processes import ROOT
from tests.needs import require_program

BUDGETS = {"CPython 3.11, source": {"plain": 100}, "CPython 3.12, source": {"plain": 200, "governed": 300}}


def test_a_python_that_was_recorded_is_held_to_its_own_budget() -> None:
    assert allowed(BUDGETS, "CPython 3.11, source", "plain") == 100 * (1 + SLACK)


def test_another_python_may_cost_a_quarter_more_than_the_dearest_that_was_recorded() -> None:
    assert allowed(BUDGETS, "CPython 3.13, source", "plain") == 200 * (1 + ELSEWHERE)
    assert allowed(BUDGETS, "CPython 3.11, compiled", "plain") == float("inf")


@pytest.mark.timeout(600)
def test_a_governed_request_stays_within_its_budget_of_instructions() -> None:
    require_program("valgrind")
    command = [sys.executable, "-m", "bench.instructions", "--gate", "--only", "governed"]
    # The source's, also where servers run compiled: those of the tests are compiled without optimising.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
