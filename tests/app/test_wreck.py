"""A database that is away, two homes on one, a backup with a journal beside it: the ledger has one entry for each
request that was admitted.

PENSTOCK_SOAK=1 is away for a minute each time, and kills beside it (``make soak``).
"""

import contextlib
import shutil
import time
from pathlib import Path

import pytest

from tests.app.storm import SOAK, Storm, blowing, check, read_ledger, storm, upstream_double
from tests.postgres import Postgres

pytestmark = pytest.mark.timeout(4 * 3600 if SOAK else 300)
AWAY_S = 60.0 if SOAK else 0.0


def leave(postgres: Postgres, *storms: Storm) -> None:
    """The database goes, and requests go on."""
    postgres.stop()
    back_at = time.monotonic() + AWAY_S
    for weather in storms:
        weather.wait_for_answers(100)
        weather.wait_for(lambda: time.monotonic() >= back_at, "a minute")


@pytest.mark.parametrize(
    "killed", [False, True] if SOAK else [False], ids=lambda killed: "killed" if killed else "whole"
)
def test_two_homes_on_one_database_that_is_away_ship_all_side_by_side(
    own_postgres: Postgres, tmp_path: Path, killed: bool
) -> None:
    """One of the servers ends while the database is away, and leaves its journal to the next."""
    url = own_postgres.new_database(migrated=False)
    more = f'[secrets]\nmaster_key_file = "{tmp_path}/master.key"\n'
    with upstream_double() as (upstream, double):
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
        one, other = (Storm(tmp_path / name, upstream, double, url=url, more=more) for name in ("one", "other"))
        with blowing(one, other):
            for _ in range(5 if SOAK else 1):
                with one.clients(3), other.clients(3):
                    one.wait_for_answers(20)
                    other.kill_ledger()
                    if killed:
                        one.kill_worker()
                        one.kill_supervisor()
                        # A worker that knows no key yet cannot look one up while the database is away.
                        one.wait_for_answers(100)
                    leave(own_postgres, one, other)
                    if killed:
                        other.strike_worker()
                one.stop(shipped=False)
                assert list((one.home / "journal").iterdir())
                own_postgres.start()
                with other.clients():
                    one.start()
                    other.wait_for_answers(20)
            one.stop()
            other.stop()
            check(one, other, killed=killed)


def test_a_backup_and_the_journal_beside_it_make_no_entry_twice(tmp_path: Path) -> None:
    """The journal is copied while it is written, and before the backup: what is gone from it is in the backup."""
    with storm(tmp_path) as weather:
        kept = tmp_path / "kept"
        kept.mkdir()
        with weather.clients():
            weather.wait_for_answers(100)
            whole = dict(weather.whole)
            for file in (weather.home / "journal").glob("*.journal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy(file, kept)
            weather.wait_for_answers(20)
            weather.server.cli("backup", str(tmp_path / "backup.db"))
            weather.wait_for_answers(20)
            weather.kill_all()
        shutil.rmtree(weather.home / "journal")
        kept.rename(weather.home / "journal")
        weather.server.cli("restore", str(tmp_path / "backup.db"), "--force", "--confirm", "penstock.db")
        weather.start()
        weather.stop(shipped=False)
        assert not list((weather.home / "journal").iterdir())
        told = {entry.request_id: entry.usage.input_tokens for entry in read_ledger(weather)}
    assert {request_id: told.get(request_id) for request_id in whole} == whole
