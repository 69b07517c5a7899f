"""Calls an upstream that speaks the Messages API."""

from penstock.domain.chat import BoundRequest
from penstock.domain.errors import UpstreamError
from penstock.providers import faults
from penstock.providers.anthropic import request as wire
from penstock.providers.anthropic.events import MessageReader, fault_of, whole
from penstock.providers.spec import Bound
from penstock.providers.translation.dialect import Call, Reader, TranslatedAdapter
from penstock.providers.translation.parts import Part
from penstock.providers.transport import Headers

_PATH = "/v1/messages"
_VERSION = "2023-06-01"  # the only one since 2023, as of 2026-11


def make(bound: Bound) -> TranslatedAdapter:
    """The adapter of one provider of this kind."""
    credential = bound.credential.secret if bound.credential else None
    headers = {"content-type": "application/json", "anthropic-version": bound.spec.api_version or _VERSION}
    if credential and bound.spec.auth == "bearer":
        headers["authorization"] = f"Bearer {credential}"
    elif credential:
        headers["x-api-key"] = credential
    headers.update((name.lower(), value) for name, value in bound.spec.headers)
    return TranslatedAdapter(bound.transport, Messages(tuple(headers.items()), credential))


class Messages:
    """The dialect. What a model thinks is shown to the clients that ask for it and to no others."""

    stream_type = "text/event-stream"

    def __init__(self, headers: Headers, credential: str | None) -> None:
        self._headers = headers
        self._credential = credential

    async def call(self, request: BoundRequest) -> Call:
        """The request in the vendor's words. Raises PenstockError for what it cannot say."""
        return Call(_PATH, self._headers, wire.body(request))

    def reader(self, request: BoundRequest) -> Reader[bytes]:
        """A new reader of a streamed answer."""
        return MessageReader(show=request.chat.shows_reasoning, credential=self._credential)

    def whole(self, request: BoundRequest, body: bytes) -> list[Part]:
        """The parts of a plain answer. Raises UpstreamError, also for an error in a 200."""
        return whole(body, show=request.chat.shows_reasoning, credential=self._credential)

    def fault(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
        """The public error for an answer that is none."""
        return fault_of(status, headers, faults.read_fault(body, credential=self._credential))

    def ignored(self, request: BoundRequest) -> tuple[str, ...]:
        """Parameters that are set and have no effect here."""
        return wire.ignored(request)
