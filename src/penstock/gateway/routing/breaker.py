"""The circuit breaker of one target: it rests after too many failures, then one request probes whether it is back."""

from penstock.domain.value import Value

_HALF_WINDOW_S = 15.0
_MAX_REST_S = 60.0
_MOST_RESTS = 16
_PROBED_S = 1.0  # what clients are told to wait for a probe, whose end is not known


class BreakerRules(Value, frozen=True, kw_only=True):
    """A breaker opens when ``error_rate`` of at least ``min_calls`` recent calls failed. It first rests for
    ``rest_s``, and twice as long after every probe that fails, a minute at most unless ``rest_s`` is longer."""

    min_calls: int = 20
    error_rate: float = 0.5
    rest_s: float = 5.0


class Breaker:
    """Counts calls over the last 15 to 30 seconds. All times are seconds of one monotonic clock.

    ``take`` lets a call through and numbers it if it is a probe, whose end is told by ``close``, ``failed`` or
    ``let_go``; that of other calls by ``succeeded`` or ``failed``. What began before the breaker opened no longer moves
    it. A probe that is late is joined by a second one, so that a long answer does not keep a target out.
    """

    __slots__ = (
        "_before",
        "_calls",
        "_failed",
        "_failed_before",
        "_probes",
        "_rests",
        "_since",
        "_stale",
        "open_until",
        "probed_until",
        "rules",
    )

    def __init__(self, rules: BreakerRules) -> None:
        self.rules = rules
        self._since = 0.0
        self._before = self._failed_before = 0
        self._rests = 0
        self._calls = self._failed = 0
        self._probes = self._stale = 0  # the last probe, and the last of an earlier rest
        self.open_until = 0.0  # 0: closed
        self.probed_until = 0.0  # until then the probe is waited for; 0: there is none

    def refused_for(self, now: float) -> float:
        """Seconds until a call may be made; 0.0 when one may now. While a probe is under way its end is not known."""
        if not self.open_until:
            return 0.0
        if self.probed_until > now:
            return min(_PROBED_S, self.probed_until - now)
        return max(0.0, self.open_until - now)

    def take(self, now: float) -> int:
        """A call begins that was not refused; the number of the probe, 0 when it is none."""
        if not self.open_until:
            return 0
        if self.probed_until:  # the one before it is late
            self._rests = min(self._rests + 1, _MOST_RESTS)
        self.probed_until = now + self._rest_s(self._rests - 1)
        self._probes += 1
        return self._probes

    def succeeded(self, now: float) -> None:
        """A call that was no probe went well."""
        if self.open_until:
            return
        if now < self._since + _HALF_WINDOW_S:
            self._calls += 1
        else:
            self._count(now)

    def close(self, now: float, probe: int) -> bool:
        """The probe went well: count anew. False when it was of an earlier rest."""
        if probe <= self._stale:
            self.succeeded(now)
            return False
        self.open_until = self.probed_until = 0.0
        self._stale = self._probes
        self._rests = 0
        self._since = now
        self._before = self._failed_before = self._calls = self._failed = 0
        return True

    def failed(self, now: float, *, probe: int = 0, answered: bool = False) -> bool:
        """A call failed; true when that opened the breaker. One that was ``answered`` first takes back a success, so
        that answers which break off weigh no less than calls that never had one."""
        if probe > self._stale:
            self._open(now)
            return True
        if self.open_until:
            return False
        self._count(now)
        if answered and self._failed + self._failed_before < self._calls + self._before - 1:
            self._calls -= 1
        self._failed += 1
        calls, failures = self._calls + self._before, self._failed + self._failed_before
        if calls < self.rules.min_calls or failures < calls * self.rules.error_rate:
            return False
        self._open(now)
        return True

    def let_go(self, probe: int) -> None:
        """The probe ended in a way that says nothing of the target: the next call may probe."""
        if probe == self._probes:
            self.probed_until = 0.0

    def _count(self, now: float) -> None:
        if now >= self._since + _HALF_WINDOW_S:
            recent = now < self._since + 2 * _HALF_WINDOW_S
            self._before, self._failed_before = (self._calls, self._failed) if recent else (0, 0)
            self._since = now
            self._calls = self._failed = 0
        self._calls += 1

    def _open(self, now: float) -> None:
        self.open_until = now + self._rest_s(self._rests)
        self.probed_until = 0.0
        self._stale = self._probes
        self._rests = min(self._rests + 1, _MOST_RESTS)

    def _rest_s(self, doublings: int) -> float:
        return min(self.rules.rest_s * 2.0**doublings, max(self.rules.rest_s, _MAX_REST_S))
