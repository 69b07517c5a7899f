"""The adapters of one gateway worker, by provider: kept over a reload where nothing about them has changed."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from penstock.app.boot import EngineAddress, Serving, Upstream
from penstock.gateway.dispatch import Adapter
from penstock.providers.catalogue import limits_of
from penstock.providers.images import ImageFetcher
from penstock.providers.registry import make_adapter, make_transport
from penstock.providers.spec import Bound
from penstock.providers.transport import Endpoint, Transport
from penstock.settings.tree import UpstreamSettings


class _Made(NamedTuple):
    """An adapter, its connections, and what it was made of."""

    adapter: Adapter
    transport: Transport
    of: tuple[Upstream | EngineAddress, UpstreamSettings]


class Upstreams:
    """Makes adapters and owns their connections."""

    def __init__(self, engines: Iterable[EngineAddress]) -> None:
        self._engines = tuple(engines)
        self._made: dict[str, _Made] = {}

    def adapters(self, serving: Serving) -> Mapping[str, Adapter]:
        """One adapter for every provider of what is served; those of before that are not among them end with the
        answers that they carry. Raises ValueError or ImportError, and changes nothing then."""
        wanted: dict[str, Upstream | EngineAddress] = {engine.provider: engine for engine in self._engines}
        wanted |= {upstream.spec.name: upstream for upstream in serving.upstreams}
        made: dict[str, _Made] = {}
        for name, what in wanted.items():
            old = self._made.get(name)
            same = old is not None and old.of == (what, serving.bounds)
            made[name] = old if old is not None and same else _make(what, serving.bounds)
        for name, old in self._made.items():
            if made.get(name) is not old:
                old.transport.retire()
        self._made = made
        return {name: one.adapter for name, one in made.items()}

    async def aclose(self) -> None:
        """Drop every connection."""
        for one in self._made.values():
            await one.transport.aclose()


def _make(what: Upstream | EngineAddress, bounds: UpstreamSettings) -> _Made:
    if isinstance(what, EngineAddress):
        from penstock.providers.embedded.adapter import EmbeddedAdapter  # noqa: PLC0415 - many gateways have no engine

        transport = Transport(Endpoint(what.base), limits=limits_of(bounds))
        return _Made(EmbeddedAdapter(transport, key=what.key, context=what.context), transport, (what, bounds))
    transport = make_transport(what.spec)
    adapter = make_adapter(Bound(what.spec, what.credential, transport, ImageFetcher(bounds)))
    return _Made(adapter, transport, (what, bounds))
