"""From the journal to the ledger: one entry for each admitted request, whatever was cut off where."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.domain.ledger import LedgerEntry
from penstock.ledger.journal import Journal, read_journal
from penstock.ledger.records import Admitted, Progress, Record, Settled
from penstock.ledger.shipper import Shipper
from penstock.store.database import Database
from penstock.store.metering.ledger import LedgerStore
from penstock.store.metering.spending import add_spent
from penstock.store.metering.verify import verify
from tests.sqlite import new_sqlite


def admitted(number: int) -> Admitted:
    return Admitted(
        request_id=f"req_{number}", admitted_at=1_700_000_000.5 + number, key_id="key", key_prefix="inf-abc",
        app_id="app", app_name="shop", addon_id="addon", attachment_id="attachment", model="model", asked="m",
        stream=False,
    )  # fmt: skip


def settled(number: int, kind: type[Settled] = Settled, *, output: int = 7) -> Settled:
    return kind(
        request_id=f"req_{number}", settled_at=1_700_000_001.5 + number, outcome="completed", provider="p",
        target_model="m", stand_in=None, input_tokens=5, output_tokens=output, cached_input_tokens=0, estimated=False,
        first_event_ms=1.0, total_ms=2.0, amount_nanos=output * 10, price_version="0123456789abcdef",
    )  # fmt: skip


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return new_sqlite(tmp_path / "penstock.db")


def ship(folder: Path, db: Database) -> list[LedgerEntry]:
    """Everything that there is, by a shipper that has just been started; the whole ledger."""
    store = LedgerStore(db, spend=add_spent)
    shipper = Shipper(folder, store)
    # The second one sees what became of the first one's workers.
    for _ in range(2):
        while shipper.round(last=True):
            pass
    return store.entries()


def test_a_live_workers_settled_requests_are_shipped_and_its_file_stays(tmp_path: Path, db: Database) -> None:
    journal = Journal(tmp_path / "journal")
    for record in (admitted(1), settled(1), admitted(2)):
        journal.append(record)
    assert [entry.request_id for entry in ship(tmp_path / "journal", db)] == ["req_1"]
    journal.append(settled(2))
    assert [entry.request_id for entry in ship(tmp_path / "journal", db)] == ["req_1", "req_2"]
    assert len(list((tmp_path / "journal").iterdir())) == 1
    journal.close()
    ship(tmp_path / "journal", db)
    assert not list((tmp_path / "journal").iterdir())


def test_what_a_dead_worker_left_open_is_settled_from_what_is_known(tmp_path: Path, db: Database) -> None:
    journal = Journal(tmp_path / "journal")
    for record in (admitted(1), admitted(2), settled(2, Progress, output=3), settled(2, Progress, output=4)):
        journal.append(record)
    journal.close()
    nothing, half = ship(tmp_path / "journal", db)
    assert (nothing.outcome, nothing.usage.output_tokens, nothing.amount_nanos) == ("interrupted", 0, 0)
    assert (half.outcome, half.usage.output_tokens, half.amount_nanos) == ("interrupted", 4, 40)
    assert verify(db).faults == ()


def test_rotated_files_go_when_nothing_in_them_is_open(tmp_path: Path, db: Database) -> None:
    folder = tmp_path / "journal"
    journal = Journal(folder, rotate_bytes=4096)
    journal.append(admitted(0))
    for number in range(1, 60):
        journal.append(admitted(number))
        journal.append(settled(number))
    assert len(list(folder.iterdir())) > 2
    assert len(ship(folder, db)) == 59
    kept = sorted(folder.iterdir())
    assert len(kept) == 2  # the one with the open admission, and the live one
    journal.append(settled(0))
    assert len(ship(folder, db)) == 60
    # A shipper that started in between cannot know whose the settlements were whose file is gone: it keeps theirs.
    assert len(list(folder.iterdir())) <= 2
    journal.close()
    ship(folder, db)
    assert not list(folder.iterdir())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), cut=st.integers(0, 20_000), restarts=st.integers(1, 3))
def test_every_admission_that_reached_the_disk_has_one_entry(
    tmp_path_factory: pytest.TempPathFactory, seed: int, cut: int, restarts: int
) -> None:
    """Whatever the order, wherever the last file is torn, however often the shipper starts again."""
    home = tmp_path_factory.mktemp("any")
    db = new_sqlite(home / "penstock.db")
    dice, waiting, records = random.Random(seed), [*range(12)], list[Record]()
    open_: list[int] = []
    while waiting or open_:
        if waiting and (not open_ or dice.random() < 0.5):
            open_.append(waiting.pop())
            records.append(admitted(open_[-1]))
        elif dice.random() < 0.8:
            records.append(settled(open_.pop(dice.randrange(len(open_)))))
        else:
            records.append(settled(dice.choice(open_), Progress))
    journal = Journal(home / "journal", rotate_bytes=4096)
    for record in records[: dice.randrange(len(records) + 1)]:
        journal.append(record)
    journal.close()
    files = sorted((home / "journal").iterdir())
    if files:
        last = files[-1].read_bytes()
        files[-1].write_bytes(last[: min(cut, len(last))])
    there = [record for file in files for record in read_journal(file)]
    wanted = {record.request_id for record in there if isinstance(record, Admitted)}
    done = {record.request_id for record in there if type(record) is Settled}
    for _ in range(restarts):
        entries = ship(home / "journal", db)
    assert sorted(entry.request_id for entry in entries) == sorted(wanted)
    assert {entry.request_id for entry in entries if entry.outcome == "completed"} == done & wanted
    assert verify(db).faults == ()
    db.close()


def test_damage_in_the_middle_loses_no_record_behind_it(tmp_path: Path, db: Database) -> None:
    folder = tmp_path / "journal"
    journal = Journal(folder)
    for number in range(10):
        journal.append(admitted(number))
        journal.append(settled(number))
    journal.close()
    (file,) = folder.iterdir()
    data = bytearray(file.read_bytes())
    at = data.index(b"req_4")
    data[at : at + 5] = b"?????"
    file.write_bytes(data)
    found = {entry.request_id for entry in ship(folder, db)}
    assert found >= {f"req_{number}" for number in range(10) if number != 4}
    assert verify(db).faults == ()
