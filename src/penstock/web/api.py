"""The control plane's HTTP edge: a table of routes becomes an ASGI application with Heroku's error shape."""

import asyncio
import base64
import binascii
import hashlib
import logging
import traceback
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router

from penstock.domain.access import Access, Open, Permission
from penstock.domain.errors import PenstockError
from penstock.domain.platform import Operator, OperatorToken
from penstock.web.source import networks, source_of

logger = logging.getLogger(__name__)

BODY_LIMIT = 1024 * 1024
BODY_TIMEOUT_S = 30.0

_NO_CREDENTIALS = (
    "There were no credentials in your `Authorization` header. Try `Authorization: Bearer <operator token>` "
    'or `Authorization: Basic <base64 of email + ":" + operator token>`.'
)


class ApiError(Exception):
    """A refusal in Heroku's shape (heroku-wire.md 4.3): ``{"id", "message", "resource"?}`` under an HTTP status."""

    def __init__(
        self,
        status: int,
        id_: str,
        message: str,
        *,
        resource: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.id = id_
        self.message = message
        self.resource = resource
        self.headers = dict(headers or {})


class Credentials(msgspec.Struct, frozen=True):
    """What an Authorization header carried. ``user`` is None for a bearer token."""

    secret: str
    user: str | None = None

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"


class Caller(NamedTuple):
    """From which address credentials come, and in which request."""

    source: str
    request_id: str


class SignedIn(NamedTuple):
    """Whose credentials they are, and the token among them."""

    operator: Operator
    token: OperatorToken | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One call as a handler sees it. ``headers`` has lower-case names; ``body`` is the JSON value, None when absent;
    ``operator`` and the ``token`` in use are None on public routes only; ``source`` is the caller's address; ``access``
    and ``ranges`` are the route's, and ``checked`` is what has been asked of the guard so far."""

    method: str
    path: str
    params: dict[str, str]
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    operator: Operator | None
    request_id: str
    source: str
    access: Access
    ranges: tuple[str, ...] = ()
    token: OperatorToken | None = None
    checked: set[Permission] = msgspec.field(default_factory=set)


class Reply(msgspec.Struct, frozen=True):
    """What a handler returns: status, a JSON value, extra headers."""

    status: int
    json: Any
    headers: dict[str, str] = {}


Handler = Callable[[Request], Reply]
Authenticate = Callable[[Credentials, Caller], SignedIn | None]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class Doc(msgspec.Struct, frozen=True):
    """What a route's users are told, in the OpenAPI document and nowhere else.

    ``id`` is NOUN.VERB; ``reply`` and ``body`` are types, the schemas of which are made from them; ``status`` is that
    of success. ``ranges`` are the attributes by which a list is paged, its default order first; ``query`` has the
    meaning of each parameter; ``refusals`` are statuses beyond those that follow from the rest of the route. ``makes``
    is the path parameter that the ``id`` of the reply fills in other routes.
    """

    id: str
    summary: str
    reply: Any
    body: Any = None
    status: int = 200
    ranges: tuple[str, ...] = ()
    query: dict[str, str] = {}
    refusals: tuple[int, ...] = ()
    makes: str | None = None


class Route(msgspec.Struct, frozen=True):
    """A row of the table. ``access`` is what it takes to be served: there is no default, so nothing is open by
    omission. ``revokes`` says that the change must have reached every gateway worker before it is answered."""

    method: str
    path: str
    handler: Handler
    access: Access
    revokes: bool = False
    doc: Doc | None = None

    @property
    def creates(self) -> bool:
        """Whether an operator makes something with it, so that it takes an Idempotency-Key."""
        made = self.method == "POST" and self.doc is not None and self.doc.status == 201
        return made and self.access is not Open.PUBLIC


def application(
    routes: Sequence[Route],
    *,
    authenticate: Authenticate,
    trusted_proxies: Sequence[str] = (),
    body_limit: int = BODY_LIMIT,
) -> AsgiApp:
    """The ASGI application of a table of routes. Handlers are synchronous and run in worker threads.

    ``trusted_proxies`` are addresses and CIDR blocks whose X-Forwarded-For says where a request comes from."""
    authenticator = _Authenticator(authenticate, trusted_proxies)
    table: dict[str, dict[str, Route]] = {}
    for route in routes:
        table.setdefault(route.path, {})[route.method] = route
    edges = [
        StarletteRoute(path, _Edge(by_method, authenticator=authenticator, body_limit=body_limit))
        for path, by_method in table.items()
    ]
    return Router(edges, redirect_slashes=False, default=_not_found)


def parse_credentials(header: str | None) -> Credentials | None:
    """The bearer token or Basic password of an Authorization header, or None."""
    scheme, _, value = (header or "").partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        return Credentials(value)
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, secret = base64.b64decode(value, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Credentials(secret, user) if colon and secret else None


def refusal(error: PenstockError) -> tuple[str, bytes]:
    """A request that the server refuses before this application sees it, in this plane's shape: see ``web.server``."""
    id_ = "bad_request" if error.status == 400 else error.code
    return f"request-id: {uuid.uuid4()}", msgspec.json.encode({"id": id_, "message": error.message})


class _Authenticator:
    """Says of a request where it comes from and, on routes that are not public, from whom."""

    def __init__(self, authenticate: Authenticate, trusted_proxies: Sequence[str]) -> None:
        self._authenticate = authenticate
        self._trusted = networks(trusted_proxies)

    def caller(self, incoming: StarletteRequest, request_id: str) -> Caller:
        """The address and the request."""
        peer = incoming.client.host if incoming.client else None
        return Caller(source_of(peer, incoming.headers.getlist("x-forwarded-for"), self._trusted), request_id)

    def signed_in(self, incoming: StarletteRequest, caller: Caller) -> SignedIn:
        """Raises ApiError unauthorized, and what the authentication itself raises."""
        credentials = parse_credentials(incoming.headers.get("authorization"))
        found = self._authenticate(credentials, caller) if credentials else None
        if found is None:
            message = "Invalid credentials provided." if credentials else _NO_CREDENTIALS
            raise ApiError(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})
        return found


class _Edge:
    """One path: reads the body, then authenticates and handles in a worker thread, and answers in any case."""

    def __init__(self, by_method: dict[str, Route], *, authenticator: _Authenticator, body_limit: int) -> None:
        self._by_method = by_method
        self._path = next(iter(by_method.values())).path
        self._authenticator = authenticator
        self._body_limit = body_limit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        incoming = StarletteRequest(scope, receive)
        request_id = str(uuid.uuid4())
        try:
            reply = await self._answer(incoming, request_id)
        except ClientDisconnect:
            return
        except ApiError as error:
            reply = _error_reply(error)
        except PenstockError as error:
            wait = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
            reply = _error_reply(ApiError(error.status, error.code, error.message, headers=wait))
        except Exception as error:  # noqa: BLE001 - the border: whatever broke, the client gets an answer without detail
            _log_failure(error, f"{incoming.method[:20]} {self._path}", request_id)
            message = f"Internal server error. Request {request_id}."
            reply = _error_reply(ApiError(500, "internal_server_error", message))
        known = incoming.headers.get("if-none-match", "") if incoming.method in ("GET", "HEAD") else None
        await _response(reply, request_id, known=known)(scope, receive, send)

    async def _answer(self, incoming: StarletteRequest, request_id: str) -> Reply:
        route = self._by_method.get("GET" if incoming.method == "HEAD" else incoming.method)
        if route is None:
            raise ApiError(
                405,
                "method_not_allowed",
                f"{incoming.method[:20]} is not supported here.",
                headers={"Allow": ", ".join(sorted(self._by_method))},
            )
        if "\0" in incoming.url.path or "%00" in incoming.scope.get("raw_path", b"").decode("latin-1"):
            raise _unknown_route()
        body = await self._read(incoming)
        return await run_in_threadpool(self._handle, route, incoming, (body, request_id))

    def _handle(self, route: Route, incoming: StarletteRequest, rest: tuple[bytes, str]) -> Reply:
        body, request_id = rest
        caller = self._authenticator.caller(incoming, request_id)
        signed_in = None if route.access is Open.PUBLIC else self._authenticator.signed_in(incoming, caller)
        return route.handler(
            Request(
                method=incoming.method,
                path=incoming.url.path,
                params={name: str(value) for name, value in incoming.path_params.items()},
                query=dict(incoming.query_params),
                headers=dict(incoming.headers),
                body=_json(body),
                operator=signed_in.operator if signed_in else None,
                token=signed_in.token if signed_in else None,
                request_id=request_id,
                source=caller.source,
                access=route.access,
                ranges=route.doc.ranges if route.doc else (),
            )
        )

    async def _read(self, incoming: StarletteRequest) -> bytes:
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for chunk in incoming.stream():
                    size += len(chunk)
                    if size > self._body_limit:
                        message = f"The request body is larger than {self._body_limit} bytes."
                        raise ApiError(413, "request_too_large", message, headers={"Connection": "close"})
                    chunks.append(chunk)
        except TimeoutError:
            message = f"The request body did not arrive within {BODY_TIMEOUT_S:.0f} s."
            raise ApiError(408, "request_timeout", message, headers={"Connection": "close"}) from None
        return b"".join(chunks)


def _json(body: bytes) -> Any:
    if not body.strip():
        return None
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ApiError(400, "bad_request", f"The request body is not valid JSON: {detail}.") from None
    if found is None:
        raise ApiError(400, "bad_request", "The request body must be a JSON object.")
    return found


def _unknown_route() -> ApiError:
    return ApiError(404, "not_found", "The requested API endpoint was not found. See docs/platform-api.md.")


def _error_reply(error: ApiError) -> Reply:
    body = {"id": error.id, "message": error.message}
    if error.resource is not None:
        body["resource"] = error.resource
    return Reply(error.status, body, error.headers)


def _response(reply: Reply, request_id: str, *, known: str | None = None) -> Response:
    """``known`` is the If-None-Match of a request that reads, None of one that does not."""
    headers = {"Request-Id": request_id, "Cache-Control": "no-store", **reply.headers}
    body = msgspec.json.encode(reply.json)
    if known is not None and reply.status == 200:
        headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
        if tags & {headers["ETag"], "*"}:
            return Response(status_code=304, headers=headers)
    return Response(body, reply.status, headers, media_type="application/json")


def _log_failure(error: Exception, where: str, request_id: str) -> None:
    # A traceback can carry values of the request, so the default level gets the place only.
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown place"
    logger.error("%s failed: %s at %s (request %s)", where, type(error).__name__, place, request_id)
    logger.debug("request %s", request_id, exc_info=error)


async def _not_found(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await _response(_error_reply(_unknown_route()), str(uuid.uuid4()))(scope, receive, send)
