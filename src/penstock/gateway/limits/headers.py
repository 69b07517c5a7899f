"""The ``x-ratelimit-`` headers (heroku-wire.md 2.10): of the limit that has the least left in proportion."""

from collections.abc import Sequence

from penstock.gateway.limits.rules import Rule, Rules
from penstock.ledger.leases import Leases

Headers = list[tuple[bytes, bytes]]


class RateHeaders:
    """Writes the headers of one set of rules; what never changes is kept."""

    __slots__ = ("_leases", "_requests", "_tokens")

    def __init__(self, leases: Leases, rules: Rules) -> None:
        self._leases = leases
        self._requests = _prepared(rules.requests)
        self._tokens = _prepared(rules.tokens)

    def add_to(self, headers: Headers) -> None:
        """Put them behind ``headers``; nothing where no rate is limited."""
        if self._requests:
            self._add(headers, self._requests, _REQUESTS)
        if self._tokens:
            self._add(headers, self._tokens, _TOKENS)

    def _add(self, headers: Headers, rules: "_Prepared", names: tuple[bytes, bytes, bytes]) -> None:
        left = self._leases.left
        if len(rules) == 1:
            rule, limit = rules[0]
            remaining, resets_s = left(rule.counter)
        else:
            least = 2.0
            for candidate, its_limit in rules:
                its_left, its_reset = left(candidate.counter)
                share = its_left / candidate.counter.limit if candidate.counter.limit else 0.0
                if share < least:
                    least, limit, remaining, resets_s = share, its_limit, its_left, its_reset
        headers.append((names[0], limit))
        headers.append((names[1], b"%d" % max(0, remaining)))
        headers.append((names[2], b"%ds" % -int(-resets_s // 1)))


_Prepared = Sequence[tuple[Rule, bytes]]
_REQUESTS, _TOKENS = (
    (b"x-ratelimit-limit-" + of, b"x-ratelimit-remaining-" + of, b"x-ratelimit-reset-" + of)
    for of in (b"requests", b"tokens")
)


def _prepared(rules: Sequence[Rule]) -> _Prepared:
    return tuple((rule, b"%d" % rule.counter.limit) for rule in rules)
