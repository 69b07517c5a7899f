"""Slows the guessing of credentials, per source and per account, in bounded memory and without reading a credential.

A slowed source is not looked at. A slowed account is, from a source that is not slowed, so that nobody who guesses from
many addresses locks its owner out; only what fails there is held up. A token has 256 random bits: no loss."""

import ipaddress
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

FREE_FAILURES = 5
WINDOW_S = 900.0
_LONGEST_DELAY_S = 60.0
_ENTRIES = 10_000
# Enough to reach the longest delay.
_REMEMBERED = 12


class Attempt(NamedTuple):
    """One presentation of credentials: from where, for which account (None: not said), and the credential's hash.

    An account is a hash too: what people type there by mistake is often the secret, and can be long."""

    source: str
    account: bytes | None
    proof: bytes


class _Failures:
    """The recent failures of one source or account, when it may try again, and when it last got an exception."""

    def __init__(self) -> None:
        self.times: deque[float] = deque(maxlen=_REMEMBERED)
        self.open_at = 0.0
        self.excepted_at = -WINDOW_S

    def delay_s(self, now: float) -> float:
        """0 while few failed within the window, then 1, 2, 4 and so on."""
        while self.times and self.times[0] <= now - WINDOW_S:
            self.times.popleft()
        over = len(self.times) - FREE_FAILURES
        return 0.0 if over < 0 else min(2.0**over, _LONGEST_DELAY_S)


class Failed(NamedTuple):
    """What a failure leads to: of ``source`` and ``account`` those that start to be slowed by it, and for how many
    seconds the account was slowed already; 0 for not."""

    started: tuple[str, ...]
    wait_s: int


class Slowdown:
    """After five failures within 15 minutes a source, or an account, gets one try per delay, which doubles from 1 s to
    60 s. A credential that worked from the source before is never held up: others there cannot lock its owner out.
    Failures only age: a success does not undo them, or whoever has a token could guess others beside it.

    ``clock`` gives seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float], *, entries: int = _ENTRIES) -> None:
        self._clock = clock
        self._entries = entries
        self._failures: OrderedDict[tuple[str, str | bytes], _Failures] = OrderedDict()
        self._known: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, attempt: Attempt) -> int:
        """0 when the credentials may be looked at, else after how many seconds they may from this source."""
        with self._lock:
            if _pair(attempt) in self._known:
                return 0
            now = self._clock()
            held = self._failures.get(_source(attempt))
            if held is None or not held.delay_s(now):
                return 0
            if held.open_at > now:
                return math.ceil(held.open_at - now)
            # One try at a time: those that come while it is looked at wait for its outcome.
            held.open_at = now + held.delay_s(now)
            return 0

    def failed(self, attempt: Attempt, *, right: bool = False) -> Failed:
        """Counts a failure. ``right``: the credential is a right one, only not the account's, and stays known."""
        with self._lock:
            now = self._clock()
            if not right:
                self._known.pop(_pair(attempt), None)
            started, wait = [], 0.0
            for key in _keys(attempt):
                held = self._failures.setdefault(key, _Failures())
                self._failures.move_to_end(key)
                was = held.delay_s(now)
                if key[0] == "account" and was and held.open_at > now:
                    wait = held.open_at - now
                    continue
                held.times.append(now)
                held.open_at = now + held.delay_s(now)
                if not was and held.delay_s(now):
                    started.append(key[0])
            _trim(self._failures, self._entries)
            return Failed(tuple(started), math.ceil(wait))

    def succeeded(self, attempt: Attempt) -> None:
        """Remembers that the credential works from there."""
        with self._lock:
            now, held = self._clock(), self._failures.get(_source(attempt))
            if held is not None and now - held.excepted_at >= WINDOW_S and _pair(attempt) not in self._known:
                # Once per window: the token that a login has just made comes next.
                held.excepted_at = held.open_at = now
            self._known[_pair(attempt)] = None
            self._known.move_to_end(_pair(attempt))
            _trim(self._known, self._entries)


def _keys(attempt: Attempt) -> tuple[tuple[str, str | bytes], ...]:
    source = _source(attempt)
    return (source,) if attempt.account is None else (source, ("account", attempt.account))


def _source(attempt: Attempt) -> tuple[str, str | bytes]:
    return "source", _household(attempt.source)


def _pair(attempt: Attempt) -> tuple[str, bytes]:
    return _household(attempt.source), attempt.proof


def _household(source: str) -> str:
    """One customer's addresses count as one source: with IPv6 that is a /64 at least."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    return source if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


def _trim(held: OrderedDict[Any, Any], most: int) -> None:
    while len(held) > most:
        held.popitem(last=False)
