"""A past period at other prices."""

from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.catalogue import Rate
from penstock.domain.ledger import DAY_US
from penstock.domain.money import price_nanos, price_version
from penstock.domain.usage import Usage
from penstock.store.database import Database
from penstock.store.metering.ledger import LedgerStore
from penstock.store.metering.rerate import new_amount, price_versions_of, rerate
from tests.metered import NOVEMBER_US, fill, metered

rates = st.builds(
    Rate,
    input=st.decimals(0, 1000, places=4),
    output=st.decimals(0, 1000, places=4),
    cached_input=st.none() | st.decimals(0, 1000, places=4),
)
usages = st.builds(
    lambda plain, cached, out: Usage(input_tokens=plain + cached, cached_input_tokens=cached, output_tokens=out),
    *[st.integers(0, 10**7)] * 3,
)


@given(usages, rates, rates)
def test_what_was_charged_in_full_is_charged_in_full_at_any_price(usage: Usage, was: Rate, new: Rate) -> None:
    entry = metered("r", amount_nanos=price_nanos(usage, was), price_version=price_version(was))
    entry = msgspec.structs.replace(entry, usage=usage)
    known = {price_version(was): was}
    assert new_amount(entry, new, known) == price_nanos(usage, new)
    assert new_amount(entry, was, known) == entry.amount_nanos


@given(rates, st.integers(0, 100))
def test_what_was_charged_in_part_keeps_its_share(new: Rate, percent: int) -> None:
    was = Rate(input=Decimal(3), output=Decimal(15))
    full = price_nanos(Usage(input_tokens=10, output_tokens=5), was)
    entry = metered("r", amount_nanos=full * percent // 100, price_version=price_version(was), cached_answer=True)
    wanted = Decimal(price_nanos(entry.usage, new)) * percent / 100
    assert abs(new_amount(entry, new, {price_version(was): was}) - wanted) <= 1


def test_an_entry_whose_price_is_not_known_any_more_is_charged_in_full_or_not_at_all() -> None:
    rate = Rate(input=Decimal(1), output=Decimal(1))
    full = price_nanos(Usage(input_tokens=10, output_tokens=5), rate)
    assert new_amount(metered("r", amount_nanos=7, price_version="gone"), rate, {}) == full
    assert new_amount(metered("r", amount_nanos=0, price_version="gone"), rate, {}) == 0
    assert new_amount(metered("r", amount_nanos=0), rate, {}) == full
    assert new_amount(metered("r", amount_nanos=0, cached_answer=True), rate, {}) == 0


def test_a_period_is_repriced_by_model_and_currency(db: Database) -> None:
    was, new = Rate(input=Decimal(3), output=Decimal(15)), Rate(input=Decimal(6), output=Decimal(30))
    LedgerStore(db).note_rates([was])
    amount = price_nanos(Usage(input_tokens=10, output_tokens=5), was)
    fill(
        db,
        [
            metered(
                f"r{number}", admitted_us=NOVEMBER_US + number, amount_nanos=amount, price_version=price_version(was),
                model="large" if number % 2 else "small", currency="EUR" if number == 5 else "USD",
            )
            for number in range(7000)
        ],
    )  # fmt: skip
    assert [(one.version, one.rate) for one in price_versions_of(db)] == [(price_version(was), was)]
    found = rerate(db, NOVEMBER_US + 1, NOVEMBER_US + DAY_US, {"large": new})
    assert [(one.model, one.currency, one.requests, one.changed) for one in found] == [
        ("large", "EUR", 1, True), ("large", "USD", 3499, True), ("small", "USD", 3499, False),
    ]  # fmt: skip
    assert [(one.old_nanos, one.new_nanos) for one in found] == [
        (amount, 2 * amount), (3499 * amount, 3499 * 2 * amount), (3499 * amount, 3499 * amount),
    ]  # fmt: skip
