"""The journal: one record when a request is admitted, one when it is settled, each a single write(2).

Record: length (4 bytes, big endian), CRC-32 of the payload (4 bytes), payload (MessagePack). A record that write(2)
has taken survives kill -9 of the process; ``fsync`` bounds what a power cut can take. A torn last record is
recognised by its length or checksum (files.py).
"""

import fcntl
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from penstock.ledger.records import Admitted, Progress, Record, Settled

_HEADER = struct.Struct(">II")
HEADER_BYTES = _HEADER.size
MAX_RECORD = 1024 * 1024


class JournalError(Exception):
    """The journal cannot be written; the message names the cause, never a record."""


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Admitted | Settled | Progress)


class UnderWay(Protocol):
    """An admitted request without its settlement."""

    def produced(self) -> int:
        """How much of its answer is there: it has changed when this has; 0 before its first event."""

    def progress(self) -> Progress:
        """What its settlement would say now, were the worker to die."""


class Journal:
    """The journal of one worker, in files that none but this worker ever writes. ``holder`` names the worker in their
    names and in the store: the time of its start, its process, and a random number, for the same on other machines.

    The newest file is locked as long as the worker lives, however it dies. ``open`` are the requests under way, each
    with how far it had come when that was last written, and ``late`` the settlements that the disk has refused; both
    are progress.py's to write, and no longer than what was under way at one time.
    """

    def __init__(self, folder: Path, *, rotate_bytes: int = 64 * 1024 * 1024) -> None:
        self._folder = folder
        self.holder = f"{time.time_ns():020d}-{os.getpid()}-{os.urandom(4).hex()}"
        self._number = 0
        self._rotate_bytes = rotate_bytes
        self._fd = -1
        self._size = 0
        self._dirty = False
        self.open: dict[UnderWay, int] = {}
        self.late: deque[Settled] = deque()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise JournalError(f"{folder}: the journal cannot be opened: {error.strerror}") from error

    def append(self, record: Record) -> None:
        """Write one record. Raises JournalError when the disk does not take it whole; nothing partial stays."""
        payload = _encoder.encode(record)
        if len(payload) > MAX_RECORD and isinstance(record, Settled):
            # No reader takes it for a record; only what an upstream said of itself can be that long.
            payload = _encoder.encode(msgspec.structs.replace(record, raw_usage=None))
        data = _HEADER.pack(len(payload), zlib.crc32(payload)) + payload
        try:
            if self._size + len(data) > self._rotate_bytes and self._size:
                self._rotate()
            written = os.write(self._fd, data)
            if written != len(data):
                os.ftruncate(self._fd, self._size)
                raise JournalError("the journal's disk is full")
        except OSError as error:
            raise JournalError(f"the journal cannot be written: {error.strerror}") from error
        self._size += len(data)
        self._dirty = True

    def sync(self) -> None:
        """Force what was written to the disk; may be called from another thread."""
        if self._dirty and self._fd >= 0:
            self._dirty = False
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Sync and close; a file without a record is removed."""
        if self._fd < 0:
            return
        self.sync()
        os.close(self._fd)
        self._fd = -1
        if not self._size:
            self._path.unlink(missing_ok=True)

    def _open(self) -> None:
        self._number += 1
        path = self._folder / f"{self.holder}-{self._number:06d}.journal"
        # Under a name that no reader looks for, until it is locked.
        new = path.with_suffix(".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            new.rename(path)
        except OSError:
            # Every request until the disk has room tries again: none may leave something behind.
            os.close(fd)
            new.unlink()
            raise
        self._path, self._fd, self._size = path, fd, 0

    def _rotate(self) -> None:
        full = self._fd
        self._open()
        try:
            os.fdatasync(full)
        finally:
            os.close(full)


def payload_at(data: bytes, position: int) -> bytes | None:
    """The payload of the whole, undamaged record that begins there; None where there is none (yet)."""
    start = position + HEADER_BYTES
    if start > len(data):
        return None
    length, checksum = _HEADER.unpack_from(data, position)
    # Zeros, such as a power cut leaves at the end of a file, have the checksum of nothing.
    if not 0 < length <= MAX_RECORD:
        return None
    payload = data[start : start + length]
    return payload if len(payload) == length and zlib.crc32(payload) == checksum else None


def decode(payload: bytes) -> Record | None:
    """The record; None for one of a kind that this version does not know."""
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError:
        return None


def read_journal(path: Path) -> Iterator[Record]:
    """Records of one file in the order written; stops at a torn or damaged record (files.py goes on behind it)."""
    data = path.read_bytes()
    position = 0
    while (payload := payload_at(data, position)) is not None:
        yield _decoder.decode(payload)
        position += HEADER_BYTES + len(payload)
