"""The ``x-ratelimit-`` headers (heroku-wire.md 2.10): of the limit that has the least left in proportion."""

import math
import time
from collections.abc import Sequence

from penstock.gateway.limits.rules import Rule, Rules
from penstock.ledger.bundle import Bundle

Headers = list[tuple[bytes, bytes]]


class RateHeaders:
    """Writes the headers of one set of rules."""

    __slots__ = ("_bundle", "_kinds", "_said", "_until")

    def __init__(self, bundle: Bundle, rules: Rules) -> None:
        self._bundle = bundle
        kinds = ((rules.requests, _REQUESTS, False), (rules.tokens, _TOKENS, True))
        self._kinds = [(_limits(names, its), names, of_tokens) for its, names, of_tokens in kinds if its]
        self._said: Headers = []
        self._until = 0.0 if self._kinds else math.inf

    def add_to(self, headers: Headers) -> None:
        """Put them behind ``headers``; nothing where no rate is limited."""
        if (now := time.monotonic()) >= self._until:
            self._say(now)
        headers += self._said

    def _say(self, now: float) -> None:
        said: Headers = []
        fewest = math.inf
        for limits, (_, remaining, reset), of_tokens in self._kinds:
            at, units, resets_s = self._bundle.poorest(of_tokens=of_tokens)
            said += limits[at], (remaining, b"%d" % units), (reset, b"%ds" % math.ceil(resets_s))
            fewest = min(fewest, units)
        self._said = said
        self._until = now + _FRESH_S if fewest >= _MANY else 0.0


_REQUESTS, _TOKENS = (
    (b"x-ratelimit-limit-" + of, b"x-ratelimit-remaining-" + of, b"x-ratelimit-reset-" + of)
    for of in (b"requests", b"tokens")
)
# While so many are left, nobody can tell a count that is a moment old: other workers take from it all the time.
_MANY = 1000
_FRESH_S = 0.01


def _limits(names: Sequence[bytes], rules: Sequence[Rule]) -> Headers:
    return [(names[0], b"%d" % rule.counter.limit) for rule in rules]
