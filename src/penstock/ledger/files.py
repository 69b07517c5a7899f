"""The journal's files as the ledger reads them: by worker, in order, while they grow, past what is damaged."""

import fcntl
import logging
import os
import re
from pathlib import Path

import msgspec

from penstock.ledger.journal import HEADER_BYTES, MAX_RECORD, decode, payload_at
from penstock.ledger.records import Record

_log = logging.getLogger("penstock.ledger")
# What the ledger takes at once: about 1,500 requests, or one of the largest records.
_LARGEST = HEADER_BYTES + MAX_RECORD
_WINDOW = 4 * _LARGEST
# Since 0.3 with a random part and a number; before that each file was named by its own time.
_NAME = re.compile(r"(?P<time>\d+)-(?P<pid>\d+)(?:-(?P<random>[0-9a-f]+)-(?P<number>\d+))?\.journal")
# Every payload is a map whose first key is this one, behind one or three bytes that say its size.
_FIRST_KEY = b"\xa4type"


class JournalFile(msgspec.Struct, frozen=True, order=True):
    """One file; ``number`` orders those of its ``holder``."""

    holder: str
    number: int
    path: Path

    @property
    def old(self) -> bool:
        """Whether it was written before 0.3, when files were not locked."""
        return self.holder.startswith("pid-")


def list_files(folder: Path) -> dict[str, list[JournalFile]]:
    """All files by worker, each worker's in the order in which they were begun. Names from before 0.3 do not say the
    worker: those of one process number count as one. Whatever else lies there is left alone. Raises OSError."""
    with os.scandir(folder) as entries:
        # Nothing that is no file: it could not be read, or would keep its reader waiting.
        files = [folder / entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    found: dict[str, list[JournalFile]] = {}
    for path in files:
        if (name := _NAME.fullmatch(path.name)) is None:
            continue
        if name["number"] is None:
            file = JournalFile(f"pid-{name['pid']}", int(name["time"]), path)
        else:
            file = JournalFile(path.name.rpartition("-")[0], int(name["number"]), path)
        found.setdefault(file.holder, []).append(file)
    return {holder: sorted(files) for holder, files in sorted(found.items())}


def is_unlocked(path: Path) -> bool:
    """Whether no worker has the file locked. A worker locks its next file before it lets go of one: it has ended only
    if no newer file stands there afterwards. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Shared: over NFS an exclusive one needs a file that is open for writing.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


class Reader:
    """Reads one file from its beginning as far as it goes, a block at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        # Whether there was more than the last read has taken.
        self.more = False
        # Where a search for the next whole record goes on, behind damage that is longer than a window.
        self._searched = 0

    def read(self, *, ended: bool) -> list[Record] | None:
        """The next records; None when there are no more for now. ``ended``: nobody writes to it any more, so a rest
        that is no record was torn. What is damaged is told in the log; what stands behind it is read. Raises
        OSError."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            records = self._whole(os.pread(fd, _LARGEST, self.position))
            rest = os.fstat(fd).st_size - self.position
            self.more = rest > 0
            if records is not None or rest <= 0:
                return records
            return self._past_damage(fd, ended=ended)
        finally:
            os.close(fd)

    def _whole(self, data: bytes) -> list[Record] | None:
        """The records at the beginning of what stands at the position, which moves behind them; None where the first
        is not whole."""
        records: list[Record] = []
        at = 0
        while (payload := payload_at(data, at)) is not None:
            if (record := decode(payload)) is None:
                _log.error("%s: the record at %d is of no known kind: left out", self.path, self.position + at)
            else:
                records.append(record)
            at += HEADER_BYTES + len(payload)
        self.position += at
        return records if at else None

    def _past_damage(self, fd: int, *, ended: bool) -> list[Record] | None:
        """What stands behind the next bytes, which are no record. The last ones may just be being written."""
        start = max(self._searched, self.position)
        while True:
            window = os.pread(fd, _WINDOW, start)
            found = _find_record(window, 0 if start > self.position else 1)
            if found is not None:
                lost = start + found - self.position
                _log.error("%s: %d bytes at %d are damaged: the records there are lost", self.path, lost, self.position)
                self.position = start + found
                return self._whole(os.pread(fd, _LARGEST, self.position))
            if len(window) < _WINDOW:
                break
            # A record that begins in the last part may end behind the window.
            start = self._searched = start + len(window) - _LARGEST
        if not ended:
            return None
        end = start + len(window)
        _log.warning("%s: torn at %d, %d bytes before its end", self.path, self.position, end - self.position)
        self.position = end
        return None


def _find_record(data: bytes, start: int) -> int | None:
    """Where the first whole record at or behind ``start`` begins."""
    key = data.find(_FIRST_KEY, start)
    while key >= 0:
        for size in (1, 3):
            begin = key - size - HEADER_BYTES
            if begin >= start and (payload := payload_at(data, begin)) is not None and decode(payload) is not None:
                return begin
        key = data.find(_FIRST_KEY, key + 1)
    return None
