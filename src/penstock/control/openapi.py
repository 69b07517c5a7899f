"""The OpenAPI 3.1 document of the control plane, made from the table of routes, so that it cannot fall behind it."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec.structs import fields

from penstock.control.paging import NUMBERS
from penstock.domain.access import Open
from penstock.web.api import Doc, Reply, Request, Route

Json = dict[str, Any]
# By the type of a reply or a body.
Schemas = dict[Any, Json]


class Refusal(msgspec.Struct, frozen=True):
    """Why a call was refused; ``resource`` says what was not found."""

    id: str
    message: str
    resource: str | msgspec.UnsetType = msgspec.UNSET


class Document(msgspec.Struct, frozen=True):
    """An OpenAPI 3.1 document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, dict[str, Any]]


_REFUSALS = {
    400: "The body is not JSON, or not an object",
    401: "No credentials, or wrong ones",
    403: "The operator's role does not allow it",
    404: "There is no such object, or the operator may not see it",
    408: "The body did not arrive in time",
    413: "The body is too large",
    416: "The Range header cannot be read, or names an attribute that is not in Accept-Ranges",
    422: "A field is wrong, a name is taken, or a confirmation is missing; the message names it",
    429: "Too many attempts: wait as Retry-After says",
    500: "A bug: report it with the Request-Id",
    503: "The database does not answer: wait as Retry-After says",
}
# What any call can get.
_ALWAYS = (400, 408, 413, 500, 503)
_PARAMETERS = {
    "app": "An app's name or id",
    "addon": "An add-on's name or id; `APP::NAME` for an attachment's",
    "attachment": "An attachment's id, or its name on an app",
    "key": "A key's id or prefix, or an attachment's name",
    "service": "`heroku-inference` or its id",
    "operator": "An operator's email or id, or `~` for oneself",
    "token": "A token's id",
    "authorization": "The id of one of one's own tokens",
    "collaborator": "A collaborator's email or id",
    "credential": "A credential's name, which is its provider's",
    "plan": "A plan's full name, the part after the colon, or its id",
}
_REQUEST_ID = {
    "Request-Id": {"description": "Names this call in logs and in the audit log", "schema": {"type": "string"}}
}


def with_document(routes: Sequence[Route], *, version: str) -> list[Route]:
    """The table and the two public routes that serve its document."""

    @cache
    def show() -> Json:
        return document(table, version=version)

    def handle(request: Request) -> Reply:
        return Reply(200, show())

    table = list(routes)
    for path in ("/schema", "/openapi.json"):
        doc = Doc(f"schema.{path.strip('/').partition('.')[0]}", "Show this document", Document)
        table.append(Route("GET", path, handle, Open.PUBLIC, doc=doc))
    return table


def document(routes: Sequence[Route], *, version: str) -> Json:
    """The document. Raises LookupError for a route without a description."""
    docs = {(route.method, route.path): _doc(route) for route in routes}
    types = list(dict.fromkeys(type_ for doc in docs.values() for type_ in (doc.reply, doc.body) if type_ is not None))
    schemas, components = msgspec.json.schema_components([Refusal, *types], ref_template="#/components/schemas/{name}")
    schema_of = dict(zip([Refusal, *types], schemas, strict=True))
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(
            route, schema_of, links=_links(route, routes)
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Penstock Platform API",
            "version": version,
            "description": "Apps, add-ons, attachments and their keys: Heroku's Platform API for managed inference.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": tag} for tag in sorted({_tag(doc) for doc in docs.values()})],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "An operator token"},
                "password": {"type": "http", "scheme": "basic", "description": "Email, and an operator token"},
            },
        },
    }


def statuses(route: Route) -> list[int]:
    """Every status that the route can answer with."""
    doc, found = _doc(route), [*_ALWAYS, *_doc(route).refusals]
    if route.access is not Open.PUBLIC:
        found += [401, 429]
    if not isinstance(route.access, Open):
        found.append(403)
    if "{" in route.path:
        found.append(404)
    if doc.body is not None or route.creates:
        found.append(422)
    if doc.ranges:
        found += [206, 416]
    if route.method == "GET" and doc.status == 200:
        found.append(304)
    return sorted({doc.status, *found})


def _operation(route: Route, schema_of: Schemas, *, links: Json) -> Json:
    doc = _doc(route)
    operation: Json = {
        "operationId": doc.id,
        "summary": doc.summary,
        "tags": [_tag(doc)],
        "security": [] if route.access is Open.PUBLIC else [{"token": []}, {"password": []}],
        "parameters": _parameters(route),
        "responses": {str(status): _response(status, route, schema_of) for status in statuses(route)},
    }
    if links:
        operation["responses"][str(doc.status)]["links"] = links
    if doc.body is not None:
        schema = schema_of[doc.body]
        operation["requestBody"] = {
            "required": _has_required(doc.body),
            "content": {"application/json": {"schema": schema}},
        }
    return operation


def _parameters(route: Route) -> list[Json]:
    doc = _doc(route)
    found = [
        _parameter(name, "path", _PARAMETERS.get(name, f"Which {name}"), required=True)
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    found += [_parameter(name, "query", meaning) for name, meaning in doc.query.items()]
    if doc.ranges:
        meaning = "Which part of the list, in which order and how many, such as `name ]last..; max=200, order=asc`"
        found.append(_parameter("Range", "header", meaning) | {"schema": {"type": "string", "pattern": _ranges(doc)}})
    if route.method == "GET":
        found.append(
            _parameter("If-None-Match", "header", "The ETag of what is known already: 304 when it still holds")
        )
    if route.creates:
        meaning = "1 to 256 printable ASCII characters: a repetition within a day is done once and answered again"
        schema = {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[ -~]+$"}
        found.append(_parameter("Idempotency-Key", "header", meaning) | {"schema": schema})
    return found


def _parameter(name: str, place: str, meaning: str, *, required: bool = False) -> Json:
    schema = {"type": "string", "minLength": 1} if required else {"type": "string"}
    return {"name": name, "in": place, "required": required, "description": meaning, "schema": schema}


def _ranges(doc: Doc) -> str:
    words = [name for name in doc.ranges if name not in NUMBERS]
    numbers = [name for name in doc.ranges if name in NUMBERS]
    options = r"( *[;,] *(max=[1-9][0-9]{0,8}|order=(asc|desc))){0,2}"
    values = [f"({'|'.join(names)}) +{value}" for names, value in ((words, _WORD), (numbers, _NUMBER)) if names]
    return f"^({'|'.join(values)}){options}$"


_WORD = r"\]?[A-Za-z0-9@_+.-]*\.\.[A-Za-z0-9@_+.-]*"
_NUMBER = r"\]?[0-9]{0,9}\.\.[0-9]{0,9}"


def _response(status: int, route: Route, schema_of: Schemas) -> Json:
    doc = _doc(route)
    if status == 304:
        return {"description": "It is as the ETag of If-None-Match says", "headers": _headers("ETag")}
    if status >= 400:
        schema, headers = schema_of[Refusal], _headers(*(["Retry-After"] if status in (429, 503) else []))
        return {
            "description": _REFUSALS[status],
            "headers": headers,
            "content": {"application/json": {"schema": schema}},
        }
    ranges = ["Accept-Ranges", "Content-Range"] if doc.ranges else []
    extra = {200: ["ETag"] if route.method == "GET" else [], 206: ["Next-Range"]}.get(status, [])
    extra += ["Idempotent-Replayed"] if route.creates else []
    schema = schema_of[doc.reply]
    description = "There is more: send Next-Range as Range" if status == 206 else doc.summary
    return {
        "description": description,
        "headers": _headers(*ranges, *extra),
        "content": {"application/json": {"schema": schema}},
    }


def _headers(*names: str) -> Json:
    return _REQUEST_ID | {name: {"schema": {"type": "string"}} for name in names}


def _links(route: Route, routes: Sequence[Route]) -> Json:
    """From what a route makes to every route whose path names such a thing."""
    made = _doc(route).makes
    return {
        _doc(other).id: {"operationId": _doc(other).id, "parameters": {f"path.{made}": "$response.body#/id"}}
        for other in routes
        if made is not None and f"{{{made}}}" in other.path
    }


def _doc(route: Route) -> Doc:
    if route.doc is None:
        raise LookupError(f"{route.method} {route.path} has no description")
    return route.doc


def _tag(doc: Doc) -> str:
    return doc.id.partition(".")[0]


def _has_required(body: Any) -> bool:
    return isinstance(body, type) and issubclass(body, msgspec.Struct) and any(f.required for f in fields(body))
