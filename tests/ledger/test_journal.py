"""The journal: what write(2) took is read back, whatever happened after it."""

import resource
import signal
import struct
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.ledger.journal import Journal, JournalError, read_journal
from penstock.ledger.records import Leg, Record, Settled
from tests.ledger.entries import admitted, settled


def only_file(folder: Path) -> Path:
    [file] = folder.iterdir()
    return file


_records = st.lists(
    st.integers(0, 99).map(admitted) | st.builds(settled, st.integers(0, 99), st.text(max_size=50)), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(records=_records)
def test_what_was_written_is_read_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder)
    for record in records:
        journal.append(record)
    journal.close()
    assert [record for file in folder.iterdir() for record in read_journal(file)] == records


@settings(max_examples=100, deadline=None)
@given(records=_records.filter(bool), data=st.data())
def test_a_torn_end_loses_no_record_before_it(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder)
    ends = []
    for record in records:
        journal.append(record)
        ends.append(only_file(folder).stat().st_size)
    journal.close()
    file = only_file(folder)
    cut = data.draw(st.integers(0, ends[-1]))
    file.write_bytes(file.read_bytes()[:cut])
    assert list(read_journal(file)) == records[: sum(end <= cut for end in ends)]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_byte_never_becomes_another_record(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder)
    records: list[Record] = [admitted(1), settled(1)]
    for record in records:
        journal.append(record)
    journal.close()
    file = only_file(folder)
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(bytes(content))
    read = list(read_journal(file))
    assert read == records[: len(read)]
    assert len(read) < len(records)


def test_a_full_file_is_followed_by_another(tmp_path: Path) -> None:
    journal = Journal(tmp_path, rotate_bytes=4096)
    for number in range(100):
        journal.append(admitted(number))
    journal.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) > 1
    assert all(file.stat().st_size <= 4096 for file in files)
    assert [record.request_id for file in files for record in read_journal(file)] == [f"req_{n}" for n in range(100)]


def test_a_record_that_the_disk_does_not_take_is_an_error_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(admitted(1))
    size = only_file(tmp_path).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # A file size limit in the middle of the next record stands for the disk that fills up there.
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
        with pytest.raises(JournalError, match="full"):
            journal.append(settled(1))
        with pytest.raises(JournalError):
            journal.append(admitted(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    journal.append(settled(1))
    journal.close()
    assert list(read_journal(only_file(tmp_path))) == [admitted(1), settled(1)]


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    with pytest.raises(JournalError, match=r"cannot be opened|Not a directory"):
        Journal(blocker / "journal")


def test_a_worker_without_requests_leaves_no_file(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    assert not list(tmp_path.iterdir())


def test_the_files_are_private(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.append(admitted(1))
    journal.close()
    assert only_file(tmp_path / "j").stat().st_mode & 0o777 == 0o600


def test_a_settlement_written_before_attempts_were_kept_is_still_read(tmp_path: Path) -> None:
    fields = {
        "type": "settle", "request_id": "r", "settled_at": 1.0, "outcome": "completed", "provider": "p",
        "target_model": "m", "stand_in": None, "input_tokens": 1, "output_tokens": 2, "cached_input_tokens": 0,
        "estimated": False, "first_event_ms": 1.0, "total_ms": 2.0,
    }  # fmt: skip
    payload = msgspec.msgpack.encode(fields)
    old = tmp_path / "old.journal"
    old.write_bytes(struct.pack(">II", len(payload), zlib.crc32(payload)) + payload)
    (record,) = read_journal(old)
    assert isinstance(record, Settled)
    assert (record.attempts, record.cache_write_tokens, record.reasoning_tokens) == ((), 0, 0)


def test_a_settlement_keeps_its_attempts(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    legs = (Leg("a/m", "upstream_error", None, 3.5), Leg("b/m", "completed", 1.0, 2.0))
    journal.append(
        Settled(
            request_id="r", settled_at=1.0, outcome="completed", provider="b", target_model="m", stand_in=None,
            input_tokens=1, output_tokens=2, cached_input_tokens=0, estimated=False, first_event_ms=1.0, total_ms=2.0,
            cache_write_tokens=3, reasoning_tokens=4, attempts=legs,
        )
    )  # fmt: skip
    (record,) = [record for file in tmp_path.iterdir() for record in read_journal(file)]
    assert isinstance(record, Settled)
    assert (record.attempts, record.cache_write_tokens, record.reasoning_tokens) == (legs, 3, 4)
    journal.close()


def test_a_next_file_that_cannot_be_begun_leaves_nothing_behind(tmp_path: Path) -> None:
    journal = Journal(tmp_path, rotate_bytes=4096)
    only_file(tmp_path)
    (tmp_path / f"{journal.holder}-000002.journal").mkdir()
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    refused = 0
    for number in range(60):
        try:
            journal.append(admitted(number))
        except JournalError:
            refused += 1
    assert refused == 1  # the one after it takes another name
    assert not list(tmp_path.glob("*.new"))
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files
    journal.close()
