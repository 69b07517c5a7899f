"""Wires one process: the gateway's line or the control plane, from settings and addresses. No container, no magic."""

import hashlib
import os
from collections.abc import Iterable, Mapping

from penstock.app.boot import Boot, EngineAddress
from penstock.app.home import Home, open_database
from penstock.domain.catalogue import Catalogue
from penstock.gateway.admit import Recent
from penstock.gateway.dispatch import Adapter
from penstock.gateway.endpoints import Gateway
from penstock.gateway.pages import Health
from penstock.gateway.pipeline import Line
from penstock.gateway.snapshot import KeySnapshot
from penstock.ledger.journal import Journal
from penstock.providers.catalogue import LocalModel, build_catalogue, limits_of, specs
from penstock.providers.embedded.adapter import EmbeddedAdapter
from penstock.providers.images import ImageFetcher
from penstock.providers.registry import make_adapter, make_transport
from penstock.providers.spec import Bound, Credential
from penstock.providers.transport import Endpoint, Transport
from penstock.settings.tree import Settings
from penstock.store.nouns.keys import KeyStore


def catalogue_of(settings: Settings, engines: Iterable[EngineAddress]) -> Catalogue:
    """The catalogue that is served. Raises CatalogueError."""
    local = [
        LocalModel(id=engine.model_id, context_window=engine.context, provider=engine.provider) for engine in engines
    ]
    return build_catalogue(settings, local)


class GatewayParts:
    """One gateway worker, wired; ``close`` lets go of what it holds."""

    def __init__(self, boot: Boot) -> None:
        settings = boot.settings
        self.db = open_database(settings)
        self.keys = KeySnapshot(KeyStore(self.db), poll_s=settings.gateway.snapshot_poll_s)
        self.journal = Journal(Home(settings.home).journal, rotate_bytes=settings.journal.rotate_bytes)
        self.transports: list[Transport] = []
        line = Line(
            catalogue=catalogue_of(settings, boot.engines),
            adapters=self._adapters(boot),
            journal=self.journal,
            fingerprint=fingerprint(settings.home),
            recent=Recent(),
        )
        health = Health(self.keys, {engine.provider: engine.base for engine in boot.engines})
        self.app = Gateway(line, self.keys, health, max_body_bytes=settings.gateway.max_body_bytes)

    async def aclose(self) -> None:
        """Close connections, then the journal, then write the last uses of keys and close the database."""
        for transport in self.transports:
            await transport.aclose()
        self.journal.close()
        await self.keys.uses.flush()
        self.db.close()

    def _adapters(self, boot: Boot) -> Mapping[str, Adapter]:
        adapters: dict[str, Adapter] = {}
        for engine in boot.engines:
            adapters[engine.provider] = EmbeddedAdapter(
                self._transport(boot.settings, engine.base), key=engine.key, context=engine.context
            )
        images = ImageFetcher()
        for spec in specs(boot.settings):
            row = next(row for row in boot.settings.provider if row.name == spec.name)
            secret = os.environ.get(row.api_key_env) if row.api_key_env else None
            transport = make_transport(spec)
            self.transports.append(transport)
            credential = Credential(secret=secret) if secret else None
            adapters[spec.name] = make_adapter(Bound(spec, credential, transport, images))
        return adapters

    def _transport(self, settings: Settings, base: str) -> Transport:
        transport = Transport(Endpoint(base), limits=limits_of(settings.upstream))
        self.transports.append(transport)
        return transport


def fingerprint(home: str) -> str:
    """``heroku-inf-`` and 6 base-36 digits, constant per deployment (heroku-wire.md 2.1)."""
    number = int.from_bytes(hashlib.sha256(home.encode()).digest()[:8], "big")
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return "heroku-inf-" + "".join(digits[number // 36**place % 36] for place in range(6))
