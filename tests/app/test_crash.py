"""Whatever is killed, full or set under load: afterwards the ledger has one entry for each request that was admitted.

PENSTOCK_SOAK=1 does each a hundred times instead of all a few (``make soak``).
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.app.storm import SOAK, Storm, check, storm

pytestmark = pytest.mark.timeout(4 * 3600 if SOAK else 300)
ACTS: dict[str, Callable[[Storm], None]] = {
    "worker": Storm.kill_worker,
    "ledger": Storm.kill_ledger,
    "supervisor": Storm.kill_supervisor,
    "machine": Storm.lose_machine,
    "disk": Storm.fill_disk,
    "clock": Storm.set_clock,
}
# No request is cut off by these: all can be counted exactly.
HARMLESS = {"ledger", "disk", "clock"}
SEVERAL = [["ledger", "disk", "clock", "ledger"], ["worker", "supervisor", "worker", "clock", "machine", "worker"]]
PLANS = [*SEVERAL, *([act] * 100 for act in ACTS)] if SOAK else SEVERAL


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{len(plan)} {'+'.join(dict.fromkeys(plan))}")
def test_whatever_happens_each_admitted_request_has_one_entry(tmp_path: Path, plan: list[str]) -> None:
    with storm(tmp_path) as weather:
        with weather.clients():
            for act in plan:
                weather.wait_for_answers(weather.dice.randrange(60))
                ACTS[act](weather)
            weather.wait_for_answers(20)
        weather.stop()
        entries = check(weather, killed=not HARMLESS.issuperset(plan))
    assert set(weather.refused) <= {503}
    back = any(after.admitted_us < before.admitted_us - 10**9 for before, after in itertools.pairwise(entries))
    assert back == ("clock" in plan)
