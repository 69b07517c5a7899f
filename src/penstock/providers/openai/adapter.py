"""Calls an upstream that speaks our own dialect and hands its bytes through."""

from collections.abc import AsyncGenerator

import msgspec

from penstock.domain.chat import BoundRequest, ChatEvent, ChatRequest
from penstock.domain.errors import UpstreamError
from penstock.providers import faults
from penstock.providers.connection import Response, TransportError
from penstock.providers.openai.events import ABSENT, WireUsage, relay
from penstock.providers.transport import Headers, Transport

_ERROR_BODY_LIMIT = 64 * 1024
# Heroku's own fields, which no upstream of this dialect knows (heroku-wire.md 2.1).
_OURS = ("allow_ignored_params", "extended_thinking")
_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Answer(msgspec.Struct):
    choices: msgspec.Raw = msgspec.Raw()  # an empty Raw is an absent field; Raw cannot be part of a union
    usage: WireUsage | None = None


_answer = msgspec.json.Decoder(_Answer)


class OpenAIAdapter:
    """One upstream of the OpenAI dialect. ``api_key`` arrives bound; it is sent to this endpoint alone."""

    def __init__(self, transport: Transport, *, api_key: str | None = None) -> None:
        self._transport = transport
        headers = [("content-type", "application/json")]
        if api_key:
            headers.append(("authorization", f"Bearer {api_key}"))
        self._headers: Headers = tuple(headers)

    def ignored(self, chat: ChatRequest) -> tuple[str, ...]:
        """Parameters that are set and have no effect here."""
        return ("extended_thinking",) if chat.extended_thinking is not None else ()

    async def open(self, request: BoundRequest) -> AsyncGenerator[ChatEvent, None]:
        """Wait for the first event. Raises UpstreamError."""
        try:
            response = await self._transport.post("/chat/completions", self._headers, _body(request))
        except TransportError as error:
            raise faults.from_transport(error) from error
        events = self._events(response, request.chat)
        try:
            first = await anext(events)
        except StopAsyncIteration:
            raise UpstreamError("upstream_closed", "The upstream ended without an answer. Try again.") from None
        return _from_first(first, events)

    async def _events(self, response: Response, chat: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        try:
            if response.status != 200:
                raise await _refusal(response)
            if not chat.stream:
                yield _whole(await response.read())
                return
            if "text/event-stream" not in response.headers.get("content-type", ""):
                raise UpstreamError("upstream_error", "The upstream answered a streamed request without a stream.")
            async for event in relay(response, keep_usage=chat.wants_usage_chunk):
                yield event
        except TransportError as error:
            raise faults.from_transport(error) from error
        finally:
            response.close()


async def _from_first(first: ChatEvent, rest: AsyncGenerator[ChatEvent, None]) -> AsyncGenerator[ChatEvent, None]:
    try:
        yield first
        async for event in rest:
            yield event
    finally:
        await rest.aclose()


def _body(request: BoundRequest) -> bytes:
    # Rebuilt from its top-level fields even when nothing changes: a body with two "model" keys must not reach an
    # upstream that reads the other one. The values stay the client's bytes.
    fields = _raw_object.decode(request.raw)
    for name in _OURS:
        fields.pop(name, None)
    if request.target_model != request.chat.model:
        fields["model"] = msgspec.Raw(msgspec.json.encode(request.target_model))
    if request.chat.stream and not request.chat.wants_usage_chunk:
        fields["stream_options"] = msgspec.Raw(b'{"include_usage":true}')
    return msgspec.json.encode(fields)


def _whole(body: bytes) -> ChatEvent:
    try:
        answer = _answer.decode(body)
    except (ValueError, RecursionError) as error:
        raise UpstreamError("upstream_error", "The upstream's answer is not JSON.") from error
    if bytes(answer.choices) in ABSENT:
        said = faults.read_fault(body).message
        raise UpstreamError(
            "upstream_error", f"The upstream failed: {faults.mask(said)}" if said else "The upstream sent no answer."
        )
    return ChatEvent(body, usage=answer.usage.normalised() if answer.usage else None, done=True)


async def _refusal(response: Response) -> UpstreamError:
    body = b""
    while len(body) < _ERROR_BODY_LIMIT and (block := await response.block()):
        body += block
    return faults.from_status(response.status, response.headers, body)
