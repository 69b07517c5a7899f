"""What a past period would have cost at other prices. The ledger itself is never changed."""

from collections.abc import Mapping
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import msgspec
from sqlalchemy import select

from penstock.domain.catalogue import Rate
from penstock.domain.ledger import LedgerEntry
from penstock.domain.money import price_nanos
from penstock.store.database import Database
from penstock.store.governance import price_versions
from penstock.store.metering.usage import UsageStore


class PriceVersion(msgspec.Struct, frozen=True):
    """What a version of prices says, and when the ledger first saw it."""

    version: str
    rate: Rate
    first_seen_at: datetime


class Rerated(msgspec.Struct, kw_only=True):
    """The entries of one model that were charged in ``currency``: what that was, and what it would have been in
    ``new_currency``, both in 10^-9. ``changed`` is false where no other price was given."""

    model: str
    currency: str
    new_currency: str
    changed: bool
    requests: int = 0
    old_nanos: int = 0
    new_nanos: int = 0


def price_versions_of(db: Database) -> list[PriceVersion]:
    """All versions, oldest first. Raises PenstockError store_unavailable."""
    query = select(price_versions).order_by(price_versions.c.first_seen_at, price_versions.c.version)
    with db.read() as connection:
        rows = connection.execute(query).all()
    return [PriceVersion(row.version, msgspec.convert(row.rate, Rate), row.first_seen_at) for row in rows]


def rerate(db: Database, since_us: int, until_us: int, rates: Mapping[str, Rate]) -> list[Rerated]:
    """The entries admitted in a period, each at the rate of its model in ``rates`` if it has one. Raises PenstockError
    store_unavailable."""
    known = {found.version: found.rate for found in price_versions_of(db)}
    sums: dict[tuple[str, str, str], Rerated] = {}
    for part in UsageStore(db).walk(since_us, until_us):
        for entry in part:
            rate = rates.get(entry.model)
            new_currency = rate.currency if rate else entry.currency
            found = sums.setdefault(
                (entry.model, entry.currency, new_currency),
                Rerated(model=entry.model, currency=entry.currency, new_currency=new_currency, changed=bool(rate)),
            )
            found.requests += 1
            found.old_nanos += entry.amount_nanos
            found.new_nanos += entry.amount_nanos if rate is None else new_amount(entry, rate, known)
    return [sums[group] for group in sorted(sums)]


def new_amount(entry: LedgerEntry, rate: Rate, known: Mapping[str, Rate]) -> int:
    """The charge of an entry at another rate, in 10^-9. What was charged in part only, as a cached answer may be, or
    not at all, as a repeated request is, keeps its share; ``known`` are the rates by version, to tell it by."""
    full = price_nanos(entry.usage, rate)
    was = known.get(entry.price_version or "")
    if was is None:
        free = entry.amount_nanos == 0 and (entry.price_version is not None or entry.cached_answer)
        return 0 if free else full
    before = price_nanos(entry.usage, was)
    if before == 0:
        return 0 if entry.cached_answer else full
    if entry.amount_nanos == before:
        return full
    with localcontext(prec=60):
        share = Decimal(full) * entry.amount_nanos / before
        return int(share.to_integral_value(ROUND_HALF_EVEN))
