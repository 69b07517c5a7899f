"""One attempt at one target, from its first step to its one end, and the trail of all attempts of a request."""

from collections.abc import Callable

from penstock.domain.answer import Produced
from penstock.domain.catalogue import Target
from penstock.gateway.routing.health import Health
from penstock.ledger.records import Leg

# What a target's breaker counts as its failure. Not its rate limit, which says when to come back; not a credential or
# model that it does not know, nor a refusal: a caller could then open the breaker for all others.
_ITS_OWN_DOING = frozenset({"upstream_error", "upstream_closed", "upstream_timeout", "upstream_overloaded"})
_LOGGED = _ITS_OWN_DOING | {"upstream_misconfigured", "upstream_rate_limited"}
_ASKS_TO_WAIT = frozenset({"upstream_rate_limited", "upstream_overloaded"})


class Attempt:
    """A call of a target. It holds the target's slot, if there is one to hold, until ``end``. ``produced`` is what its
    adapter saw of an answer that never began; ``cut`` says that it was still under way when we ended it."""

    __slots__ = (
        "_free",
        "_health",
        "_probe",
        "began_at",
        "cut",
        "first_event_ms",
        "name",
        "outcome",
        "produced",
        "target",
        "total_ms",
    )

    def __init__(self, target: Target, health: Health, free: Callable[[], None] | None) -> None:
        self.target = target
        self.name = health.name
        self.outcome: str | None = None
        self.first_event_ms: float | None = None
        self.total_ms = 0.0
        self.produced: Produced | None = None
        self.cut = False
        self._health = health
        self._free = free
        self.began_at = health.clock()
        self._probe = health.breaker.take(self.began_at) if health.breaker.open_until else 0
        health.outstanding += 1

    def answered(self, *, streamed: bool | None, timed: bool) -> None:
        """The first event is there; ``timed`` when a choice between targets may look at how long that took."""
        health = self._health
        now = health.clock()
        seconds = now - self.began_at
        self.first_event_ms = seconds * 1000
        if timed:
            health.speed(streamed=streamed).add(seconds, now)
        if self._probe:
            health.recovered(now, self._probe)
            self._probe = 0
        else:
            health.breaker.succeeded(now)

    def end(self, outcome: str, *, retry_after_s: int | None = None, status: int | None = None) -> None:
        """It is over: ``outcome`` as the settlement names it, ``status`` what the upstream answered. The first end
        counts."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        health = self._health
        now = health.clock()
        self.total_ms = (now - self.began_at) * 1000
        health.outstanding -= 1
        if self._free is not None:
            self._free()
        if outcome in _LOGGED:
            health.log(now, outcome, status)
        if outcome in _ITS_OWN_DOING:
            health.failed(now, outcome, probe=self._probe, answered=self.first_event_ms is not None)
        elif self._probe:
            health.breaker.let_go(self._probe)
        if retry_after_s is not None and outcome in _ASKS_TO_WAIT:
            health.rest(now + retry_after_s, outcome)

    def lost(self, *, streamed: bool | None) -> None:
        """Another target's first event came first. The time so far counts as this one's: without the late ones, what
        is called late would sink and sink."""
        if self.outcome is None and self.first_event_ms is None:
            now = self._health.clock()
            self._health.speed(streamed=streamed).add(now - self.began_at, now)
        self.cut = self.cut or self.outcome is None
        self.end("cancelled")

    def leg(self, outcome: str) -> Leg:
        """What the journal keeps of it, with that outcome and the time so far while it is under way."""
        if self.outcome is not None:
            return Leg(self.name, self.outcome, self.first_event_ms, self.total_ms)
        return Leg(self.name, outcome, self.first_event_ms, (self._health.clock() - self.began_at) * 1000)


class Trail:
    """The attempts of one request in the order in which they began. ``told`` is the one that the client hears of: the
    answer's, or the one whose failure was chosen; ``uncalled`` names the target of that failure if nobody called it.
    In queues the request waits as one of ``app_id``, which has that ``weight``."""

    __slots__ = ("app_id", "attempts", "told", "uncalled", "weight")

    def __init__(self) -> None:
        self.app_id = ""
        self.weight = 1
        self.attempts: list[Attempt] = []
        self.told: Attempt | None = None
        self.uncalled: str | None = None

    def begin(self, target: Target, health: Health, free: Callable[[], None] | None) -> Attempt:
        """One more attempt."""
        attempt = Attempt(target, health, free)
        self.attempts.append(attempt)
        return attempt

    def so_far(self, outcome: str) -> tuple[Leg, ...]:
        """What ``end`` would tell of them now, with that outcome for those under way; none of them ends."""
        return tuple([one.leg(outcome) for one in self.attempts])

    def end(self, outcome: str) -> tuple[Leg, ...]:
        """The request is over, and so is what was under way for it. All its attempts, as the settlement keeps them."""
        for attempt in self.attempts:
            if attempt.outcome is None:
                attempt.cut = outcome != "completed"
                attempt.end(outcome)
        return tuple([one.leg(outcome) for one in self.attempts])
