"""Holds replies against the OpenAPI document: nothing is answered that the document does not promise."""

import re
from copy import deepcopy
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker


class Described:
    """The document of one control plane. ``seen`` collects the operations and statuses that were held against it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = deepcopy(document)
        # In a reply, a field that the document does not have is a mistake in the document.
        for schema in self._document["components"]["schemas"].values():
            schema.setdefault("additionalProperties", False)
        self._paths = sorted(document["paths"], key=lambda path: path.count("{"))
        self.seen: set[tuple[str, int]] = set()

    def check(self, reply: httpx.Response) -> None:
        """Fails when the status or the body of a reply is not as the document says. For httpx's hook on responses."""
        reply.read()
        asked = reply.request
        operation = self._operation("get" if asked.method == "HEAD" else asked.method.lower(), asked.url.path)
        if operation is None:
            assert reply.status_code in (404, 405), (asked.url.path, reply.status_code)
            return
        told = operation["responses"].get(str(reply.status_code))
        assert told is not None, f"{operation['operationId']} does not say that it answers {reply.status_code}"
        self.seen.add((operation["operationId"], reply.status_code))
        for name in told["headers"]:
            optional = name in ("Idempotent-Replayed", "Retry-After")
            assert optional or name in reply.headers, f"{operation['operationId']}: {name}"
        if asked.method == "HEAD" or "content" not in told:
            assert reply.content == b""
            return
        assert reply.headers["content-type"] == "application/json"
        schema = {**told["content"]["application/json"]["schema"], "components": self._document["components"]}
        Draft202012Validator(schema, format_checker=FormatChecker()).validate(reply.json())

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        for template in self._paths:
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
                found: dict[str, Any] | None = self._document["paths"][template].get(method)
                return found
        return None
