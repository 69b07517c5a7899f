"""A control plane on a real listener and a real database file, with a client that is signed in."""

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from penstock.control.api import build
from penstock.control.bootstrap import ensure_operator
from penstock.control.context import ControlContext
from penstock.domain.access import Role
from penstock.domain.catalogue import Catalogue, Model, Target
from penstock.domain.ids import new_operator_token, secret_hash
from penstock.domain.limits import Limits
from penstock.domain.platform import Actor, AuditEvent, Principal
from penstock.settings.tree import BudgetDefault, LimitDefault
from penstock.store.database import Database
from penstock.store.nouns.stores import Stores
from penstock.web.api import AsgiApp, refusal
from penstock.web.hub import HttpLimits
from penstock.web.server import Server
from tests.control.described import Described
from tests.sqlite import new_sqlite

EMAIL = "operator@penstock.local"
GATEWAY = "http://127.0.0.1:8400"
SERVED = (Target(provider="someone", model="it"),)
CATALOGUE = Catalogue(
    (
        Model(
            id="chat-large",
            owner="someone",
            aliases=("chat-large-latest",),
            targets=SERVED,
            plan_limits=Limits(requests_per_minute=150, tokens_per_minute=800_000),
        ),
        Model(id="chat-small", owner="someone", regions=("us",), targets=SERVED),
        Model(id="embed-one", owner="someone", type=("text-to-embedding",), targets=SERVED),
        Model(id="image-one", owner="someone", type=("text-to-image",)),
        Model(id="rank-one", owner="someone", type=("text-to-ranking",)),
    )
)


@dataclass(frozen=True)
class Plane:
    """A running control plane. ``http`` sends the operator's token, and holds every reply against the document."""

    home: Path
    url: str
    token: str
    stores: Stores
    http: httpx.Client

    def ok(self, method: str, path: str, **fields: Any) -> Any:
        """The JSON of a call that must succeed; ``fields`` are the body."""
        reply = self.http.request(method, path, json=fields or None)
        assert reply.status_code in (200, 201), reply.text
        return reply.json()

    def refused(self, method: str, path: str, **fields: Any) -> tuple[int, dict[str, str]]:
        """Status and body of a call that must not succeed."""
        reply = self.http.request(method, path, json=fields or None)
        assert reply.status_code >= 400, reply.text
        body: dict[str, str] = reply.json()
        return reply.status_code, body

    def app(self, name: str | None = None) -> str:
        """A new app; its name."""
        created = self.ok("POST", "/apps", **({"name": name} if name else {}))
        return str(created["name"])

    def addon(self, app: str, plan: str = "standard", alias: str | None = None) -> dict[str, Any]:
        """A new add-on on an app."""
        attachment = {"attachment": {"name": alias}} if alias else {}
        found: dict[str, Any] = self.ok(
            "POST", f"/apps/{app}/addons", plan={"name": f"heroku-inference:{plan}"}, **attachment
        )
        return found

    def attach(self, addon: str, app: str, name: str | None = None) -> dict[str, Any]:
        """One more attachment of an add-on."""
        fields: dict[str, Any] = {"addon": {"name": addon}, "app": {"name": app}}
        found: dict[str, Any] = self.ok("POST", "/addon-attachments", **fields, **({"name": name} if name else {}))
        return found

    def config(self, app: str) -> dict[str, str]:
        """The config vars of an app."""
        found: dict[str, str] = self.ok("GET", f"/apps/{app}/config-vars")
        return found

    def operator(self, email: str, role: Role) -> str:
        """A new operator; their token."""
        token = new_operator_token()
        operator = self.stores.operators.add(email, role=role)
        self.stores.operators.add_token(operator.id, secret_hash(token), prefix=token, description="test")
        return token

    def events(self) -> list[AuditEvent]:
        """The audit log since the start, which told of its operator and their token."""
        return [event for event in self.stores.audit.list() if event.source != "local"]

    def principal(self, key: str) -> Principal | None:
        """What the data plane makes of a key."""
        return self.stores.keys.find_principal(secret_hash(key))


def call(plane: Plane, token: str, method: str, path: str, **body: Any) -> httpx.Response:
    """A call with somebody's token."""
    headers = {"Authorization": f"Bearer {token}"}
    return plane.http.request(method, path, json=body or None, headers=headers)


def status(plane: Plane, token: str, method: str, path: str, **body: Any) -> int:
    """The status of a call with somebody's token."""
    return call(plane, token, method, path, **body).status_code


def somebody(email: str = EMAIL) -> Actor:
    """An operator on whose word a change is made."""
    return Actor(id=None, email=email, source="127.0.0.1", request_id="r")


@contextlib.contextmanager
def serving(
    app: AsgiApp, *, limits: HttpLimits | None = None, drain_s: float = 5.0, host: str = "127.0.0.1"
) -> Iterator[str]:
    """Serves an ASGI application on a free loopback port, as the control plane's process does: its address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener, asyncio.Runner() as runner:
        server = Server(app, listener, limits=limits or HttpLimits(), drain_s=drain_s, refusal=refusal)
        started, loop = threading.Event(), runner.get_loop()
        thread = threading.Thread(target=runner.run, args=(server.run(started.set),))
        thread.start()
        try:
            assert started.wait(20)
            yield f"http://{host}:{listener.getsockname()[1]}"
        finally:
            loop.call_soon_threadsafe(server.stop)
            thread.join(20)


def fast_clock() -> Callable[[], float]:
    """A clock on which an hour passes at each look, so that no failed sign-in of one test slows another."""
    hours = itertools.count(step=3600)
    return lambda: float(next(hours))


@contextlib.contextmanager
def running_plane(
    home: Path,
    *,
    revocation_s: float = 0.0,
    clock: Callable[[], float] | None = None,
    trusted_proxies: tuple[str, ...] = (),
    database: str | None = None,
    defaults: Sequence[LimitDefault | BudgetDefault] = (),
) -> Iterator[Plane]:
    """The whole control plane over a new database: a file in ``home``, or the one at the URL ``database``. ``clock``
    is that of the slowing of sign-ins; ``defaults`` are rows of the configuration."""
    db = Database.open(database, home=home) if database else new_sqlite(home / "penstock.db", home=home)
    token = ensure_operator(db, home, EMAIL)
    context = ControlContext(
        gateway_url=f"{GATEWAY}/",
        catalogue=CATALOGUE,
        version="0.0.0",
        revocation_s=revocation_s,
        trusted_proxies=trusted_proxies,
        clock=clock or fast_clock(),
        limit_defaults=tuple(row for row in defaults if isinstance(row, LimitDefault)),
        budget_defaults=tuple(row for row in defaults if isinstance(row, BudgetDefault)),
    )
    try:
        with (
            serving(build(db, context)) as url,
            httpx.Client(
                base_url=url,
                headers={"Authorization": f"Bearer {token}", "Accept": "application/vnd.heroku+json; version=3"},
                timeout=30,
                trust_env=False,
            ) as client,
        ):
            client.event_hooks["response"] = [Described(client.get("/schema").json()).check]
            yield Plane(home, url, token, Stores(db), client)
    finally:
        db.close()
