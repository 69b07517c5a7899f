"""A machine that goes, a database for two homes, a backup with a journal beside it, a clock that is set: the ledger
has one entry for each request that was admitted.

PENSTOCK_SOAK=1 does it many times instead of once (``make soak``).
"""

import contextlib
import itertools
import mmap
import os
import shutil
import struct
from pathlib import Path

import pytest

from tests.app.storm import SOAK, Storm, blowing, check, read_ledger, storm, upstream_double
from tests.postgres import Postgres

pytestmark = pytest.mark.timeout(7200 if SOAK else 300)
# Names as workers give them, but for the last.
GARBAGE = (
    "00000000000000000001-7-00ff00ff-000001.journal",
    "00000000000000000002-7-00ff00ff-000001.journal",
    "00000000000000000003-7-00ff00ff-000001.journal",
    "notes.journal",
)


def litter(journal: Path) -> set[str]:
    """Puts garbage beside the workers' files, torn records behind them; the names of what nobody may touch."""
    for file in journal.glob("*.journal"):
        with file.open("ab") as out:
            out.write(file.read_bytes()[:40])
    folder, link, noise, other = (journal / name for name in GARBAGE)
    folder.mkdir()
    link.symlink_to("nowhere")
    noise.write_bytes(os.urandom(300_000))
    other.write_text("mine")
    return {folder.name, link.name, other.name}


def test_after_all_is_killed_at_once_another_configuration_brings_everything(tmp_path: Path) -> None:
    with storm(tmp_path) as weather:
        mine: set[str] = set()
        for number in range(100 if SOAK else 2):
            with weather.clients():
                weather.wait_for_answers(weather.dice.randrange(120))
                weather.kill_all()
            mine = mine or litter(weather.home / "journal")
            weather.start(workers=1 + number % 3, price=1 + number % 2)
        weather.stop()
        for path in (weather.home / "journal" / name for name in mine):
            path.rmdir() if path.is_dir() else path.unlink()
        check(weather, killed=True)


def test_two_homes_on_one_database_ship_side_by_side(own_postgres: Postgres, tmp_path: Path) -> None:
    url = own_postgres.new_database(migrated=False)
    more = f'[secrets]\nmaster_key_file = "{tmp_path}/master.key"\n'
    with upstream_double() as (upstream, double):
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
        one, other = (Storm(tmp_path / name, upstream, double, url=url, more=more) for name in ("one", "other"))
        with blowing(one, other):
            with one.clients(3), other.clients(3):
                for _ in range(20 if SOAK else 1):
                    one.wait_for_answers(20)
                    one.kill_worker()
                    other.kill_ledger()
                    other.wait_for_answers(20)
                    one.kill_supervisor()
                    other.kill_worker()
                one.wait_for_answers(20)
            one.stop()
            other.stop()
            check(one, other, killed=True)


def test_a_server_that_ends_without_its_database_leaves_its_journal_to_the_next(
    own_postgres: Postgres, tmp_path: Path
) -> None:
    with storm(tmp_path, url=own_postgres.new_database(migrated=False)) as weather:
        for _ in range(10 if SOAK else 1):
            with weather.clients():
                weather.wait_for_answers(50)
                own_postgres.stop()
                weather.wait_for_answers(50)
            weather.stop(shipped=False)
            assert list((weather.home / "journal").iterdir())
            own_postgres.start()
            weather.start()
        weather.stop()
        check(weather, killed=False)


def test_a_backup_and_the_journal_beside_it_make_no_entry_twice(tmp_path: Path) -> None:
    """The journal is copied while it is written, and before the backup: what is gone from it is in the backup."""
    with storm(tmp_path) as weather:
        kept = tmp_path / "kept"
        kept.mkdir()
        with weather.clients():
            weather.wait_for_answers(200)
            whole = dict(weather.whole)
            for file in (weather.home / "journal").glob("*.journal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy(file, kept)
            weather.wait_for_answers(50)
            weather.server.cli("backup", str(tmp_path / "backup.db"))
            weather.wait_for_answers(50)
            weather.kill_all()
        shutil.rmtree(weather.home / "journal")
        kept.rename(weather.home / "journal")
        weather.server.cli("restore", str(tmp_path / "backup.db"), "--force", "--confirm", "penstock.db")
        weather.start()
        weather.stop(shipped=False)
        assert not list((weather.home / "journal").iterdir())
        told = {entry.request_id: entry.usage.input_tokens for entry in read_ledger(weather)}
    assert {request_id: told.get(request_id) for request_id in whole} == whole


def test_a_clock_that_is_set_back_and_forth_changes_no_entry(tmp_path: Path) -> None:
    """By what Python's processes take for the time: a real clock is not a test's to set."""
    offset = tmp_path / "offset"
    offset.write_bytes(struct.pack("d", 0.0))
    path = os.pathsep.join([str(Path(__file__).with_name("clock")), os.environ.get("PYTHONPATH", "")])
    environ = {"TESTS_CLOCK": str(offset), "PYTHONPATH": path}
    with offset.open("r+b") as file, mmap.mmap(file.fileno(), 8) as clock, storm(tmp_path, environ=environ) as weather:
        with weather.clients():
            for step in (-3600.0, 60.0, -7200.0, 0.0) * (10 if SOAK else 1):
                weather.wait_for_answers(40)
                struct.pack_into("d", clock, 0, step)
                weather.wait_for_answers(40)
                weather.kill_worker()
            weather.wait_for_answers(40)
        weather.stop()
        entries = check(weather, killed=True)
    assert any(after.admitted_us < before.admitted_us - 10**9 for before, after in itertools.pairwise(entries))
