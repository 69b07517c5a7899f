"""What one worker knows of one target: its breaker, how long it asked to be left alone, its load and its speed."""

import logging
from collections import deque
from collections.abc import Callable

from penstock.gateway.routing.breaker import Breaker, BreakerRules

_log = logging.getLogger("penstock.gateway")
_WEIGHT = 0.3  # of the newest time in the mean
_HALF_LIFE_S = 60.0
_SAMPLES = 100
_ENOUGH = 20
_LEAST_S = 0.05
_NEWS_S = 1.0
_LOG_S = 10.0
_NEVER = float("inf")


class Speed:
    """Recent times to the first event, in seconds: a moving mean that fades, and the samples behind the percentile."""

    __slots__ = ("_at", "_mean", "samples")

    def __init__(self) -> None:
        self._mean = -1.0
        self._at = 0.0
        self.samples: deque[float] = deque(maxlen=_SAMPLES)

    def add(self, seconds: float, now: float) -> None:
        """One more time."""
        self._mean = seconds if self._mean < 0 else self._mean + _WEIGHT * (seconds - self._mean)
        self._at = now
        self.samples.append(seconds)

    def mean(self, now: float) -> float | None:
        """The mean, halved for every minute without news, so that a target that was slow is tried again; None when
        nothing is known."""
        return None if self._mean < 0 else self._mean * 0.5 ** ((now - self._at) / _HALF_LIFE_S)

    def chosen(self, now: float) -> None:
        """A request goes there to find out: until it knows, the old mean counts in full for the others."""
        self._at = now

    def late_after(self) -> float | None:
        """The 95th percentile, 50 ms at least; None with fewer than 20 samples."""
        if len(self.samples) < _ENOUGH:
            return None
        return max(_LEAST_S, sorted(self.samples)[int(0.95 * (len(self.samples) - 1))])


class Health:
    """One target at one worker. ``outstanding`` counts calls that wait or are under way; ``changed`` is called when
    what the health pages show has changed."""

    __slots__ = (
        "_changed",
        "_logged",
        "_told_until",
        "answers",
        "breaker",
        "clock",
        "error",
        "name",
        "outstanding",
        "rest_until",
        "streams",
    )

    def __init__(self, name: str, rules: BreakerRules, clock: Callable[[], float], changed: Callable[[], None]) -> None:
        self.name = name
        self.clock = clock
        self.breaker = Breaker(rules)
        self.outstanding = 0
        self.rest_until = 0.0  # asked for by Retry-After; holds while other targets can serve
        self.error: str | None = None
        self._changed = changed
        self._told_until = 0.0
        self._logged: dict[str, tuple[int, float]] = {}  # by code: calls since the last line, and when that was
        # A plain answer's first event is all of it: its time is compared with that of other plain answers alone.
        self.answers, self.streams = Speed(), Speed()

    def speed(self, *, streamed: bool | None) -> Speed:
        """Of streams, or of plain answers."""
        return self.streams if streamed else self.answers

    def refused_for(self) -> float:
        """Seconds until the breaker lets a call through, 0.0 when it does now."""
        return self.breaker.refused_for(self.clock()) if self.breaker.open_until else 0.0

    def recovered(self, now: float, probe: int) -> None:
        """The probe was answered."""
        if self.breaker.close(now, probe):
            self._changed()

    def failed(self, now: float, code: str, *, probe: int, answered: bool) -> None:
        """A call failed by the target's own doing, before or after its first event."""
        self.error = code
        if self.breaker.failed(now, probe=probe, answered=answered):
            self._changed()

    def log(self, now: float, code: str, status: int | None) -> None:
        """Tell the operator that a call failed: a kind at once, and then every 10 s how often. Without the upstream's
        own words: they may quote a prompt."""
        unsaid, said_at = self._logged.get(code, (0, -_LOG_S))
        if now < said_at + _LOG_S:
            self._logged[code] = (unsaid + 1, said_at)
            return
        self._logged[code] = (0, now)
        answered = f" (status {status})" if status else ""
        more = f", and {unsaid} times since the last such line" if unsaid else ""
        _log.warning("a call of %s failed: %s%s%s", self.name, code, answered, more)

    def rest(self, until: float, code: str) -> None:
        """The target asked to be left alone until then."""
        self.rest_until = max(self.rest_until, until)
        if self.rest_until > self._told_until + _NEWS_S:
            self.error, self._told_until = code, self.rest_until
            self._changed()

    def state(self) -> tuple[str, float]:
        """``open`` or ``resting`` with the end on the clock; ``closed`` with 0.0."""
        if self.breaker.open_until:
            return "open", self.breaker.open_until
        return ("resting", self.rest_until) if self.rest_until > self.clock() else ("closed", 0.0)
