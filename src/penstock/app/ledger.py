"""The ledger's process: brings what gateway workers of this home write into the ledger, and tidies the store."""

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from penstock.app.boot import Boot, Serving
from penstock.app.home import Home
from penstock.app.store import open_database
from penstock.domain.catalogue import Rate
from penstock.domain.errors import PenstockError
from penstock.domain.ledger import DAY_US
from penstock.ledger.shipper import Shipper
from penstock.store.keeping.expiry import drop_expired
from penstock.store.metering.ledger import LedgerStore
from penstock.store.metering.spending import add_spent
from penstock.store.nouns.audit import AuditStore

_log = logging.getLogger("penstock.ledger")
_FIRST_TIDY_S = 60.0
_TIDY_S = 3600.0
_LOCK_POLL_S = 0.1
_LONGEST_PAUSE_S = 2.0
# When everything ends: how long a database that does not answer is waited for, and less than the supervisor's margin.
_AWAY_S = 5.0
_MARGIN_S = 2.0


class LedgerParts:
    """The shipper over one home and one database. ``stop`` has it ship what is left and end: once no worker is left
    whose journal is not in the ledger as a whole, after ``drain_s``, or when the database stays away for longer."""

    def __init__(self, boot: Boot) -> None:
        settings = boot.settings
        home = Home(settings.home)
        self.db = open_database(settings)
        self._store = LedgerStore(
            self.db,
            spend=add_spent,
            audit=AuditStore(self.db).add,
            idempotency_window_s=settings.idempotency.window_s,
        )
        self._shipper = Shipper(home.journal, self._store)
        self._lock = home.run / "ledger.lock"
        self._every_s = settings.ledger.ship_s
        self._retention_us = settings.ledger.retention_days * DAY_US
        self._drain_s = settings.serve.drain_s
        self._stop = asyncio.Event()
        self._failures = 0
        self._rates: tuple[Rate, ...] = ()
        self._tidy_at = time.monotonic() + _FIRST_TIDY_S
        self.apply(boot.serving)

    def apply(self, serving: Serving) -> None:
        """Keep what the prices of these models say, with the next round."""
        rated = [model.rate for model in serving.models]
        rated += [target.rate for model in serving.models for target in model.targets]
        self._rates = tuple({rate: None for rate in rated if rate is not None})

    def stop(self) -> None:
        """Ship what is left, then end."""
        self._stop.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Ship until stopped. Only one process ships a home: a successor waits for the end of an orphan."""
        ready()
        with _lock_file(self._lock) as taken:
            while not taken():
                if await self._stopped_within(_LOCK_POLL_S):
                    return
            while not self._stop.is_set():
                if not await asyncio.to_thread(self._round):
                    await self._stopped_within(max(self._every_s, self._pause_s()))
            await self._drain()

    def close(self) -> None:
        """Close the database."""
        self.db.close()

    async def _drain(self) -> None:
        # A signal to the whole group comes here as early as to the workers, whose last answers are waited for.
        ends_at = time.monotonic() + self._drain_s + _MARGIN_S
        away_at = None
        while time.monotonic() < ends_at:
            more = await asyncio.to_thread(self._round, last=True)
            if self._shipper.idle and not self._failures:
                return
            away_at = None if not self._failures else away_at or time.monotonic() + _AWAY_S
            if away_at is not None and time.monotonic() > away_at:
                break
            if not more:
                await asyncio.sleep(min(self._every_s, _LOCK_POLL_S))
        _log.warning("the journal is not yet in the ledger as a whole; the next start brings the rest")

    def _round(self, *, last: bool = False) -> bool:
        """Whether there is more to do at once."""
        try:
            more = self._shipper.round(last=last)
            if not last:
                self._note_rates()
                more = self._tidy() or more
        except PenstockError:
            self._failures += 1  # the store has told why
        except OSError as error:
            self._tell(f"the journal cannot be read: {error.strerror}", error)
        except Exception as error:  # noqa: BLE001 - whatever a record held, the next round must come
            self._tell(f"the journal cannot be shipped: {type(error).__name__}", error)
        else:
            self._failures = 0
            return more
        return False

    def _tell(self, said: str, error: Exception) -> None:
        if not self._failures:
            _log.error("%s", said)
        _log.debug("%s", said, exc_info=error)
        self._failures += 1

    def _pause_s(self) -> float:
        """How long to wait after so many failures in a row."""
        return min(_LONGEST_PAUSE_S, 0.1 * 2.0 ** min(self._failures, 10)) if self._failures else 0.0

    def _note_rates(self) -> None:
        rates = self._rates
        if rates:
            self._store.note_rates(rates)
            if self._rates is rates:
                self._rates = ()

    def _tidy(self) -> bool:
        """Now and then remove entries past their retention, and answers and contents past theirs, a bounded number
        between two rounds; whether there are more."""
        if time.monotonic() < self._tidy_at:
            return False
        now_s = time.time()
        removed = self._store.prune(int(now_s * 1_000_000) - self._retention_us) + drop_expired(self.db, now_s)
        if not removed:
            self._tidy_at = time.monotonic() + _TIDY_S
        return bool(removed)

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
        return self._stop.is_set()


@contextlib.contextmanager
def _lock_file(path: Path) -> Iterator[Callable[[], bool]]:
    """What tries to take the lock of that file, which is let go at the end."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def taken() -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    try:
        yield taken
    finally:
        os.close(fd)
