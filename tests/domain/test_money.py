"""Money is exact: one rounding, never below nothing, and no more than the bound that is held before a request."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from penstock.domain.catalogue import Rate
from penstock.domain.money import (
    MAX_NANOS,
    MAX_PRICE_NANOS,
    NANOS,
    from_nanos,
    nanos,
    price_nanos,
    price_version,
    shown,
    worst_price,
)
from penstock.domain.usage import Usage, consistent

counts = st.integers(0, 2_000_000)
rates = st.decimals(0, 10_000, places=6)
optional = st.none() | rates
RATES = st.builds(Rate, input=rates, output=rates, cached_input=optional, cache_write=optional)


@st.composite
def sound(draw: st.DrawFn) -> Usage:
    """Counts whose parts are parts."""
    read, written, plain = draw(counts), draw(counts), draw(counts)
    thought, said = draw(counts), draw(counts)
    return Usage(
        input_tokens=read + written + plain,
        cached_input_tokens=read,
        cache_write_tokens=written,
        output_tokens=thought + said,
        reasoning_tokens=thought,
    )


any_usage = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cached_input_tokens=counts,
    cache_write_tokens=counts,
    reasoning_tokens=counts,
)


def exact(usage: Usage, rate: Rate) -> Fraction:
    """The price before the rounding, by the definition."""
    plain = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    read = rate.input if rate.cached_input is None else rate.cached_input
    write = rate.input if rate.cache_write is None else rate.cache_write
    parts = (
        (plain, rate.input),
        (usage.cached_input_tokens, read),
        (usage.cache_write_tokens, write),
        (usage.output_tokens, rate.output),
    )
    return sum((count * Fraction(per_million) for count, per_million in parts), Fraction()) / 1_000_000


@given(sound(), RATES, st.integers(0, 100))
def test_the_price_is_the_exact_one_rounded_once_half_to_even(usage: Usage, rate: Rate, percent: int) -> None:
    # Fraction's own rounding is half to even.
    assert price_nanos(usage, rate) == round(exact(usage, rate) * NANOS)
    assert price_nanos(usage, rate, percent=percent) == round(exact(usage, rate) * percent / 100 * NANOS)


@given(any_usage, RATES)
def test_a_price_is_never_negative_and_never_above_the_bound_that_was_held(usage: Usage, rate: Rate) -> None:
    held = worst_price(rate, input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
    assert 0 <= price_nanos(usage, rate) <= held


@given(sound(), sound(), RATES)
def test_two_prices_and_the_price_of_both_differ_by_their_roundings_alone(one: Usage, other: Usage, rate: Rate) -> None:
    both = Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cached_input_tokens=one.cached_input_tokens + other.cached_input_tokens,
        cache_write_tokens=one.cache_write_tokens + other.cache_write_tokens,
    )
    apart = price_nanos(one, rate) + price_nanos(other, rate)
    assert abs(apart - price_nanos(both, rate)) <= 1


@given(sound(), RATES, st.integers(1, 1000))
def test_more_tokens_never_cost_less(usage: Usage, rate: Rate, more: int) -> None:
    longer = Usage(
        input_tokens=usage.input_tokens + more,
        output_tokens=usage.output_tokens + more,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    assert price_nanos(longer, rate) >= price_nanos(usage, rate)


@given(st.builds(Usage, input_tokens=st.integers(), output_tokens=st.integers(), cached_input_tokens=st.integers()))
def test_whatever_was_counted_the_amount_can_be_kept(usage: Usage) -> None:
    rate = Rate(input=Decimal(1_000_000), output=Decimal(1_000_000))
    assert 0 <= price_nanos(usage, rate) <= MAX_PRICE_NANOS
    held = worst_price(rate, input_tokens=max(0, usage.input_tokens), output_tokens=max(0, usage.output_tokens))
    assert price_nanos(usage, rate) <= held


@given(any_usage)
def test_parts_larger_than_their_whole_are_cut_to_it_and_marked(usage: Usage) -> None:
    cut = consistent(usage)
    assert cut.cached_input_tokens + cut.cache_write_tokens <= cut.input_tokens == usage.input_tokens
    assert cut.reasoning_tokens <= cut.output_tokens == usage.output_tokens
    assert cut.estimated is (cut != usage)
    assert consistent(cut) is cut


def test_a_cache_larger_than_the_prompt_does_not_make_the_rest_negative() -> None:
    rate = Rate(input=Decimal(10), output=Decimal(10), cached_input=Decimal(1), cache_write=Decimal(20))
    assert price_nanos(Usage(input_tokens=1_000_000, cached_input_tokens=3_000_000), rate) == NANOS
    usage = Usage(input_tokens=1_000_000, cached_input_tokens=600_000, cache_write_tokens=900_000)
    assert price_nanos(usage, rate) == nanos(Decimal("8.6"))


@given(st.integers(-MAX_NANOS, MAX_NANOS))
def test_an_amount_comes_back_as_it_was(count: int) -> None:
    assert nanos(from_nanos(count)) == count
    assert nanos(Decimal(shown(count))) == count
    assert "E" not in shown(count)


@pytest.mark.parametrize("amount", ["0.0000000001", "NaN", "Infinity", "1000000001"])
def test_what_is_no_amount_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match=r"money|large"):
        nanos(Decimal(amount))


@given(RATES, RATES)
def test_a_price_version_names_what_the_rate_says(one: Rate, other: Rate) -> None:
    assume(one != other)
    assert price_version(one) == price_version(Rate(**{name: getattr(one, name) for name in one.__struct_fields__}))
    assert price_version(one) != price_version(other)


def test_one_price_has_one_version_however_it_is_written() -> None:
    versions = set()
    for text in ("1", "1.0", "1E0", "10E-1"):
        versions.add(price_version(Rate(input=Decimal(text), output=Decimal(2))))
    assert len(versions) == 1
