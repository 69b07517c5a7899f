"""The shipper where something dies, is away or was written by an older version: exactly one entry for each request."""

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.chain import Values
from penstock.domain.errors import PenstockError
from penstock.ledger.journal import Journal
from penstock.ledger.records import Leg, Progress, Record
from penstock.ledger.shipper import Shipper
from penstock.store.database import Database
from penstock.store.metering.ledger import Appended, LedgerStore
from penstock.store.metering.verify import verify
from tests.gateway.lab import Clock
from tests.ledger.entries import admitted, settled
from tests.postgres import Postgres
from tests.sqlite import new_sqlite


class Faulty:
    """A ledger that may end every call by an exception, before or after it is done: a kill, as far as is written."""

    def __init__(self, store: LedgerStore, faults: Iterator[str]) -> None:
        self._store = store
        self._faults = faults
        self.calls: list[tuple[str, Mapping[str, Sequence[str]]]] = []
        self.released: list[str] = []

    def append_said(self, entries: Sequence[Values], /, *, holder: str, money: Mapping[str, Sequence[str]]) -> Appended:
        self.calls.append((holder, dict(money)))
        fault = next(self._faults, "")
        if fault == "before":
            raise PenstockError("store_unavailable", "away")
        appended = self._store.append_said(entries, holder=holder, money=money)
        if fault == "after":
            raise PenstockError("store_unavailable", "away")
        return appended

    def known(self, requests: Sequence[str], /) -> set[str]:
        return self._store.known(requests)

    def release(self, holder: str, /) -> None:
        self.released.append(holder)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LedgerStore]:
    db = new_sqlite(tmp_path / "penstock.db")
    yield LedgerStore(db)
    assert verify(db).faults == ()
    db.close()


def faulty(store: LedgerStore, *faults: str) -> Faulty:
    """A ledger whose first calls end so."""
    return Faulty(store, iter(faults))


def ship(shipper: Shipper) -> None:
    """Until all is shipped that is there."""
    while shipper.round(last=True):
        pass


def written(folder: Path, records: Sequence[Record], *, rotate_bytes: int = 1 << 20) -> Journal:
    """A worker that has written these."""
    journal = Journal(folder, rotate_bytes=rotate_bytes)
    for record in records:
        journal.append(record)
    return journal


def shipped(store: LedgerStore) -> dict[str, str]:
    """The outcome by request; fails where one has two entries."""
    entries = store.entries(limit=100_000)
    found = {entry.request_id: entry.outcome for entry in entries}
    assert len(found) == len(entries)
    return found


_either: st.SearchStrategy[bool] = st.booleans()


@st.composite
def _histories(draw: st.DrawFn) -> list[list[Record]]:
    """What some workers write: requests that overlap as they like, some of them noted, some never settled."""
    histories = []
    workers: int = draw(st.integers(1, 3))
    for worker in range(workers):
        history: list[Record] = []
        open_: list[int] = []
        requests: int = draw(st.integers(0, 30))
        for number in range(requests):
            request = 1000 * worker + number
            history.append(admitted(request, asked="x" * draw(st.sampled_from([1, 200]))))
            open_.append(request)
            while bool(open_) and draw(_either):
                one: int = draw(st.sampled_from(open_))
                if draw(_either):
                    history.append(settled(one, kind=Progress, output_tokens=3))
                else:
                    open_.remove(one)
                    history.append(settled(one))
        histories.append(history)
    return histories


@settings(max_examples=60, deadline=None)
@given(histories=_histories(), data=st.data())
def test_whatever_dies_wherever_each_admission_has_one_entry(
    tmp_path_factory: pytest.TempPathFactory,
    histories: list[list[Record]],
    data: st.DataObject,
) -> None:
    """Workers write by turns, the ledger fails or dies at any call, the shipper is started again at any time, workers
    die at any record with a torn one behind it."""
    home = tmp_path_factory.mktemp("home")
    db = new_sqlite(home / "penstock.db")
    folder, store = home / "journal", LedgerStore(db)
    faults = st.sampled_from(["", "", "before", "after"])
    ledger = Faulty(store, iter(lambda: data.draw(faults), None))
    shipper = Shipper(folder, ledger)
    journals = [Journal(folder, rotate_bytes=4096) for _ in histories]
    lengths = [data.draw(st.integers(0, len(history))) for history in histories]
    left = [list(history[:length]) for history, length in zip(histories, lengths, strict=True)]
    while any(left):
        number = data.draw(st.sampled_from([number for number, records in enumerate(left) if records]))
        for _ in range(data.draw(st.integers(1, 20))):
            if left[number]:
                journals[number].append(left[number].pop(0))
        if data.draw(st.booleans()):
            shipper = Shipper(folder, ledger)
        try:
            shipper.round(last=True)
        except PenstockError:
            continue
    for journal in journals:
        torn = data.draw(st.binary(max_size=30))
        os.write(journal._fd, torn)
        os.close(journal._fd)
    ship(Shipper(folder, faulty(store)))
    found = shipped(store)
    records = [record for history, length in zip(histories, lengths, strict=True) for record in history[:length]]
    done = {record.request_id for record in records if type(record).__name__ == "Settled"}
    noted = {record.request_id for record in records if isinstance(record, Progress)} - done
    wanted = {record.request_id: "completed" if record.request_id in done else "interrupted" for record in records}
    assert found == wanted
    tokens = {entry.request_id: entry.usage.output_tokens for entry in store.entries(limit=1000)}
    assert tokens == {one: 20 if one in done else 3 if one in noted else 0 for one in wanted}
    assert {entry.key_id for entry in store.entries(limit=1000)} <= {"key"}
    assert verify(db).faults == ()
    assert not list(folder.iterdir())
    db.close()


def test_a_database_that_is_away_loses_nothing_and_is_caught_up(tmp_path: Path, store: LedgerStore) -> None:
    folder = tmp_path / "journal"
    journal = written(folder, [admitted(1), settled(1)])
    shipper = Shipper(folder, faulty(store, "before", "before"))
    for number in (2, 3):
        with pytest.raises(PenstockError):
            shipper.round()
        journal.append(admitted(number))
        journal.append(settled(number))
    ship(shipper)
    assert shipped(store) == dict.fromkeys(("req_1", "req_2", "req_3"), "completed")
    journal.close()


def test_a_postgresql_that_stops_and_starts_is_caught_up(own_postgres: Postgres, tmp_path: Path) -> None:
    db = Database.open(own_postgres.new_database(), home=tmp_path)
    journal = written(tmp_path / "journal", [admitted(1), settled(1)])
    shipper = Shipper(tmp_path / "journal", LedgerStore(db))
    ship(shipper)
    own_postgres.stop()
    journal.append(admitted(2))
    journal.append(settled(2))
    with pytest.raises(PenstockError):
        shipper.round()
    own_postgres.start()
    ship(shipper)
    journal.close()
    ship(shipper)
    assert [entry.request_id for entry in LedgerStore(db).entries()] == ["req_1", "req_2"]
    assert verify(db).faults == ()
    db.close()


def test_a_live_workers_files_are_not_touched_while_one_beside_them_is_recovered(
    tmp_path: Path, store: LedgerStore
) -> None:
    folder = tmp_path / "journal"
    alive, dead = written(folder, [admitted(1)]), written(folder, [admitted(2)])
    dead.close()
    ledger = faulty(store)
    shipper = Shipper(folder, ledger)
    ship(shipper)
    assert shipped(store) == {"req_2": "interrupted"}
    assert ledger.released == [dead.holder]
    assert not shipper.idle
    alive.append(settled(1))
    alive.close()
    ship(shipper)
    assert shipped(store) == {"req_2": "interrupted", "req_1": "completed"}
    shipper.round()
    assert shipper.idle


def test_files_of_older_versions_are_entered_whatever_the_clock_did(tmp_path: Path, store: LedgerStore) -> None:
    """The settlement stands in a file whose name is earlier: the clock was set back before the file was begun."""
    folder = tmp_path / "journal"
    written(folder, [admitted(1), admitted(2)]).close()
    (first,) = folder.iterdir()
    first.rename(folder / f"{9:020d}-77.journal")
    written(folder, [settled(1), admitted(3), settled(3)]).close()
    (second,) = (path for path in folder.iterdir() if not path.name.endswith("-77.journal"))
    second.rename(folder / f"{5:020d}-77.journal")
    clock = Clock()
    shipper = Shipper(folder, faulty(store), clock=clock)
    shipper.round()
    assert "req_2" not in shipped(store)  # its worker locks nothing, and may still live
    clock.now += 10
    while shipper.round():
        pass
    assert shipped(store) == {"req_1": "completed", "req_2": "interrupted", "req_3": "completed"}
    assert not list(folder.iterdir())


def test_a_settlement_whose_admission_is_lost_is_entered_without_a_key(
    tmp_path: Path, store: LedgerStore, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "journal"
    journal = written(folder, [admitted(1), admitted(2), settled(1), settled(2)])
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(bytes(content))
    ship(Shipper(folder, faulty(store)))
    ship(Shipper(folder, faulty(store)))
    journal.close()
    assert {entry.request_id: (entry.key_id, entry.amount_nanos) for entry in store.entries()} == {
        "req_1": ("", 30),
        "req_2": ("key", 30),
    }
    said = [record.getMessage() for record in caplog.records]
    assert sum("admissions of 1 settled requests are lost" in line for line in said) == 1
    assert sum(f"{path}: " in line and "at 0 are damaged" in line for line in said) == 2


def test_an_interrupted_request_with_an_idempotency_key_is_not_charged(tmp_path: Path, store: LedgerStore) -> None:
    folder = tmp_path / "journal"
    records = [admitted(1, idempotency_id=b"k" * 32), admitted(2)]
    written(folder, [*records, *(settled(number, kind=Progress) for number in (1, 2))]).close()
    ship(Shipper(folder, faulty(store)))
    assert [(entry.outcome, entry.usage.output_tokens, entry.amount_nanos) for entry in store.entries()] == [
        ("interrupted", 20, 0),
        ("interrupted", 20, 30),
    ]


def test_the_ledger_is_told_which_money_is_spent_and_by_whom(tmp_path: Path, store: LedgerStore) -> None:
    folder = tmp_path / "journal"
    journal = written(folder, [admitted(1, money=("b:x:", "b:y:")), admitted(2), settled(1), settled(2)])
    ledger = faulty(store)
    ship(Shipper(folder, ledger))
    assert ledger.calls == [(journal.holder, {"req_1": ("b:x:", "b:y:")})]
    journal.close()


def test_an_entry_says_all_that_the_journal_does(tmp_path: Path, store: LedgerStore) -> None:
    legs = (Leg("a/m", "upstream_error", None, 3.5), Leg("p/m", "completed", 1.0, 2.0))
    told = settled(
        1, attempts=legs, cost_nanos=7, cost_currency="EUR", currency="EUR", raw_usage='{"a":1}', queued_ms=0.25,
        cached_answer=True, stand_in="smol", settled_at=2.5, first_event_ms=float("nan"), reasoning_tokens=2,
    )  # fmt: skip
    written(tmp_path / "journal", [admitted(1, app_name="shop", asked="M\0", stream=True), told]).close()
    ship(Shipper(tmp_path / "journal", faulty(store)))
    (entry,) = store.entries()
    assert json.loads(entry.attempts) == [list(msgspec.structs.astuple(leg)) for leg in legs]
    assert (entry.admitted_us, entry.settled_us, entry.app_name, entry.asked) == (
        1_500_000,
        2_500_000,
        "shop",
        "M\ufffd",
    )
    assert (entry.target, entry.stand_in, entry.stream, entry.cached_answer) == ("p/m", "smol", True, True)
    assert (entry.cost_nanos, entry.cost_currency, entry.currency, entry.raw_usage) == (7, "EUR", "EUR", '{"a":1}')
    assert (entry.queued_ms, entry.first_event_ms, entry.total_ms, entry.usage.reasoning_tokens) == (0.25, None, 2.0, 2)


def test_a_lag_of_more_than_a_minute_is_told_once_a_minute(
    tmp_path: Path, store: LedgerStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    journal, clock = written(tmp_path / "journal", [admitted(1), settled(1)]), Clock()
    shipper = Shipper(tmp_path / "journal", faulty(store, *["before"] * 6), clock=clock)
    for _ in range(6):
        with pytest.raises(PenstockError):
            shipper.round()
        clock.now += 25
    assert [record.getMessage() for record in caplog.records] == ["the ledger is behind the journal since 75 s"]
    ship(shipper)
    assert caplog.records[-1].getMessage() == "the ledger has caught up"
    journal.close()


def test_a_file_that_somebody_removed_is_told_and_the_rest_goes_on(
    tmp_path: Path, store: LedgerStore, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "journal"
    journal = written(folder, [admitted(1)])
    shipper = Shipper(folder, faulty(store))
    ship(shipper)
    journal.append(settled(1))
    journal.close()
    (path,) = folder.iterdir()
    path.unlink()
    ship(shipper)
    # What had been read of it is not forgotten.
    assert shipped(store) == {"req_1": "interrupted"}
    assert not [record for record in caplog.records if record.levelno > logging.ERROR]


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A folder that another user can get at."""
    with tempfile.TemporaryDirectory(prefix="penstock-journal-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@contextlib.contextmanager
def no_root() -> Iterator[None]:
    """Permissions count."""
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(user)


def test_a_file_that_cannot_be_read_holds_up_no_other_and_no_end(
    foreign: Path, store: LedgerStore, caplog: pytest.LogCaptureFixture
) -> None:
    written(foreign, [admitted(1), settled(1)]).close()
    (locked,) = foreign.iterdir()
    locked.chmod(0)
    shipper = Shipper(foreign, faulty(store))
    with no_root():
        written(foreign, [admitted(2), settled(2)]).close()
        ship(shipper)
        shipper.round()
    assert shipped(store) == {"req_2": "completed"}
    assert list(foreign.iterdir()) == [locked]
    assert shipper.idle
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith(f"{locked}: Permission denied")
    locked.chmod(0o600)
    ship(shipper)
    assert shipped(store) == {"req_1": "completed", "req_2": "completed"}
