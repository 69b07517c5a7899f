"""Prices and context windows of hosted models, from the data package genai-prices; its import costs 0.4 s."""

import ipaddress
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from penstock.domain.catalogue import Rate
from penstock.providers.catalogue.resolve import Provider


class Known(NamedTuple):
    """What is known of a model at its provider: its price and its context window in tokens."""

    rate: Rate | None = None
    context_window: int | None = None


class Prices:
    """Looks models up; the package is loaded with the first hosted one."""

    def __init__(self) -> None:
        self._data: Any = None

    def of(self, provider: Provider, model: str) -> Known:
        """What is known of the model that this provider has under that id."""
        if not is_hosted(provider):
            return Known()
        if self._data is None:
            from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - 0.4 s, not for a local installation

            self._data = get_snapshot()
        for who in ({"provider_api_url": provider.spec.base_url}, {"provider_id": provider.profile}):
            try:
                whose = {"provider_id": None, "provider_api_url": None, **who}
                found = self._data.find_provider_model(model, None, **whose)[1] if any(who.values()) else None
            except LookupError:
                continue
            if found is not None:
                return Known(_rate(found.get_prices(datetime.now(UTC))), found.context_window)
        return Known()


def is_hosted(provider: Provider) -> bool:
    """Whether the provider is a vendor's: a built-in one that wants a key, or one at a public name."""
    if provider.profile is not None and provider.source != "none needed":
        return True
    host = urlsplit(provider.spec.base_url).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." in host
    return False


def _rate(prices: Any) -> Rate | None:
    entry, output = _base(prices.input_mtok), _base(prices.output_mtok)
    if entry is None or output is None:
        return None
    return Rate(
        input=entry,
        output=output,
        cached_input=_base(getattr(prices, "cache_read_mtok", None)),
        cache_write=_base(getattr(prices, "cache_write_mtok", None)),
        source=f"genai-prices {version('genai-prices')}",
    )


def _base(price: Any) -> Any:
    """A price that rises with the length of the prompt counts with its first tier."""
    return price if price is None or isinstance(price, Decimal) else price.base
