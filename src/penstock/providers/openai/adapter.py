"""Calls an upstream that speaks our own dialect and hands its bytes through."""

import msgspec

from penstock.domain.chat import BoundRequest, ChatEvent, ChatRequest, EventStream
from penstock.domain.errors import UpstreamError
from penstock.providers import faults
from penstock.providers.connection import Response, TransportError
from penstock.providers.openai.events import ABSENT, Relay, read_usage
from penstock.providers.parts import Whole
from penstock.providers.spec import Bound
from penstock.providers.transport import Headers, Transport

_ERROR_BODY_LIMIT = 64 * 1024
# Heroku's own fields, which no upstream of this dialect knows (heroku-wire.md 2.1).
_OURS = ("allow_ignored_params", "extended_thinking")
_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Answer(msgspec.Struct):
    choices: msgspec.Raw = msgspec.Raw()  # an empty Raw is an absent field; Raw cannot be part of a union
    usage: msgspec.Raw = msgspec.Raw()


_answer = msgspec.json.Decoder(_Answer)


def make(bound: Bound) -> "OpenAIAdapter":
    """The adapter of one provider of this kind."""
    return OpenAIAdapter(bound.transport, api_key=bound.credential.secret if bound.credential else None)


class OpenAIAdapter:
    """One upstream of the OpenAI dialect. ``api_key`` arrives bound; it is sent to this endpoint alone."""

    def __init__(self, transport: Transport, *, api_key: str | None = None) -> None:
        self._transport = transport
        self._credential = api_key
        headers = [("content-type", "application/json")]
        if api_key:
            headers.append(("authorization", f"Bearer {api_key}"))
        self._headers: Headers = tuple(headers)

    def ignored(self, chat: ChatRequest) -> tuple[str, ...]:
        """Parameters that are set and have no effect here."""
        return ("extended_thinking",) if chat.extended_thinking is not None else ()

    async def open(self, request: BoundRequest) -> EventStream:
        """Wait for the first event. Raises UpstreamError."""
        response: Response | None = None
        try:
            streamed = bool(request.chat.stream)
            response = await self._transport.post(
                "/chat/completions", self._headers, _body(request), timeouts=request.timeouts, streamed=streamed
            )
            if response.status != 200:
                raise await _refusal(response, self._credential)
            if not streamed:
                return Whole(_whole(await response.read(), self._credential))
            if "text/event-stream" not in response.headers.get("content-type", ""):
                raise UpstreamError("upstream_error", "The upstream answered a streamed request without a stream.")
            keep_usage = request.chat.wants_usage_chunk
            stream = Relay(response, keep_usage=keep_usage, credential=self._credential)
            await stream.prime()
            return stream
        except TransportError as error:
            raise faults.from_transport(error) from error
        except BaseException:
            if response is not None:
                response.close()
            raise


def _body(request: BoundRequest) -> bytes:
    """The client's bytes where nothing has to change, else its top-level fields with their values untouched.

    A body that names the model twice is always rebuilt: it must not reach an upstream that reads the other one.
    """
    chat, raw = request.chat, request.raw
    ask_usage = chat.stream and not chat.wants_usage_chunk
    if (
        request.target_model == chat.model
        and not ask_usage
        and raw.count(b"model") == 1
        and not any(getattr(chat, name) is not None for name in _OURS)
    ):
        return raw
    fields = _raw_object.decode(raw)
    for name in _OURS:
        fields.pop(name, None)
    fields["model"] = msgspec.Raw(msgspec.json.encode(request.target_model))
    if ask_usage:
        fields["stream_options"] = msgspec.Raw(b'{"include_usage":true}')
    return msgspec.json.encode(fields)


def _whole(body: bytes, credential: str | None) -> ChatEvent:
    try:
        answer = _answer.decode(body)
    except (ValueError, RecursionError) as error:
        raise UpstreamError("upstream_error", "The upstream's answer is not JSON.") from error
    if bytes(answer.choices) in ABSENT:
        said = faults.read_fault(body, credential=credential).message
        raise UpstreamError(
            "upstream_error", f"The upstream failed: {said}" if said else "The upstream sent no answer."
        )
    return ChatEvent(body, usage=read_usage(answer.usage), done=True)


async def _refusal(response: Response, credential: str | None) -> UpstreamError:
    body = b""
    while len(body) < _ERROR_BODY_LIMIT and (block := await response.block()):
        body += block
    return faults.from_status(response.status, response.headers, faults.read_fault(body, credential=credential))
