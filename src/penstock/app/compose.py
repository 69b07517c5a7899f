"""Wires one process: the gateway's line or the control plane, from settings and addresses. No container, no magic."""

import hashlib

from penstock.app.boot import Boot, Serving
from penstock.app.home import Home
from penstock.app.serving.upstreams import Upstreams
from penstock.app.store import open_database
from penstock.gateway.admit import Recent
from penstock.gateway.content import Contents
from penstock.gateway.endpoints import Gateway
from penstock.gateway.limits.defaults import defaults
from penstock.gateway.limits.governor import governor
from penstock.gateway.limits.shared import SharedRules
from penstock.gateway.pages import Health
from penstock.gateway.pipeline import Line
from penstock.gateway.replay.service import Replay
from penstock.gateway.routing.board import Board
from penstock.gateway.routing.breaker import BreakerRules
from penstock.gateway.snapshot import KeySnapshot
from penstock.ledger.journal import Journal
from penstock.ledger.leases import Leases
from penstock.ledger.progress import settle_late
from penstock.store.keeping.answers import AnswerStore
from penstock.store.keeping.contents import ContentStore
from penstock.store.metering.governance import GovernanceStore
from penstock.store.metering.leases import LeaseStore
from penstock.store.nouns.audit import AuditStore
from penstock.store.nouns.keys import KeyStore


class GatewayParts:
    """One gateway worker, wired; ``aclose`` lets go of what it holds."""

    def __init__(self, boot: Boot) -> None:
        settings = boot.settings
        self.db = open_database(settings)
        self.keys = KeySnapshot(KeyStore(self.db), poll_s=settings.gateway.snapshot_poll_s)
        self.journal = Journal(Home(settings.home).journal, rotate_bytes=settings.journal.rotate_bytes)
        self.upstreams = Upstreams(boot.engines)
        self.board = Board(Home(settings.home).run)
        limits = settings.limits
        self.leases = Leases(
            LeaseStore(self.db, audit=AuditStore(self.db).add),
            self.journal.holder,
            lease_s=limits.lease_s,
            money_lease_s=limits.money_lease_s,
            on_outage=limits.on_outage,
        )
        self.shared = SharedRules(GovernanceStore(self.db), poll_s=settings.gateway.snapshot_poll_s)
        self.shared.heard = lambda shared: self.board.set_reserves(shared.reserves)
        self.board.set_reserves(self.shared.now.reserves)
        self.contents = Contents(ContentStore(self.db).add)
        self._recent = Recent()
        self._fingerprint = fingerprint(settings.home)
        health = Health(self.keys, {engine.provider: engine.base for engine in boot.engines}, self.board)
        gateway = settings.gateway
        self.replay = Replay(
            AnswerStore(self.db),
            owner=self.journal.holder,
            underway=self.keys.underway,
            idempotency=settings.idempotency,
            cache=settings.cache,
        )
        self.app = Gateway(
            self._line(boot.serving),
            self.keys,
            health,
            max_body_bytes=gateway.max_body_bytes,
            route_headers=gateway.route_headers,
            replay=self.replay,
        )

    def apply(self, serving: Serving) -> None:
        """Serve this from the next request on; open requests end on what they began with. Raises ValueError,
        ImportError, and changes nothing then."""
        self.app.line = self._line(serving)

    async def aclose(self) -> None:
        """End what still runs for clients that have gone, close connections, give back what is held of limits, close
        the journal, then write the last uses of keys and what is kept of apps' prompts, and close the database."""
        await self.replay.aclose()
        await self.upstreams.aclose()
        self.board.close()
        await self.leases.aclose()
        settle_late(self.journal)
        self.journal.close()
        await self.keys.uses.flush()
        await self.contents.aclose()
        self.db.close()

    def _line(self, serving: Serving) -> Line:
        catalogue, adapters = serving.catalogue(), self.upstreams.adapters(serving)
        bounds = serving.bounds
        self.board.set_rules(BreakerRules(min_calls=bounds.breaker_min_calls, rest_s=bounds.breaker_rest_s))
        self.board.keep({target.name for model in catalogue.models for target in model.targets})
        self.board.set_limits([upstream.spec for upstream in serving.upstreams])
        return Line(
            catalogue=catalogue,
            adapters=adapters,
            journal=self.journal,
            fingerprint=self._fingerprint,
            recent=self._recent,
            board=self.board,
            governor=governor(
                self.leases,
                self.shared,
                defaults(serving.limits, serving.limit_defaults, serving.budget_defaults, catalogue=catalogue),
            ),
            contents=self.contents,
        )


def fingerprint(home: str) -> str:
    """``heroku-inf-`` and 6 base-36 digits, constant per deployment (heroku-wire.md 2.1)."""
    number = int.from_bytes(hashlib.sha256(home.encode()).digest()[:8], "big")
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return "heroku-inf-" + "".join(digits[number // 36**place % 36] for place in range(6))
