"""What every worker knows at all times: limits and budgets of models, and apps with a reserved share.

Followed like the keys: a change is there within the poll interval, and while the database does not answer, what is
known goes on.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from penstock.domain.limits import Shared

_log = logging.getLogger("penstock.gateway")


class SharedSource(Protocol):
    """Where it comes from: the store's governance tables."""

    def shared(self) -> Shared:
        """All of it, with its revision."""

    def revision(self) -> int:
        """The newest revision."""


def _nobody(shared: Shared) -> None:
    del shared


class SharedRules:
    """The rules of all, kept fresh by ``follow``; ``now`` is another object whenever they have changed, which ``heard``
    is told of."""

    def __init__(self, source: SharedSource, *, poll_s: float = 0.25) -> None:
        self._source = source
        self._poll_s = poll_s
        # Its own thread, for the reason that the keys' follower has one.
        self._follower = ThreadPoolExecutor(1, thread_name_prefix="rules")
        self.now = source.shared()
        self.fresh = True
        self.heard: Callable[[Shared], None] = _nobody

    async def follow(self) -> None:
        """Poll for changes until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                if await loop.run_in_executor(self._follower, self._source.revision) != self.now.revision:
                    self.now = await loop.run_in_executor(self._follower, self._source.shared)
                    self.heard(self.now)
            except Exception as error:  # noqa: BLE001 - whatever the store raises, known rules go on
                if self.fresh:
                    _log.warning("changed limits cannot be read, known ones go on: %s", type(error).__name__)
                self.fresh = False
            else:
                self.fresh = True
