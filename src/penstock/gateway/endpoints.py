"""The HTTP edge of the data plane: a raw ASGI application, no router framework on the hot path."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from penstock.domain.errors import PenstockError
from penstock.domain.ids import without_secrets
from penstock.gateway.admit import allowed_model
from penstock.gateway.authenticate import authenticate, bearer_key
from penstock.gateway.pages import Health, addon_status, model_entry, model_list
from penstock.gateway.pipeline import Line, run_line
from penstock.gateway.replay.service import REPLAY_HEADERS, Asked, Replay, wanted
from penstock.gateway.reply import Reply, Send
from penstock.gateway.snapshot import KeySnapshot
from penstock.gateway.underway import DISCONNECTED
from penstock.gateway.wire import parse_chat
from penstock.providers.wire_out import available_models

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
_CHAT = "/v1/chat/completions"
_PAGES = {"/healthz", "/readyz", "/available-models", "/v1/models", "/v1/mcp/servers"}
_PAGES_BELOW = ("/v1/models/", "/models/")
_READ_ONLY = ("GET", "HEAD")
_READ: Final = frozenset(
    {b"authorization", b"x-api-key", b"content-length", b"x-heroku-prompt-caching", *REPLAY_HEADERS}
)


class Gateway:
    """The ASGI application of one worker."""

    def __init__(
        self,
        line: Line,
        keys: KeySnapshot,
        health: Health,
        *,
        max_body_bytes: int,
        route_headers: bool = True,
        replay: Replay | None = None,
    ) -> None:
        self.line = line  # replaced when the configuration is reloaded
        self._keys = keys
        self._health = health
        self._max_body = max_body_bytes
        self._route_headers = route_headers
        self._replay = replay
        # Unique across workers and restarts without a system call per request.
        self._id_prefix = "req_" + os.urandom(8).hex()
        self._id_count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; whatever happens ends in an answer of the API's own shape or a closed connection."""
        if scope["type"] != "http":
            return
        self._id_count += 1
        reply = Reply(send, f"{self._id_prefix}{self._id_count:08x}", route_headers=self._route_headers)
        try:
            if scope["path"] == _CHAT:
                await self._chat(scope, receive, reply)
            else:
                await self._page(scope, reply)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the edge of the process
            await reply.failed(error)

    async def _chat(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        if scope["method"] != "POST":
            raise _not_allowed(reply, "POST")
        headers = _headers(scope)
        secret = _key(headers)
        principal = await authenticate(self._keys, secret)
        underway = self._keys.underway
        task = underway.enter(principal)  # no wait since the key was looked at: a change must find it here
        try:
            parsed = parse_chat(await self._read(receive, headers.get(b"content-length")))
            if headers.get(b"x-heroku-prompt-caching", b"").strip().lower() == b"false":
                parsed = msgspec.structs.replace(parsed, prompt_caching=False)
            reply.expect(stream=bool(parsed.chat.stream), dropped=parsed.dropped)
            if self._replay is not None and wanted(headers, principal):
                asked = Asked(principal, secret or "", headers, parsed)
                await self._replay.serve(self.line, asked, reply)
            else:
                await run_line(self.line, principal, parsed, request_id=reply.request_id, out=reply)
        finally:
            underway.leave(task)

    async def _read(self, receive: Receive, length: bytes | None) -> bytes:
        if length is not None and length.isdigit() and int(length) > self._max_body:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise asyncio.CancelledError(DISCONNECTED)
            chunks.append(message["body"])
            size += len(chunks[-1])
            if size > self._max_body:
                raise self._too_large()
            more = message["more_body"]
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _too_large(self) -> PenstockError:
        return PenstockError("body_too_large", f"The body exceeds {self._max_body} bytes (gateway.max_body_bytes).")

    async def _page(self, scope: Scope, reply: Reply) -> None:
        path, method = scope["path"], scope["method"]
        if path not in _PAGES and not path.startswith(_PAGES_BELOW):
            message = f"No route {method} {without_secrets(path[:200])}. docs/api.md lists the routes."
            raise PenstockError("route_not_found", message)
        if method not in _READ_ONLY:
            raise _not_allowed(reply, "GET")
        status, body = await self._read_page(scope, path)
        await reply.json(status, msgspec.json.encode(body))

    async def _read_page(self, scope: Scope, path: str) -> tuple[int, Any]:
        if path == "/healthz":
            return 200, self._health.live()
        if path == "/readyz":
            ready, body = await self._health.ready()
            return (200 if ready else 503), body
        catalogue = self.line.catalogue
        if path == "/available-models":
            return 200, available_models(catalogue)
        principal = await authenticate(self._keys, _key(_headers(scope)))
        if path == "/v1/models":
            return 200, model_list(catalogue, principal)
        if path == "/v1/mcp/servers":
            return 200, []
        if path.startswith("/models/"):
            wanted, recent = path.removeprefix("/models/"), self.line.recent
            return 200, await addon_status(wanted, principal, catalogue, health=self._health, recent=recent)
        return 200, model_entry(allowed_model(catalogue, principal, path.removeprefix("/v1/models/")))


def _headers(scope: Scope) -> dict[bytes, bytes]:
    """The headers that say something here; of one that is repeated, the last."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return {name: value for name, value in headers if name in _READ}


def _key(headers: dict[bytes, bytes]) -> str | None:
    authorization, api_key = headers.get(b"authorization"), headers.get(b"x-api-key")
    return bearer_key(
        None if authorization is None else authorization.decode("latin-1"),
        None if api_key is None else api_key.decode("latin-1"),
    )


def _not_allowed(reply: Reply, allow: str) -> PenstockError:
    reply.add_header(b"allow", allow.encode())
    return PenstockError("method_not_allowed", f"This route takes {allow} only.")
