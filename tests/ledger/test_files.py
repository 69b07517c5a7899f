"""The journal's files as the ledger reads them: growing, torn, damaged, of any version."""

import logging
import os
import struct
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.ledger.files import Reader, is_unlocked, list_files
from penstock.ledger.journal import Journal
from penstock.ledger.records import Progress, Record
from tests.ledger.entries import admitted, settled


def write(folder: Path, records: list[Record]) -> tuple[Path, list[int]]:
    """One file of these records: its path, and where each ends."""
    journal, ends = Journal(folder), []
    for record in records:
        journal.append(record)
        ends.append(next(folder.iterdir()).stat().st_size)
    path = next(folder.iterdir())
    journal.close()
    return path, ends


def read_all(reader: Reader, *, ended: bool = True) -> list[Record]:
    """All records that can be read now."""
    found: list[Record] = []
    while (records := reader.read(ended=ended)) is not None:
        found += records
    return found


_binary = st.binary(max_size=30).map(lambda data: data.decode("latin-1"))
_names = st.text(max_size=30) | _binary | st.just("\xa4type" * 9)
_records = st.lists(
    st.builds(lambda number, asked: admitted(number, asked=asked), st.integers(0, 9), _names)
    | st.builds(lambda number, raw: settled(number, raw_usage=raw), st.integers(0, 9), _names)
    | st.builds(lambda number: settled(number, kind=Progress), st.integers(0, 9)),
    min_size=1,
    max_size=10,
)


@settings(max_examples=60, deadline=None)
@given(records=_records, data=st.data())
def test_a_file_that_grows_by_any_pieces_is_read_once_and_whole(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    path, ends = write(folder, records)
    content = path.read_bytes()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
    reader, found = Reader(path), list[Record]()
    for cut in cuts:
        path.write_bytes(content[:cut])
        found += read_all(reader, ended=False)
        assert found == records[: sum(end <= cut for end in ends)]
    path.write_bytes(content)
    assert found + read_all(reader) == records


@settings(max_examples=100, deadline=None)
@given(records=_records, data=st.data())
def test_damage_loses_no_record_that_it_does_not_touch(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    path, ends = write(folder, records)
    content = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(content) - 1))
    damage = data.draw(st.binary(min_size=1, max_size=40) | st.just(bytes(40)))
    stop = min(len(content), start + len(damage))
    before = bytes(content)
    content[start:stop] = damage[: stop - start]
    path.write_bytes(bytes(content))
    begins = [0, *ends[:-1]]
    touched = [before[a:b] != bytes(content[a:b]) for a, b in zip(begins, ends, strict=True)]
    assert read_all(Reader(path)) == [one for one, hit in zip(records, touched, strict=True) if not hit]


def test_a_live_file_with_damage_in_it_is_read_past_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, ends = write(tmp_path, [admitted(1), admitted(2), settled(1)])
    content = bytearray(path.read_bytes())
    content[ends[0] : ends[0] + 4] = b"\0\x0f\xff\xff"  # a length that reaches far behind the end
    path.write_bytes(bytes(content))
    assert read_all(Reader(path), ended=False) == [admitted(1), settled(1)]
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"{path}: {ends[1] - ends[0]} bytes at {ends[0]} are damaged" in line


def test_a_torn_end_is_told_and_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, ends = write(tmp_path, [admitted(1), settled(1)])
    path.write_bytes(path.read_bytes()[:-3])
    reader = Reader(path)
    assert read_all(reader, ended=False) == [admitted(1)]
    assert not caplog.records
    assert read_all(reader) == []
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"torn at {ends[0]}" in record.getMessage()


def test_zeros_behind_the_last_record_are_a_torn_end(tmp_path: Path) -> None:
    path, _ = write(tmp_path, [admitted(1)])
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert read_all(Reader(path)) == [admitted(1)]


def test_megabytes_of_damage_are_passed(tmp_path: Path) -> None:
    path, _ = write(tmp_path, [admitted(1)])
    one = path.read_bytes()
    path.write_bytes(one + b"\xa4type\xff" * 2_000_000 + one)
    assert read_all(Reader(path)) == [admitted(1), admitted(1)]


def test_records_near_the_largest_size_are_read(tmp_path: Path) -> None:
    records: list[Record] = [settled(n, raw_usage="x" * 900_000) for n in range(3)]
    path, _ = write(tmp_path, records)
    assert read_all(Reader(path)) == records


def test_a_settlement_that_no_reader_would_take_is_written_without_the_upstreams_words(tmp_path: Path) -> None:
    path, _ = write(tmp_path, [settled(1, raw_usage="x" * 1_100_000), settled(2)])
    assert read_all(Reader(path)) == [settled(1), settled(2)]


def test_a_record_of_a_kind_that_is_not_known_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, _ = write(tmp_path, [admitted(1)])
    payload = msgspec.msgpack.encode({"type": "later", "request_id": "r"})
    later = struct.pack(">II", len(payload), zlib.crc32(payload)) + payload
    path.write_bytes(later + path.read_bytes() + later)
    assert read_all(Reader(path)) == [admitted(1)]
    assert [record.getMessage() for record in caplog.records if "no known kind" in record.getMessage()]


def test_files_are_listed_by_worker_in_their_order(tmp_path: Path) -> None:
    for name in (
        "00000000000000000002-7-00ff00ff-000001.journal", "00000000000000000002-7-00ff00ff-000010.journal",
        "00000000000000000002-7-00ff00ff-000009.journal", "00000000000000000001-7-00ff00ff-000001.journal",
        "00000000000000000005-42.journal", "00000000000000000004-42.journal",
        "00000000000000000002-7-00ff00ff-000011.new", "notes.txt",
    ):  # fmt: skip
        (tmp_path / name).touch()
    found = {holder: [file.number for file in files] for holder, files in list_files(tmp_path).items()}
    assert found == {
        "00000000000000000001-7-00ff00ff": [1],
        "00000000000000000002-7-00ff00ff": [1, 9, 10],
        "pid-42": [4, 5],
    }
    assert {file.old for file in list_files(tmp_path)["pid-42"]} == {True}


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    name = "00000000000000000001-7-00ff00ff-00000{}.journal"
    (tmp_path / name.format(1)).mkdir()
    os.mkfifo(tmp_path / name.format(2))
    (tmp_path / name.format(3)).symlink_to(tmp_path / "nowhere")
    (tmp_path / name.format(4)).touch()
    (files,) = list_files(tmp_path).values()
    assert [file.number for file in files] == [4]


def test_the_newest_file_of_a_worker_is_locked_until_it_ends(tmp_path: Path) -> None:
    journal = Journal(tmp_path, rotate_bytes=4096)
    for number in range(60):
        journal.append(admitted(number))
    (files,) = list_files(tmp_path).values()
    assert len(files) > 2
    assert [is_unlocked(file.path) for file in files] == [True] * (len(files) - 1) + [False]
    assert files[0].holder == journal.holder
    journal.close()
    assert is_unlocked(files[-1].path)
