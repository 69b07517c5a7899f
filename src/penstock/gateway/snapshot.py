"""Keys in memory: known ones answer without the database, changed ones are dropped within the poll interval.

A key that is not in memory is looked up once, in a thread; unknown keys are remembered for a moment, in bounded
number. A changed key that has open requests is looked up again at once: a key that is gone has them cut. When the
database does not answer, known keys keep working and nothing is cut until it does.
"""

import asyncio
import contextlib
import functools
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from penstock.domain.errors import PenstockError
from penstock.domain.platform import Principal
from penstock.gateway.underway import Underway, Uses

_log = logging.getLogger("penstock.gateway")
_MAX_KNOWN = 100_000
_MAX_UNKNOWN = 10_000
_UNKNOWN_S = 2.0
_BATCH = 500

T = TypeVar("T")


class KeySource(Protocol):
    """Where keys come from: the store's key tables."""

    def find_principal(self, secret_hash: bytes, /) -> Principal | None:
        """Who the key stands for, or None."""

    def find_principals(self, secret_hashes: Sequence[bytes], /) -> dict[bytes, Principal]:
        """Who each of the keys stands for; those that do not exist are left out."""

    def changes_since(self, revision: int, /) -> tuple[int, list[bytes] | None]:
        """The newest revision and the hashes changed since; None when everything must be forgotten."""

    def revision(self) -> int:
        """The newest revision."""

    def note_uses(self, uses: Mapping[str, float], /) -> None:
        """Keeps when each key was last used: Unix time by key id."""


class KeySnapshot:
    """Principals by key hash, kept fresh by ``follow``; ``underway`` and ``uses`` are those of their requests."""

    def __init__(self, source: KeySource, *, poll_s: float = 0.25) -> None:
        self._source = source
        self._poll_s = poll_s
        self._known: OrderedDict[bytes, Principal] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._doubtful: set[bytes] = set()  # changed, with open requests, and not looked up again yet
        # Its own thread: a flood of unknown keys, which are looked up in the common ones, must not delay a revocation.
        self._follower = ThreadPoolExecutor(1, thread_name_prefix="keys")
        self._revision = source.revision()
        self.fresh = True
        self._answering = True  # at the last look-up
        self.underway = Underway()
        self.uses = Uses(source.note_uses)

    def peek(self, key_hash: bytes) -> Principal | None:
        """The principal if it is in memory."""
        return self._known.get(key_hash)

    async def find(self, key_hash: bytes) -> Principal | None:
        """The principal, from memory or the store. Raises PenstockError store_unavailable."""
        principal = self._known.get(key_hash)
        if principal is not None:
            return principal
        now = asyncio.get_running_loop().time()
        if self._unknown.get(key_hash, 0.0) > now:
            return None
        while True:
            revision = self._revision
            try:
                principal = await asyncio.to_thread(self._source.find_principal, key_hash)
            except Exception as error:
                if self._answering:  # once, not for every request of an outage
                    _log.warning("keys cannot be looked up: %s", type(error).__name__)
                self._answering = False
                raise PenstockError(
                    "store_unavailable", "This key cannot be checked right now; try again.", retry_after_s=2
                ) from error
            self._answering = True
            # A change that came in during the look-up may have been to this key: what was read may be stale.
            if revision == self._revision:
                break
        if principal is None:
            self._remember_unknown(key_hash, now + _UNKNOWN_S)
            return None
        self._known[key_hash] = principal
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        return principal

    async def follow(self) -> None:
        """Poll for changes until cancelled."""
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                revision, changed = await self._ask(lambda: self._source.changes_since(self._revision))
                self._apply(revision, changed)
                await self._review()
            except Exception as error:  # noqa: BLE001 - whatever the store raises, known keys go on
                if self.fresh:
                    _log.warning("key changes cannot be read, known keys go on: %s", type(error).__name__)
                self.fresh = False
            else:
                self.fresh = True

    def _apply(self, revision: int, changed: list[bytes] | None) -> None:
        self._revision = revision
        if changed is None:
            self._known.clear()
            self._unknown.clear()
            self._doubtful |= self.underway.hashes()
            return
        for key_hash in changed:
            self._known.pop(key_hash, None)
            self._unknown.pop(key_hash, None)
        if changed:
            self._doubtful |= self.underway.hashes().intersection(changed)

    async def _review(self) -> None:
        """Look up again whose key has changed: a rename or a rotation with grace does not cut, a revocation does."""
        while self._doubtful:
            asked = tuple(self._doubtful)[:_BATCH]
            found = await self._ask(functools.partial(self._source.find_principals, asked))
            self.underway.review(frozenset(asked), found)
            self._doubtful.difference_update(asked)

    async def _ask(self, question: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._follower, question)

    def _remember_unknown(self, key_hash: bytes, until: float) -> None:
        with contextlib.suppress(KeyError):
            self._unknown.pop(key_hash)
        self._unknown[key_hash] = until
        if len(self._unknown) > _MAX_UNKNOWN:
            self._unknown.popitem(last=False)
