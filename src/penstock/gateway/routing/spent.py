"""What a request used and what its attempts cost, also where an answer was cut and its upstream told nothing.

Known is what an upstream said and what of its answer arrived. Not known is what it did before it noticed that we had
hung up, and whether it charges for that. docs/metering.md says what is assumed instead.
"""

from collections.abc import Callable

import msgspec

from penstock.domain.answer import Produced
from penstock.domain.money import price_nanos
from penstock.domain.usage import Usage, consistent
from penstock.gateway.routing.attempt import Attempt, Trail


def measured(usage: Usage | None, tokens: int, prompt: Callable[[], int], *, whole: bool = False) -> Usage:
    """The upstream's own counts, completed where it has not given them all: ``tokens`` are the deltas counted,
    ``prompt`` estimates the length of the prompt. What it said before the ``whole`` answer was there may have been said
    early: deltas then count where they are more."""
    if usage is None:
        return Usage(input_tokens=prompt(), output_tokens=tokens, estimated=True)
    if usage.estimated or (not whole and usage.output_tokens < tokens):
        said = usage.input_tokens or prompt()
        more = max(usage.output_tokens, tokens)
        usage = msgspec.structs.replace(usage, input_tokens=said, output_tokens=more, estimated=True)
    return consistent(usage)


def under_way(trail: Trail) -> tuple[Attempt, Produced] | None:
    """Of the attempts that have not ended, the one whose upstream has produced most, if any has."""
    found = [(one, one.produced) for one in trail.attempts if one.outcome is None and one.produced]
    return max(found, key=lambda pair: pair[1].tokens, default=None)


def calling(trail: Trail) -> bool:
    """Whether an upstream is at work on the request."""
    return any(one.outcome is None for one in trail.attempts)


def cost(trail: Trail, usage: Usage, prompt: Callable[[], int]) -> tuple[int | None, str | None]:
    """What all attempts of a request that is over cost, in 10^-9, and the currency; None where that of the one which
    the client heard of is unknown. ``usage`` is the request's. Attempts in another currency are left out."""
    told = trail.told
    if told is not None and (told.target.rate is None or (len(trail.attempts) == 1 and not told.produced)):
        rate = told.target.rate
        return (price_nanos(usage, rate), rate.currency) if rate else (None, None)
    total, currency = 0, told.target.rate.currency if told is not None and told.target.rate else None
    for attempt in trail.attempts:
        rate = attempt.target.rate
        if rate is None or currency not in (None, rate.currency):
            continue
        currency = rate.currency
        total += price_nanos(usage if _is_answer(attempt, told) else _spent(attempt, prompt), rate)
    return (total, currency) if currency else (None, None)


def _is_answer(attempt: Attempt, told: Attempt | None) -> bool:
    """Whether the request's usage is this attempt's."""
    return attempt is told and (attempt.first_event_ms is not None or attempt.cut)


def _spent(attempt: Attempt, prompt: Callable[[], int]) -> Usage:
    """What an attempt used that gave no answer. One that we ended had its prompt read, as far as we know; one that
    failed by itself has cost nothing but what it produced."""
    produced = attempt.produced
    if produced:
        return measured(produced.usage, produced.tokens, prompt)
    return Usage(input_tokens=prompt(), estimated=True) if attempt.cut else Usage()
