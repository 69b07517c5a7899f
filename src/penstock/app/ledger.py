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
from penstock.app.home import Home, open_database
from penstock.domain.errors import PenstockError
from penstock.ledger.shipper import Shipper
from penstock.store.metering.expiry import drop_expired
from penstock.store.metering.ledger import LedgerStore
from penstock.store.metering.spending import add_spent
from penstock.store.nouns.audit import AuditStore

_log = logging.getLogger("penstock.ledger")
_TIDY_S = 3600.0
_DAY_US = 86_400 * 1_000_000
_LOCK_POLL_S = 0.2


class LedgerParts:
    """The shipper over one home and one database. ``stop`` has it ship what is left and end, within ``drain_s``."""

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
        self._retention_us = settings.ledger.retention_days * _DAY_US
        self._drain_s = settings.serve.drain_s
        self._stop = asyncio.Event()
        self.apply(boot.serving)

    def apply(self, serving: Serving) -> None:
        """Keep what the prices of these models say."""
        rated = [model.rate for model in serving.models]
        rated += [target.rate for model in serving.models for target in model.targets]
        try:
            self._store.note_rates([rate for rate in rated if rate is not None])
        except PenstockError as error:
            _log.warning("price versions cannot be kept: %s", error.message)

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
            tidied_at = time.monotonic()
            while not self._stop.is_set():
                if not await asyncio.to_thread(self._round):
                    await self._stopped_within(self._every_s)
                if time.monotonic() - tidied_at > _TIDY_S:
                    tidied_at = time.monotonic()
                    await asyncio.to_thread(self._tidy)
            await self._drain()

    def close(self) -> None:
        """Close the database."""
        self.db.close()

    async def _drain(self) -> None:
        ends_at = time.monotonic() + self._drain_s
        while time.monotonic() < ends_at:
            more = await asyncio.to_thread(self._round, last=True)
            if self._shipper.idle:
                return
            if not more:
                await asyncio.sleep(min(self._every_s, 0.1))
        _log.warning("the journal is not yet in the ledger as a whole; the next start brings the rest")

    def _round(self, *, last: bool = False) -> bool:
        try:
            return self._shipper.round(last=last)
        except PenstockError:
            return False  # the store has told why
        except OSError as error:
            _log.error("the journal cannot be read: %s", error.strerror)
        except Exception as error:  # noqa: BLE001 - whatever a record held, the next round must come
            _log.error("the journal cannot be shipped: %s", type(error).__name__)
            _log.debug("the journal cannot be shipped", exc_info=error)
        return False

    def _tidy(self) -> None:
        """Entries past their retention, and answers and contents past theirs, a bounded number at a time."""
        now_s = time.time()
        try:
            while self._store.prune(int(now_s * 1_000_000) - self._retention_us) and not self._stop.is_set():
                pass
            while drop_expired(self.db, now_s) and not self._stop.is_set():
                pass
        except PenstockError as error:
            _log.warning("old entries cannot be removed, tried again later: %s", error.message)

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
