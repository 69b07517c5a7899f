"""``python -m bench.listing``: what a call of the Platform API costs with 100 and with 100,000 apps.

Handlers are called without a socket between, so that nothing that is the same at both sizes hides a difference.
Prints medians, their ratios and, with --plans, how the database answers each statement.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Engine, event, insert, text

from bench import machine
from penstock.control.api import routes
from penstock.control.context import ControlContext
from penstock.domain.access import Role
from penstock.domain.catalogue import Catalogue, Model
from penstock.domain.ids import new_api_key, new_id, secret_hash
from penstock.domain.platform import Operator
from penstock.store import schema
from penstock.store.database import Database
from penstock.store.nouns.stores import Stores
from penstock.web.api import ApiError, Request, Route

SIZES = (100, 100_000)
TARGET = 2.0
# Of the apps, a member owns these many and shares as many again.
_OWN = 20
_BATCH = 20_000
_SECRETS = 8_000
_AT = datetime(2026, 1, 1, tzinfo=UTC)
# Tables that have one row, whatever the size of the installation.
SINGLE = ("key_revision",)


class Call(NamedTuple):
    """One call: the route, what fills its path, body and headers, and by whom it is made."""

    name: str
    route: str
    params: dict[str, str] = {}
    body: Any = None
    range: str = ""
    by: str = "owner"


class Installation:
    """A filled database and the handlers over it."""

    def __init__(self, url: str | Path, home: Path, *, apps: int) -> None:
        self.db = Database.open(url, home=home)
        self.stores = Stores(self.db)
        catalogue = Catalogue([Model(id="chat", owner="someone")])
        context = ControlContext(gateway_url="http://gateway", catalogue=catalogue, version="0")
        self._routes = {f"{route.method} {route.path}": route for route in routes(self.stores, context)}
        self.apps = apps
        self.secrets: dict[str, str] = {}
        """By attachment, the keys of the first apps."""
        roles = {"owner": Role.OWNER, "member": Role.MEMBER, "busy": Role.MEMBER}
        self.people = {who: self.stores.operators.add(f"{who}@example.com", role=role) for who, role in roles.items()}
        self._fill()

    def call(self, call: Call) -> Any:
        """Makes it, as far as the bytes of its answer; the JSON value, None when there is none to find."""
        try:
            reply = self._routes[call.route].handler(self._request(self._routes[call.route], call))
        except ApiError as error:
            if error.status != 404 or "nobody" not in call.name:
                raise
            return None
        msgspec.json.encode(reply.json)
        return reply.json

    def name(self, number: int) -> str:
        """The name of an app."""
        return f"app-{number:06d}"

    def owner_of(self, number: int) -> Operator:
        """Whose an app is: a few are the member's, of the others every second one belongs to the busy one."""
        return self.people["member" if number < _OWN else "busy" if number % 2 else "owner"]

    def _request(self, route: Route, call: Call) -> Request:
        return Request(
            method=route.method,
            path=route.path,
            params=call.params,
            query={},
            headers={"range": call.range} if call.range else {},
            body=call.body,
            operator=self.people[call.by],
            request_id="bench",
            source="127.0.0.1",
            access=route.access,
            ranges=route.doc.ranges if route.doc else (),
        )

    def _fill(self) -> None:
        for first in range(0, self.apps, _BATCH):
            with self.db.write() as connection:
                for table, rows in self._rows(range(first, min(first + _BATCH, self.apps))).items():
                    connection.execute(insert(table), rows)
        with self.db.write() as connection:
            # PostgreSQL gathers statistics by itself, SQLite never does.
            if connection.dialect.name != "sqlite":
                connection.execute(text("ANALYZE"))

    def _rows(self, numbers: range) -> dict[Any, list[dict[str, Any]]]:
        found: dict[Any, list[dict[str, Any]]] = {table: [] for table in _TABLES}
        for number in numbers:
            app, addon, at = f"app-id-{number:06d}", f"addon-id-{number:06d}", {"created_at": _AT, "updated_at": _AT}
            owner = self.owner_of(number)
            named = {"id": app, "name": self.name(number), "owner_email": owner.email, "owner_id": owner.id}
            found[schema.apps].append(named | at | {"region": "us", "stack": "heroku-24", "last_version": 2})
            plan: dict[str, Any] = {"plan": "standard" if number % 2 else "chat", "state": "provisioned", "config": {}}
            found[schema.addons].append({"id": addon, "name": f"inference-{number:06d}", "app_id": app} | plan | at)
            for alias, of in (("INFERENCE", number), ("OTHER", max(number - 1, 0))):
                attachment = f"{alias}-{number:06d}"
                of_addon = {"app_id": app, "addon_id": f"addon-id-{of:06d}"}
                found[schema.attachments].append({"id": attachment, "name": alias} | of_addon | at)
                found[schema.api_keys].append(self._key(attachment))
            for version in (1, 2):
                release = {"id": new_id(), "app_id": app, "version": version, "description": "x", "created_at": _AT}
                found[schema.releases].append(release | {"user_email": owner.email})
            sealed = self.db.sealer.seal("value", bound_to=f"{app}/NAME")
            found[schema.config_vars].append({"app_id": app, "name": "NAME", "sealed": sealed})
            if _OWN <= number < 2 * _OWN:
                share = {"id": new_id(), "app_id": app, "operator_id": self.people["member"].id, "role": "member"}
                found[schema.collaborators].append(share | at)
        return {table: rows for table, rows in found.items() if rows}

    def _key(self, attachment: str) -> dict[str, Any]:
        secret, id_ = new_api_key(), new_id()
        sealed = self.db.sealer.seal(secret, bound_to=id_)
        if len(self.secrets) < _SECRETS:
            self.secrets[attachment] = secret
        hashed = {"prefix": secret[:12], "hash": secret_hash(secret), "sealed": sealed}
        return {"id": id_, "attachment_id": attachment, "extra": False, "created_at": _AT} | hashed


_TABLES = (
    schema.apps,
    schema.addons,
    schema.attachments,
    schema.api_keys,
    schema.releases,
    schema.config_vars,
    schema.collaborators,
)


def objects(one: Installation, number: int) -> list[Call]:
    """The calls that concern one object."""
    app, addon = {"app": one.name(number)}, {"addon": f"inference-{number:06d}"}
    attachment = {"attachment": f"INFERENCE-{number:06d}"}
    resolve, find = "POST /actions/addons/resolve", "POST /actions/addon-attachments/resolve"
    return [
        Call("app", "GET /apps/{app}", app),
        Call("app by id", "GET /apps/{app}", {"app": f"app-id-{number:06d}"}),
        Call("releases of app", "GET /apps/{app}/releases", app, range="version ..; order=desc,max=1"),
        Call("config vars of app", "GET /apps/{app}/config-vars", app),
        Call("keys of app", "GET /apps/{app}/keys", app),
        Call("add-ons of app", "GET /apps/{app}/addons", app),
        Call("attachments of app", "GET /apps/{app}/addon-attachments", app),
        Call("attachment of app", "GET /apps/{app}/addon-attachments/{attachment}", app | {"attachment": "INFERENCE"}),
        Call("attachment", "GET /addon-attachments/{attachment}", attachment),
        Call("add-on", "GET /addons/{addon}", addon),
        Call("add-on of app", "GET /apps/{app}/addons/{addon}", app | addon),
        Call("attachments of add-on", "GET /addons/{addon}/addon-attachments", addon),
        Call("resolve add-on", resolve, body=addon),
        Call("resolve alias on app", resolve, body={"addon": "inference"} | app),
        Call("resolve service on app", resolve, body={"addon": "heroku-inference"} | app),
        Call("resolve attachment on app", find, body={"addon_attachment": "INFERENCE"} | app),
    ]


def pages(one: Installation) -> list[Call]:
    """One page each of the lists, of the same length at both sizes, from the start and from the middle."""
    middle, apps, addons = one.name(one.apps // 2), "GET /apps", "GET /addons"
    resolve, find = "POST /actions/addons/resolve", "POST /actions/addon-attachments/resolve"
    attachments, cut = "GET /addon-attachments", "; max=40"
    return [
        Call("apps", apps, range=f"name ..{cut}"),
        Call("apps from the middle", apps, range=f"name ]{middle}..{cut}"),
        Call("apps by id, last first", apps, range=f"id ..{cut}, order=desc"),
        Call("add-ons", addons, range=f"name ]inference-{one.apps // 2:06d}..{cut}"),
        Call("add-ons by id", addons, range=f"id ..{cut}"),
        Call("attachments", attachments, range=f"id ]INFERENCE-{one.apps // 2:06d}..{cut}"),
        Call("apps of a member", apps, range=f"name ..{cut}", by="member"),
        Call("apps of a member by id", apps, range=f"id ]app-id-000003..{cut}", by="member"),
        Call("add-ons of a member", addons, range=f"name ..{cut}", by="member"),
        Call("attachments of a member", attachments, range=f"id ..{cut}", by="member"),
        Call("apps of a busy member", apps, range=f"name ]{middle}..{cut}", by="busy"),
        Call("add-ons of a busy member", addons, range=f"name ..{cut}", by="busy"),
        Call("attachments of a busy member", attachments, range=f"id ..{cut}", by="busy"),
        Call("resolve service", resolve, body={"addon": "heroku-inference"}),
        Call("resolve plan", resolve, body={"addon": "heroku-inference:chat"}),
        Call("resolve plan of a member", resolve, body={"addon": "heroku-inference:chat"}, by="member"),
        Call("resolve a common alias", find, body={"addon_attachment": "INFERENCE"}),
        Call("resolve an alias that nobody has", find, body={"addon_attachment": "NOBODY"}),
        Call("resolve a common alias of a member", find, body={"addon_attachment": "INFERENCE"}, by="member"),
    ]


def changes(one: Installation, number: int) -> Iterator[Call]:
    """An app's life, each step a call; the caller sends None, or the reply to the step before."""
    name, app = f"new-{number}", {"app": f"new-{number}"}
    yield Call("create app", "POST /apps", body={"name": name})
    yield Call("provision", "POST /apps/{app}/addons", app, {"plan": "heroku-inference", "name": f"addon-{number}"})
    body = {"addon": f"addon-{number}", "name": "SECOND"} | app
    yield Call("attach", "POST /addon-attachments", body=body)
    yield Call("set config var", "PATCH /apps/{app}/config-vars", app, {"A": str(number)})
    second = one.stores.attachments.get("SECOND", app_id=one.stores.apps.get(name).id).id
    yield Call("detach", "DELETE /addon-attachments/{attachment}", {"attachment": second})
    yield Call("rename app", "PATCH /apps/{app}", app, {"name": f"renamed-{number}"})
    app = {"app": f"renamed-{number}"}
    yield Call("destroy add-on", "DELETE /apps/{app}/addons/{addon}", app | {"addon": f"addon-{number}"}, {})
    yield Call("destroy app", "DELETE /apps/{app}", app)


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """What is sent to any database meanwhile: each statement with its parameters."""
    seen: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            seen.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def plan(one: Installation, statement: str, parameters: Any) -> list[str]:
    """How the database goes about a statement, in its own words."""
    with one.db.read() as connection:
        if connection.dialect.name == "sqlite":
            found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            return [str(row[3]) for row in found]
        return [str(row[0]) for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)]


class Figure(NamedTuple):
    """Median microseconds at both sizes, on the clock and of this process's CPU."""

    few: float
    many: float
    cpu_few: float
    cpu_many: float


def measure(small: Installation, large: Installation, *, repeats: int) -> dict[str, Figure]:
    """What each call takes at both sizes, in turn."""
    taken: dict[str, tuple[list[float], list[float], list[float], list[float]]] = {}

    def clock(side: int, one: Installation, call: Call) -> None:
        start, cpu = time.perf_counter(), time.thread_time()
        one.call(call)
        wall = time.perf_counter() - start
        readings = taken.setdefault(call.name, ([], [], [], []))
        readings[side].append(wall * 1e6)
        readings[side + 2].append((time.thread_time() - cpu) * 1e6)

    for turn in range(repeats):
        rounds = [(*objects(one, (turn * 7919) % one.apps), *pages(one)) for one in (small, large)]
        # Call by call in turn, so that what else the machine does meets both.
        for few, many in zip(*rounds, strict=True):
            clock(0, small, few)
            clock(1, large, many)
        if turn < repeats // 4:
            for few, many in zip(changes(small, turn), changes(large, turn), strict=True):
                clock(0, small, few)
                clock(1, large, many)
    return {name: Figure(*map(statistics.median, readings)) for name, readings in taken.items()}


def table(measured: dict[str, Figure], large: int) -> str:
    """The figures as Markdown, the largest ratio first."""
    rows = sorted(measured.items(), key=lambda item: -item[1].many / item[1].few)
    head = f"| call | {SIZES[0]:,} apps, us | {large:,} apps, us | ratio | ratio of CPU |\n|---|--:|--:|--:|--:|\n"
    return head + "\n".join(
        f"| {name} | {one.few:,.0f} | {one.many:,.0f} | {one.many / one.few:.2f} | {one.cpu_many / one.cpu_few:.2f} |"
        for name, one in rows
    )


def every_plan(one: Installation) -> Iterator[tuple[str, str, list[str]]]:
    """Each call's name, each statement that it makes, and the plan of that."""
    for call in chain(objects(one, one.apps // 3), pages(one), changes(one, 10**6)):
        with statements() as seen:
            one.call(call)
        for statement, parameters in {sent: (sent, values) for sent, values in seen}.values():
            if not isinstance(parameters, list):
                yield call.name, " ".join(statement.split()), plan(one, statement, parameters)


def main() -> int:
    """Exit 0 when every ratio is within the target, 1 when one is not, 2 when the machine is too loaded to say."""
    parser = argparse.ArgumentParser(prog="python -m bench.listing", description=__doc__)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--large", type=int, default=SIZES[1], help="how many apps the large one has")
    parser.add_argument("--url", nargs=2, metavar="URL", help="two empty PostgreSQL databases, instead of SQLite")
    parser.add_argument("--plans", type=Path, metavar="FILE", help="write the query plans there")
    args = parser.parse_args()
    loud = machine.too_loaded(os.getloadavg()[0], [], [])
    with tempfile.TemporaryDirectory(prefix="penstock-listing-") as work:
        sizes = (SIZES[0], args.large)
        homes = [Path(work, str(size)) for size in sizes]
        for home in homes:
            home.mkdir()
        urls = args.url or [home / "penstock.db" for home in homes]
        small, large = (Installation(url, home, apps=n) for url, home, n in zip(urls, homes, sizes, strict=True))
        measured = measure(small, large, repeats=args.repeats)
        if args.plans:
            lines = [f"## {name}\n\n{sent}\n    " + "\n    ".join(how) for name, sent, how in every_plan(large)]
            args.plans.parent.mkdir(parents=True, exist_ok=True)
            args.plans.write_text("\n\n".join(lines) + "\n")
        for one in (small, large):
            one.db.close()
    print(table(measured, args.large))
    worst = max(one.many / one.few for one in measured.values())
    print(f"\nLargest ratio {worst:.2f}, target {TARGET:.1f}" + (f"; no verdict: {loud}" if loud else ""))
    return 2 if loud else 0 if worst <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
