"""Brings the journal into the ledger: reads what workers write, ships it in batches, removes what is finished.

It keeps no mark of its own. What is there is read from its beginning after each start, and the ledger leaves out the
requests that it has; a file stands only as long as something in it may be missing there. So it may die at any point.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

from penstock.domain.chain import Values
from penstock.ledger.entries import Join, Made
from penstock.ledger.files import JournalFile, Reader, is_unlocked, list_files
from penstock.store.metering.alerts import tell
from penstock.store.metering.ledger import Appended

_log = logging.getLogger("penstock.ledger")
LATE_S = 60.0
_BATCH = 500
# A worker from before 0.3 that outlived its supervisor writes on for two seconds, and locks nothing.
_OLD_WORKER_S = 5.0


class Ledger(Protocol):
    """Where entries go: the store's ledger. All raise PenstockError store_unavailable."""

    def append_said(self, entries: Sequence[Values], /, *, holder: str, money: Mapping[str, Sequence[str]]) -> Appended:
        """Keep the entries whose requests have none yet; ``holder`` has spent the money that it held for them."""

    def known(self, requests: Sequence[str], /) -> Collection[str]:
        """Those of the requests that have an entry."""

    def release(self, holder: str, /) -> None:
        """The holder is dead and all of its entries are kept: it holds no money any more."""


class Shipper:
    """Reads one folder. Only one may, at a time; any number may ship to one database."""

    def __init__(self, folder: Path, ledger: Ledger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._ledger = ledger
        self._clock = clock
        self._began = clock()
        self._workers: dict[str, _Worker] = {}
        self._behind_since: float | None = None
        self._told_at = 0.0

    def round(self, *, last: bool = False) -> bool:
        """Ship a batch of each worker that has something; whether there may be more at once. In the ``last`` rounds no
        patience is left for workers of older versions. Raises PenstockError store_unavailable, OSError; what was not
        shipped is kept and comes first in the next round."""
        more = True
        try:
            more = self._round(patient=not last and self._clock() - self._began < _OLD_WORKER_S)
        finally:
            self._note_lag(behind=more)
        return more

    @property
    def idle(self) -> bool:
        """Whether no worker's file is left that can be read, as far as the last round saw."""
        return all(worker.stuck for worker in self._workers.values())

    def _round(self, *, patient: bool) -> bool:
        found = self._list()
        for holder, files in found.items():
            worker = self._workers.setdefault(holder, _Worker(holder))
            worker.take(files)
            if not worker.dead and not (patient and files[-1].old) and worker.has_ended():
                # Looked for once more behind the lock: the worker may have begun its next file in between.
                again = self._list().get(holder, files)
                worker.dead = again[-1] == files[-1]
                worker.take(again)
        for gone in self._workers.keys() - found.keys():
            if self._workers[gone].done:
                del self._workers[gone]
            else:
                self._workers[gone].take([])
                self._workers[gone].dead = True
        return any([worker.step(self._ledger) for worker in tuple(self._workers.values())])

    def _list(self) -> dict[str, list[JournalFile]]:
        try:
            return list_files(self._folder)
        except FileNotFoundError:
            return {}

    def _note_lag(self, *, behind: bool) -> None:
        now = self._clock()
        if not behind:
            if self._told_at:
                _log.info("the ledger has caught up")
            self._behind_since, self._told_at = None, 0.0
            return
        self._behind_since = now if self._behind_since is None else self._behind_since
        if now - max(self._behind_since, self._told_at) > LATE_S:
            self._told_at = now
            _log.warning("the ledger is behind the journal since %.0f s", now - self._behind_since)


class _Worker:
    """What one worker wrote, as far as it is read."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        self.dead = False
        self.done = False
        self._files: list[JournalFile] = []
        self._reader: Reader | None = None
        self._read: set[int] = set()
        self._join = Join()
        self._pending: list[Made] = []
        self._ending: Iterator[Made] | None = None
        self._more = self._compared = False
        self._trouble = ""

    @property
    def stuck(self) -> bool:
        """Whether the last step has failed at its files."""
        return bool(self._trouble)

    def has_ended(self) -> bool:
        """Whether nobody has its newest file locked."""
        try:
            return is_unlocked(self._files[-1].path)
        except OSError:
            return False  # it has just gone; or whoever reads it will tell

    def take(self, files: list[JournalFile]) -> None:
        """Which files there are now."""
        self._files = files

    def step(self, ledger: Ledger) -> bool:
        """Read and ship one batch; whether more is likely to be there already. Raises PenstockError."""
        try:
            more = not self.done and self._step(ledger)
        except OSError as error:
            # The others must go on.
            if self._trouble != (said := f"{error.filename or self.holder}: {error.strerror}"):
                _log.error("the journal cannot be brought into the ledger: %s", said)
            self._trouble = said
            return False
        self._trouble = ""
        return more

    def _step(self, ledger: Ledger) -> bool:
        if self._ending is not None:
            return self._end(ledger, self._ending)
        again = bool(self._pending)
        self._pending = self._pending or self._next()
        ends = self.dead and not self._pending
        self._ship(ledger)
        if not self._files or not self._files[0].old:
            # Read in the order of their making: an admission that did not come before will not come.
            self._ship_unclaimed(ledger)
        if not self._more and not self._compared:
            self._compare(ledger)
        self._remove(self._finished())
        if ends:
            self._ending = iter(tuple(self._join.interrupted()))
        return self._more or self.dead or again

    def _end(self, ledger: Ledger, ending: Iterator[Made]) -> bool:
        """Settle what is open, one batch at a time, then remove what is left of the worker."""
        self._pending = self._pending or list(islice(ending, _BATCH))
        if self._pending:
            self._ship(ledger)
            return True
        self._ship_unclaimed(ledger, progress=True)
        ledger.release(self.holder)
        self._remove(self._files)
        self.done = True
        return False

    def _next(self) -> list[Made]:
        """The entries that the next block of records completes; empty when all is read."""
        self._more = False
        for place, file in enumerate(self._files):
            if file.number in self._read:
                continue
            ended = self.dead or place + 1 < len(self._files)
            if self._reader is None or self._reader.path != file.path:
                self._reader = Reader(file.path)
            try:
                while (records := self._reader.read(ended=ended)) is not None:
                    if made := self._join.take(records, file.number):
                        self._more = self._reader.more or file is not self._files[-1]
                        return made
            except FileNotFoundError:
                _log.error("%s: the file is gone, and what was not read of it is lost", file.path)
            if not ended:
                break
            self._read.add(file.number)
        return []

    def _ship(self, ledger: Ledger) -> None:
        if self._pending:
            _append(ledger, self.holder, self._pending)
            self._pending = []

    def _compare(self, ledger: Ledger) -> None:
        """Once, when all is read for the first time: a request whose settlement stood in a file that was removed before
        the last start looks open, and is in the ledger."""
        waiting = self._join.waiting()
        for start in range(0, len(waiting), _BATCH):
            self._join.drop(ledger.known(waiting[start : start + _BATCH]))
        self._compared = True

    def _ship_unclaimed(self, ledger: Ledger, *, progress: bool = False) -> None:
        while made := self._join.unclaimed(progress=progress)[:_BATCH]:
            if new := _append(ledger, self.holder, made):
                _log.error("%s: the admissions of %d settled requests are lost: entered without key", self.holder, new)
            self._join.forget(made)

    def _finished(self) -> list[JournalFile]:
        """The files that nobody writes to and that hold nothing but what was shipped; all of it, by now. A dead
        worker's stay until its open requests are shipped as well."""
        read = [file for file in self._files[:-1] if file.number in self._read]
        needed = self._join.needed() if read else set()
        return [file for file in read if file.number not in needed]

    def _remove(self, files: Iterable[JournalFile]) -> None:
        for file in tuple(files):
            with contextlib.suppress(FileNotFoundError):
                file.path.unlink()
            self._files = [one for one in self._files if one != file]


def _append(ledger: Ledger, holder: str, made: Sequence[Made]) -> int:
    """How many were new."""
    held = {values[0]: money for values, money in made if money}
    appended = ledger.append_said([values for values, _ in made], holder=holder, money=held)
    tell(appended.crossed)
    return appended.inserted
