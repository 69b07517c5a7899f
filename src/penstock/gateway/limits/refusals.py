"""What a client is told when a limit or a budget refuses: which one, of which object, and when it frees."""

import math
from datetime import UTC, datetime

from penstock.domain.errors import PenstockError
from penstock.domain.money import shown
from penstock.gateway.limits.rules import MaxTokens, Rule

_SOON_S = 1
_WINDOW_S = 60
_DAY_S = 86_400
_PERIODS = {"day": "a day", "week": "a week", "month": "a month", "total": "in all"}
# A stock client that is not told otherwise waits for what Retry-After says, up to a minute.
_WORTH_WAITING_S = 60


def too_many_tokens(most: MaxTokens) -> PenstockError:
    """The request's bound on its output is above the limit."""
    message = (
        f"{_capital(most.who)} may ask for {_count(most.limit, 'output token')} in one request{_of(most.model)}, those "
        "of all choices and of extended_thinking together. Lower max_tokens."
    )
    return PenstockError("max_tokens_exceeded", message, param="max_tokens")


def no_permit(rule: Rule, frees_in_s: float | None) -> PenstockError:
    """Too many requests are open."""
    limit = _count(rule.counter.limit, "request")
    message = f"{_capital(rule.who)} may have {limit} open at once{_of(rule.model)}. Try again when one has ended."
    wait_s = _seconds(frees_in_s, _SOON_S)
    return PenstockError("concurrency_limit_exceeded", message, retry_after_s=wait_s)


def too_fast(rule: Rule, frees_in_s: float | None) -> PenstockError:
    """A rate of requests is used up."""
    return _too_fast(rule, f"make {_count(rule.counter.limit, 'request')}", "", frees_in_s)


def too_many(rule: Rule, frees_in_s: float | None, *, left: int, needs: int) -> PenstockError:
    """A rate of tokens has fewer left than the prompt is estimated at."""
    said = f"; {max(0, left)} are left and the prompt counts as about {needs}"
    return _too_fast(rule, f"use {_count(rule.counter.limit, 'token')}", said, frees_in_s)


def _too_fast(rule: Rule, may: str, said: str, frees_in_s: float | None) -> PenstockError:
    wait_s = min(_seconds(frees_in_s, _SOON_S), _WINDOW_S)
    message = f"{_capital(rule.who)} may {may} a minute{_of(rule.model)}{said}; this limit frees in {wait_s} s."
    return PenstockError("rate_limit_exceeded", message, retry_after_s=wait_s)


def no_money(rule: Rule, *, left: int, least: int, on_hold: int, now: float) -> PenstockError:
    """A budget does not hold the ``least`` that the request may cost. ``on_hold`` is what requests may give back that
    are open, or have just ended; ``now`` is Unix time."""
    budget = rule.counter.budget
    assert budget is not None
    money = budget.currency
    has = f"{_capital(rule.who)} may spend {shown(budget.amount_nanos)} {money} {_PERIODS[budget.period]}"
    costs = f"of that {shown(max(0, left))} {money} is left, and this request needs {shown(least)} {money} at least"
    said = f"{has}{_of(rule.model)}; {costs}."
    if least > budget.amount_nanos:
        message = f"{said} Even unused the budget is too small for it: waiting never helps, the operator can raise it."
        return PenstockError("budget_exceeded", message, retry_after_s=_DAY_S, should_retry=False)
    if left + on_hold >= least:
        held = f"Requests that are open, or have just ended, hold {shown(on_hold)} {money}"
        message = f"{said} {held}: try again when one has ended."
        return PenstockError("budget_exceeded", message, retry_after_s=_SOON_S, should_retry=True)
    if rule.frees_at is None:
        message = f"{said} It does not begin anew: the operator can raise it."
        return PenstockError("budget_exceeded", message, retry_after_s=_DAY_S, should_retry=False)
    begins = datetime.fromtimestamp(rule.frees_at, UTC).strftime("%Y-%m-%dT%H:%MZ")
    wait_s = _seconds(rule.frees_at - now, _SOON_S)
    message = f"{said} It begins anew at {begins}, in {wait_s} s; the operator can raise it."
    return PenstockError(
        "budget_exceeded", message, retry_after_s=wait_s, should_retry=None if wait_s <= _WORTH_WAITING_S else False
    )


def _seconds(seconds: float | None, otherwise: int) -> int:
    return otherwise if seconds is None else max(1, math.ceil(seconds))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _of(model: str) -> str:
    return f" of {model}" if model else ""


def _capital(who: str) -> str:
    return who[:1].upper() + who[1:]
