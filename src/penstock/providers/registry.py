"""Makes the adapter of each provider by its kind; a kind's code is loaded when a provider of it is configured."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

from penstock.domain.answer import EventStream
from penstock.domain.chat import BoundRequest
from penstock.providers.spec import Bound, ProviderSpec
from penstock.providers.transport import Endpoint, Transport

# Where each kind's ``make(bound)`` is.
KINDS: Mapping[str, str] = {
    "openai": "penstock.providers.openai.adapter",
    "azure": "penstock.providers.openai.azure",
    "anthropic": "penstock.providers.anthropic.adapter",
    "gemini": "penstock.providers.gemini.adapter",
    "any-llm": "penstock.providers.longtail.adapter",
    "bedrock": "penstock.providers.bedrock.adapter",
}


class Adapter(Protocol):
    """What every kind makes."""

    async def open(self, request: BoundRequest) -> EventStream:
        """Wait for the first event; raises PenstockError before it, and the stream raises after it."""

    def ignored(self, request: BoundRequest) -> tuple[str, ...]:
        """Parameters that are set and have no effect on this target."""


Make = Callable[[Bound], Adapter]


def make_transport(spec: ProviderSpec) -> Transport:
    """The provider's pool of connections. Raises ValueError for a base URL, proxy or ca_file that is none."""
    return Transport(Endpoint(spec.base_url), limits=spec.limits, proxy=spec.proxy, ca_file=spec.ca_file)


def make_adapter(bound: Bound) -> Adapter:
    """The adapter of the provider's kind."""
    module: Any = import_module(KINDS[bound.spec.kind])
    make: Make = module.make
    return make(bound)
