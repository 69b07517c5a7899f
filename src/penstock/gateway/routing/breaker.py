"""The circuit breaker of one target: it rests after too many failures, then one request probes whether it is back."""

import msgspec

_HALF_WINDOW_S = 15.0
_MAX_REST_S = 60.0
_PROBED_S = 1.0


class BreakerRules(msgspec.Struct, frozen=True, kw_only=True):
    """A breaker opens when ``error_rate`` of at least ``min_calls`` recent calls failed. It first rests for
    ``rest_s``, and twice as long after every probe that fails, a minute at most unless ``rest_s`` is longer."""

    min_calls: int = 20
    error_rate: float = 0.5
    rest_s: float = 5.0


class Breaker:
    """Counts calls over the last 15 to 30 seconds. All times are seconds of one monotonic clock.

    ``take`` lets a call through and tells whether it is the probe, whose end is told by ``close``, ``failed`` or
    ``let_go``; that of other calls by ``succeeded`` or ``failed``. What began before the breaker opened no longer moves
    it.
    """

    __slots__ = (
        "_before",
        "_calls",
        "_failed",
        "_failed_before",
        "_rests",
        "_since",
        "open_until",
        "probing",
        "rules",
    )

    def __init__(self, rules: BreakerRules) -> None:
        self.rules = rules
        self._since = 0.0
        self._before = self._failed_before = 0
        self._rests = 0
        self._calls = self._failed = 0
        self.open_until = 0.0  # 0: closed
        self.probing = False

    def refused_for(self, now: float) -> float:
        """Seconds until a call may be made; 0.0 when one may now. While a probe is under way its end is not known."""
        if not self.open_until:
            return 0.0
        return _PROBED_S if self.probing else max(0.0, self.open_until - now)

    def take(self) -> bool:
        """A call begins that was not refused; true when it is the probe."""
        self.probing = bool(self.open_until)
        return self.probing

    def succeeded(self, now: float) -> None:
        """A call that was no probe went well."""
        if self.open_until:
            return
        if now < self._since + _HALF_WINDOW_S:
            self._calls += 1
        else:
            self._count(now)

    def close(self, now: float) -> None:
        """The probe went well: count anew."""
        self.open_until = 0.0
        self.probing = False
        self._rests = 0
        self._since = now
        self._before = self._failed_before = self._calls = self._failed = 0

    def failed(self, now: float, *, probe: bool) -> bool:
        """A call failed; true when that opened the breaker."""
        if probe:
            self.probing = False
            self._open(now)
            return True
        if self.open_until:
            return False
        self._count(now)
        self._failed += 1
        calls, failures = self._calls + self._before, self._failed + self._failed_before
        if calls < self.rules.min_calls or failures < calls * self.rules.error_rate:
            return False
        self._open(now)
        return True

    def let_go(self) -> None:
        """The probe ended in a way that says nothing of the target: the next call may probe."""
        self.probing = False

    def _count(self, now: float) -> None:
        if now >= self._since + _HALF_WINDOW_S:
            recent = now < self._since + 2 * _HALF_WINDOW_S
            self._before, self._failed_before = (self._calls, self._failed) if recent else (0, 0)
            self._since = now
            self._calls = self._failed = 0
        self._calls += 1

    def _open(self, now: float) -> None:
        self.open_until = now + min(self.rules.rest_s * 2**self._rests, max(self.rules.rest_s, _MAX_REST_S))
        self._rests = min(self._rests + 1, 16)
