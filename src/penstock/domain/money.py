"""Money: exact decimals, rounded once, here. Stored and summed as whole 10^-9 of the currency."""

import hashlib
import math
import re
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import NamedTuple

import msgspec

from penstock.domain.catalogue import Rate
from penstock.domain.usage import Usage, consistent

NANOS = 1_000_000_000
_MILLION = 1_000_000
_MOST_TARIFFS = 4096
# A billion of the currency: sums of nine such amounts still fit a BIGINT.
MAX_NANOS = 10**18
# A million of the currency, the most that one answer is charged, and a price says: sums of nine thousand still fit.
MAX_PRICE = Decimal(1_000_000)
MAX_PRICE_NANOS = 10**15
_PRICE = re.compile(r"-?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,2})?", re.ASCII)


def price_nanos(usage: Usage, rate: Rate, *, percent: int = 100) -> int:
    """What an answer costs, or a percentage of it, in 10^-9 of the rate's currency, rounded half to even: the only
    rounding there is.

    Formula: tokens of each kind times their rate over a million; what was read from a cache or written to one is a part
    of the input (domain/usage.py) and is charged at its own rate instead. Parts that are larger than their whole are
    cut to it. No answer costs more than MAX_PRICE.
    """
    usage = consistent(usage)
    entry, read, write, output, scale = _tariff(rate).whole
    plain = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    millionths = (
        plain * entry
        + usage.cached_input_tokens * read
        + usage.cache_write_tokens * write
        + usage.output_tokens * output
    )
    # A million tokens of 10^9 each, and a hundred percent.
    amount, rest = divmod(millionths * percent * 10, scale)
    if rest * 2 > scale or (rest * 2 == scale and amount % 2):
        amount += 1
    return min(amount, MAX_PRICE_NANOS)


class _Tariff(NamedTuple):
    """What follows from a ``rate``: its version, and ``whole`` numbers for it (see _whole_rates)."""

    rate: Rate
    version: str
    whole: tuple[int, int, int, int, int]


_tariffs: dict[int, _Tariff] = {}


def _tariff(rate: Rate) -> _Tariff:
    """By the object's identity, which it keeps as long as it stands here: its hash costs more than the price."""
    found = _tariffs.get(id(rate))
    if found is None:
        if len(_tariffs) >= _MOST_TARIFFS:
            _tariffs.clear()
        found = _tariffs[id(rate)] = _Tariff(rate, _version(rate), _whole_rates(rate))
    return found


def _whole_rates(rate: Rate) -> tuple[int, int, int, int, int]:
    """The rates of input, of reading and writing a cache, and of output, as whole numbers of one unit, and how many of
    it are one."""
    read = rate.input if rate.cached_input is None else rate.cached_input
    write = rate.input if rate.cache_write is None else rate.cache_write
    exact = [Fraction(one) for one in (rate.input, read, write, rate.output)]
    scale = math.lcm(*(one.denominator for one in exact))
    entry, read_, write_, output = (int(one * scale) for one in exact)
    return entry, read_, write_, output, scale


def worst_price(rate: Rate, *, input_tokens: int, output_tokens: int) -> int:
    """The most, in 10^-9, that a request with at most so many tokens can cost, whatever is cached; rounded up."""
    dearest = max(rate.input, rate.cached_input or rate.input, rate.cache_write or rate.input)
    with localcontext(prec=60):
        exact = (input_tokens * dearest + output_tokens * rate.output) * NANOS / _MILLION
        return min(int(exact.to_integral_value("ROUND_CEILING")), MAX_PRICE_NANOS)


def rate_number(value: str | float) -> Decimal:
    """A price of a million tokens, as text or number. Raises ValueError, which says what is wrong and wanted."""
    text = str(value).strip()
    if not _PRICE.fullmatch(text):
        raise ValueError(f'{text[:40]!r} is no price; write it as 3 or "0.25"')
    number = Decimal(text)
    if number < 0:
        raise ValueError(f"{text[:40]} is negative")
    if number > MAX_PRICE:
        raise ValueError(f"{text[:40]} is more than {MAX_PRICE}, which a million tokens cost at most")
    return number


def nanos(amount: Decimal) -> int:
    """An amount as whole 10^-9. Raises ValueError for one with more digits than that, or too large to keep."""
    with localcontext(prec=60):
        scaled = amount * NANOS
        if not amount.is_finite() or scaled != scaled.to_integral_value():
            raise ValueError("money has at most 9 digits after the point")
        if abs(scaled) > MAX_NANOS:
            raise ValueError("the amount is too large")
        return int(scaled)


def from_nanos(count: int) -> Decimal:
    """The amount again, without trailing zeros: ``Decimal("0.5")``."""
    with localcontext(prec=60):
        amount = Decimal(count).scaleb(-9).normalize()
        return amount.quantize(Decimal(1)) if amount == amount.to_integral_value() else amount


def shown(count: int) -> str:
    """10^-9 as text without exponent: ``0.000000015``."""
    return f"{from_nanos(count):f}"


def price_version(rate: Rate) -> str:
    """Names what a rate says: 16 hex digits, the same for the same prices everywhere and ever."""
    return _tariff(rate).version


def _version(rate: Rate) -> str:
    # 1.0 and 1 are one price: equal decimals are written in one way.
    said = {name: _plainly(value) for name, value in msgspec.structs.asdict(rate).items()}
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()[:16]


def _plainly(value: Decimal | str | None) -> str | None:
    return f"{value.normalize():f}" if isinstance(value, Decimal) else value
