"""What each failure before the first event means for the attempts that may follow, and which one the client is told.

docs/routing.md shows this table to operators.
"""

import math
from typing import NamedTuple

from penstock.domain.catalogue import Target
from penstock.domain.errors import PenstockError
from penstock.gateway.routing.attempt import Attempt
from penstock.gateway.routing.board import Board

# Passing failures: the next target, then the same ones again.
_PASSING = frozenset(
    {"upstream_error", "upstream_closed", "upstream_timeout", "upstream_overloaded", "upstream_rate_limited"}
)
# Another target may do better; the same one will not, not this soon.
_ELSEWHERE = frozenset(
    {
        "upstream_misconfigured",
        "upstream_busy",
        "engine_not_ready",
        "context_length_exceeded",
        "unsupported_parameter",
        "unsupported_schema",
        "image_unavailable",
    }
)
# Which failure is the most useful to the client: the one that waiting mends, then the one that trying again may mend,
# then what the client can change itself, and last what only the operator can mend.
_WAIT, _AGAIN, _RESTING, _CALLERS, _OPERATORS = 5, 4, 3, 2, 1
_USE = {
    "upstream_rate_limited": _WAIT,
    "upstream_overloaded": _WAIT,
    "upstream_busy": _WAIT,
    "engine_not_ready": _WAIT,
    "upstream_unavailable": _RESTING,
    "context_length_exceeded": _CALLERS,
    "unsupported_parameter": _CALLERS,
    "unsupported_schema": _CALLERS,
    "image_unavailable": _CALLERS,
    "upstream_misconfigured": _OPERATORS,
}

# A request waits no longer than this for a target that says when to come back; then its client does better to.
LONGEST_WAIT_S = 2
# What took this long to fail is not asked again of the same target.
_PATIENCE_MS = 10_000
_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 2.0


class _Failure(NamedTuple):
    target: Target
    error: PenstockError
    attempt: Attempt | None = None
    again: bool = False


class Failures:
    """Why no attempt of a request has been answered yet."""

    __slots__ = ("_all", "_pauses")

    def __init__(self) -> None:
        self._all: dict[str, _Failure] = {}  # the last one of each target, in the order in which they came
        self._pauses = 0

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, target: Target, error: PenstockError, attempt: Attempt | None = None) -> None:
        """One more. Raises it when no target can mend it: it is the caller's fault, or nobody's."""
        if error.code not in _PASSING and error.code not in _ELSEWHERE and error.code != "upstream_unavailable":
            raise error
        patient = attempt is None or attempt.total_ms <= _PATIENCE_MS
        again = error.code in _PASSING and patient and _wait_s(error) <= LONGEST_WAIT_S
        self._all.pop(target.name, None)
        self._all[target.name] = _Failure(target, error, attempt, again)

    def rests(self, target: Target, seconds: float) -> None:
        """The target was not called: its breaker is open for so long."""
        if (earlier := self._all.get(target.name)) is not None:
            self._all[target.name] = earlier._replace(again=False)
        else:
            message = "Every target of this model failed lately and rests for a moment. Wait and try again."
            self.add(target, PenstockError("upstream_unavailable", message, retry_after_s=max(1, math.ceil(seconds))))

    def too_small(self, target: Target) -> bool:
        """Whether a target with a window at least as large has found the prompt too long."""
        window = target.context_window
        return window is not None and any(
            failure.error.code == "context_length_exceeded"
            and failure.target.context_window is not None
            and failure.target.context_window >= window
            for failure in self._all.values()
        )

    def pause(self, board: Board) -> tuple[float, list[Target]]:
        """The targets that may be tried again, soonest first, and the seconds to wait before it: what they ask for, and
        a random share of a bound that doubles from 0.1 to 2 s."""
        again = [
            f
            for f in self._all.values()
            if f.again and not board.health(f.target.name).refused_for() and not self.too_small(f.target)
        ]
        if not again:
            return 0.0, []
        again.sort(key=lambda failure: _wait_s(failure.error))
        jitter = board.dice.uniform(0, min(_BACKOFF_S * 2.0 ** min(self._pauses, 10), _MAX_BACKOFF_S))
        self._pauses += 1
        return _wait_s(again[0].error) + jitter, [failure.target for failure in again]

    def told(self) -> _Failure:
        """The most useful one to the client; of several such the shortest wait, then the last."""
        useful = max(_USE.get(failure.error.code, _AGAIN) for failure in self._all.values())
        last_first = [f for f in reversed(self._all.values()) if _USE.get(f.error.code, _AGAIN) == useful]
        return min(last_first, key=lambda failure: failure.error.retry_after_s or 0)


def _wait_s(error: PenstockError) -> int:
    # The wait that clients are advised when nothing listens is not for us: a moment later somebody may.
    return 0 if error.code == "upstream_error" else error.retry_after_s or 0
