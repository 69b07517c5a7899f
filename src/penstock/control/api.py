"""Wires the nouns' routes into the control plane's ASGI application."""

import hashlib
import time

import msgspec

from penstock.control.changes import Changes
from penstock.control.context import ControlContext
from penstock.control.fields import Reference, named
from penstock.control.guard import Guard, operator_of
from penstock.control.names import invalid
from penstock.control.openapi import with_document
from penstock.control.people.changes import OperatorChanges
from penstock.control.people.sign_in import SignIn
from penstock.control.policies.contents import ContentRoutes
from penstock.control.policies.policy import PolicyRoutes
from penstock.control.routes.account import AccountRoutes
from penstock.control.routes.addons import AddOnRoutes
from penstock.control.routes.apps import AppRoutes
from penstock.control.routes.attachments import AttachmentRoutes
from penstock.control.routes.audit import AuditRoutes
from penstock.control.routes.bounds.budgets import BudgetRoutes
from penstock.control.routes.bounds.limits import LimitRoutes
from penstock.control.routes.collaborators import CollaboratorRoutes
from penstock.control.routes.config_vars import ConfigVarRoutes
from penstock.control.routes.credentials import CredentialRoutes
from penstock.control.routes.keys import KeyRoutes
from penstock.control.routes.operators import OperatorRoutes
from penstock.control.routes.services import ServiceRoutes
from penstock.control.routes.usage import UsageRoutes
from penstock.domain.access import Open
from penstock.store.database import Database
from penstock.store.errors import InvalidValueError, NameTakenError, NotFoundError
from penstock.store.nouns.stores import Stores
from penstock.web.api import ApiError, AsgiApp, Handler, Reply, Request, Route, application

# The ``resource`` of a 404, by the store's noun; the CLI and the plugin compare the first three letter by letter.
_RESOURCES = {
    "app": ("app", "app"),
    "addon": ("add_on", "add-on"),
    "attachment": ("add_on attachment", "add-on attachment"),
    "key": ("key", "key"),
    "plan": ("plan", "plan"),
    "service": ("addon_service", "add-on service"),
    "operator": ("operator", "operator"),
    "token": ("authorization", "token"),
    "collaborator": ("collaborator", "collaborator"),
    "credential": ("credential", "credential"),
    "limit": ("limit", "limit"),
    "budget": ("budget", "budget"),
}


# A reply must come before its client gives up, whatever the deployment's poll is set to.
_LONGEST_WAIT_S = 30.0
# What the column takes.
_LONGEST_KEY = 256


def build(db: Database, context: ControlContext) -> AsgiApp:
    """The Platform API. Raises StoreError when the master key does not fit the database."""
    _ = db.sealer
    stores = Stores(db)
    return application(
        routes(stores, context), authenticate=SignIn(stores, context), trusted_proxies=context.trusted_proxies
    )


def routes(stores: Stores, context: ControlContext) -> list[Route]:
    """The whole table, each handler translating what the store raises; those that revoke keys wait for the workers."""
    changes, operators = Changes(stores), OperatorChanges(stores)
    tables = (
        AccountRoutes(stores, context, operators),
        OperatorRoutes(stores, operators),
        CollaboratorRoutes(stores, operators),
        AuditRoutes(stores),
        CredentialRoutes(stores),
        AppRoutes(stores, context, changes),
        AddOnRoutes(stores, context, changes),
        AttachmentRoutes(stores, context, changes),
        ConfigVarRoutes(stores, context, changes),
        KeyRoutes(stores, context, changes),
        LimitRoutes(stores, context),
        BudgetRoutes(stores, context),
        PolicyRoutes(stores),
        ContentRoutes(stores),
        ServiceRoutes(context),
        UsageRoutes(stores, context),
    )
    return [
        msgspec.structs.replace(
            route, handler=_translating(_settled(remembering(guarded(route), stores), context), stores)
        )
        for route in with_document([row for table in tables for row in table.routes()], version=context.version)
    ]


def guarded(route: Route) -> Route:
    """A handler that answers without having asked the guard for its route's permission is a bug, and answers 500."""
    if isinstance(route.access, Open):
        return route

    def handle(request: Request) -> Reply:
        reply = route.handler(request)
        if route.access not in request.checked:
            raise RuntimeError(f"{route.method} {route.path} did not check {route.access}")
        return reply

    return msgspec.structs.replace(route, handler=handle)


def remembering(route: Route, stores: Stores) -> Route:
    """A route that creates: with an Idempotency-Key, the claim of the key, the change, its audit event and its answer
    are one transaction, so that a repetition is answered again, and what failed may be tried again."""
    if not route.creates:
        return route

    def handle(request: Request) -> Reply:
        key = request.headers.get("idempotency-key")
        if key is None:
            return route.handler(request)
        if not 0 < len(key) <= _LONGEST_KEY or not key.isascii() or not key.isprintable():
            raise invalid(f"The Idempotency-Key header must have 1 to {_LONGEST_KEY} printable ASCII characters.")
        # With the token: what one token was told, a secret maybe, is not told to another.
        token = request.token.id if request.token else None
        asked = [request.method, request.path, request.query, request.body, token]
        fingerprint, by = hashlib.sha256(msgspec.json.encode(asked, order="sorted")).digest(), operator_of(request).id
        with stores.db.write():
            earlier = stores.idempotency.claim(by, key, fingerprint)
            if earlier is None:
                reply = route.handler(request)
                body = msgspec.json.encode(reply.json).decode()
                stores.idempotency.update(by, key, status=reply.status, body=body)
                return reply
        if earlier.fingerprint != fingerprint:
            raise invalid("This Idempotency-Key header was sent with another request or token: send a key of its own.")
        _still_allowed(request, Guard(stores))
        return Reply(earlier.status, msgspec.Raw(earlier.body.encode()), {"Idempotent-Replayed": "true"})

    return msgspec.structs.replace(route, handler=handle)


def _still_allowed(request: Request, guard: Guard) -> None:
    """Whether the caller of a repeated create may still do it, on the app that its path or its body names."""
    if isinstance(request.access, Open):
        return
    body = request.body if isinstance(request.body, dict) else {}
    app = request.params.get("app") or named(msgspec.convert(body.get("app"), Reference | None))
    if app is None:
        guard.check(request)
    else:
        guard.app(request, app)


def _settled(route: Route, context: ControlContext) -> Handler:
    """A route that revokes keys: its handler returns after the commit and its reply waits until no gateway worker can
    take them any more. Handlers run in threads, so that nobody else waits."""
    if not route.revokes:
        return route.handler

    def handle(request: Request) -> Reply:
        reply = route.handler(request)
        time.sleep(min(context.revocation_s, _LONGEST_WAIT_S))
        return reply

    return handle


def _translating(handler: Handler, stores: Stores) -> Handler:
    def handle(request: Request) -> Reply:
        try:
            # What lost against a change by somebody else looks at the new state, as if it had come later.
            return stores.db.retrying(lambda: handler(request))
        except NotFoundError as error:
            resource, words = _RESOURCES[error.noun]
            raise ApiError(404, "not_found", f"Couldn't find that {words}.", resource=resource) from error
        except NameTakenError as error:
            what = "Email" if error.noun == "operator" else "Name"
            raise ApiError(422, "invalid_params", f"{what} {error.name} is already taken") from error
        except InvalidValueError as error:
            raise ApiError(422, "invalid_params", str(error)) from error

    return handle
