"""Whatever is killed under load: afterwards the ledger has one entry for each request that was admitted.

PENSTOCK_SOAK=1 kills a hundred times each instead of a few (``make soak``).
"""

import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.app.storm import SOAK, Storm, check, storm
from tests.postgres import Postgres

ROUNDS = 100 if SOAK else 3
pytestmark = pytest.mark.timeout(7200 if SOAK else 300)


@pytest.mark.parametrize(
    ("kill", "rounds", "killed"),
    [
        (Storm.kill_worker, ROUNDS, True),
        (Storm.kill_ledger, ROUNDS, False),
        (Storm.kill_supervisor, ROUNDS if SOAK else 2, True),
    ],
    ids=["worker", "ledger", "supervisor"],
)
def test_after_kills_each_admitted_request_has_one_entry(
    tmp_path: Path, kill: Callable[[Storm], None], rounds: int, killed: bool
) -> None:
    with storm(tmp_path) as weather:
        with weather.clients():
            for _ in range(rounds):
                weather.wait_for_answers(weather.dice.randrange(60))
                kill(weather)
            weather.wait_for_answers(20)
        weather.stop()
        check(weather, killed=killed)


def test_a_database_that_is_away_for_a_while_is_caught_up(own_postgres: Postgres, tmp_path: Path) -> None:
    with storm(tmp_path, url=own_postgres.new_database(migrated=False)) as weather:
        with weather.clients():
            for _ in range(3 if SOAK else 1):
                weather.wait_for_answers(50)
                own_postgres.stop()
                back_at = time.monotonic() + (60 if SOAK else 0)
                weather.wait_for_answers(300)
                weather.wait_for(lambda: time.monotonic() >= back_at, "a minute")  # noqa: B023
                own_postgres.start()
            weather.wait_for_answers(50)
        weather.stop()
        check(weather, killed=False)


def test_a_full_disk_refuses_requests_and_the_ledger_goes_on(tmp_path: Path) -> None:
    """A limit on the size of files stands for it: nobody who has reached it can write on, and the first write that
    reaches it is cut."""
    with storm(tmp_path) as weather:
        for _ in range(10 if SOAK else 1):
            refused = weather.refused[503]
            with weather.clients():
                weather.wait_for_answers(50)
                workers = weather.workers()
                before = [resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY)) for pid in workers]
                weather.wait_for(lambda: weather.refused[503] > refused + 50, "refusals")  # noqa: B023
                for pid, limits in zip(workers, before, strict=True):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
                weather.wait_for_answers(50)
            assert weather.workers() == workers
        weather.stop()
        check(weather, killed=False)
    assert set(weather.refused) == {503}
