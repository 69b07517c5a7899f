"""Calls an upstream that speaks our own dialect and hands its bytes through."""

from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.domain.answer import ChatEvent, EventStream, Whole
from penstock.domain.chat import BoundRequest
from penstock.domain.errors import UpstreamError
from penstock.providers import faults
from penstock.providers.accounts import ABSENT, BYTES_PER_TOKEN
from penstock.providers.connection import Response, TransportError
from penstock.providers.openai import reasoning
from penstock.providers.openai.answers import Answer
from penstock.providers.openai.events import Manner, Relay
from penstock.providers.openai.refusals import refusal
from penstock.providers.openai.request import Body, table
from penstock.providers.openai.usage import account
from penstock.providers.spec import Bound, Quirks
from penstock.providers.stream import error_body
from penstock.providers.translation.fields import Fields
from penstock.providers.transport import Headers, Transport

_answer = msgspec.json.Decoder(Answer)
_choices = msgspec.json.Decoder(list[dict[str, Any]])


def make(bound: Bound) -> "OpenAIAdapter":
    """The adapter of one provider of this kind."""
    secret = bound.credential.secret if bound.credential else None
    own = (("authorization", f"Bearer {secret}"),) if secret else ()
    return OpenAIAdapter(bound.transport, api_key=secret, headers=own + bound.spec.headers, quirks=bound.spec.quirks)


class OpenAIAdapter:
    """One upstream of the OpenAI dialect. ``headers`` hold its ``api_key`` in the way that it wants it; neither goes
    anywhere else. ``path`` is where it takes chats, below its base URL."""

    def __init__(
        self,
        transport: Transport,
        *,
        api_key: str | None = None,
        headers: Headers = (),
        quirks: Quirks | None = None,
    ) -> None:
        self._transport = transport
        self._credential = api_key
        self._headers: Headers = (("content-type", "application/json"), *headers)
        self._quirks = quirks or Quirks()
        self._thoughts = self._quirks.reasoning_field is not None
        self._body = Body(self._quirks)
        self._fields = Fields("this provider", table(self._quirks))

    def path(self, model: str) -> str:
        """Where chats with a model go."""
        return "/chat/completions"

    def ignored(self, request: BoundRequest) -> tuple[str, ...]:
        """Parameters that are set and have no effect here."""
        return self._fields.ignored(request.chat)

    async def open(self, request: BoundRequest) -> EventStream:
        """Wait for the first event. Raises PenstockError for what the server cannot do, UpstreamError."""
        chat = request.chat
        if self._quirks.refuses:
            self._fields.check(chat)
        streamed = bool(chat.stream)
        path, body = self.path(request.target_model), self._body.write(request)
        response: Response | None = None
        try:
            response = await self._transport.post(
                path, self._headers, body, timeouts=request.timeouts, streamed=streamed
            )
            if response.status != 200:
                raise await self._refusal(response)
            if not streamed:
                return Whole(self._whole(await response.read()))
            if "text/event-stream" not in response.headers.get("content-type", ""):
                raise await self._refusal(response)
            finish_ends = not self._quirks.done_mark and chat.n in (None, 1)
            stream = Relay(response, Manner(chat.wants_usage_chunk, self._credential, self._thoughts, finish_ends))
            await stream.prime(request.produced)
            return stream
        except TransportError as error:
            raise faults.from_transport(error) from error
        except BaseException:
            if response is not None:
                response.close()
            raise

    def _whole(self, body: bytes) -> ChatEvent:
        try:
            answer = _answer.decode(body)
        except (ValueError, RecursionError) as error:
            raise UpstreamError("upstream_error", "The upstream's answer is not JSON.") from error
        if bytes(answer.choices) in ABSENT:
            if faults.read_fault(body).message:
                raise refusal(200, {}, body, credential=self._credential)
            raise UpstreamError("upstream_error", "The upstream sent no answer.")
        if self._thoughts and reasoning.MARK.search(body):
            body = reasoning.translated(body)
        usage, raw = account(answer.usage)
        tokens = _counted(answer.choices) if usage is None or usage.estimated else 0
        return ChatEvent(body, tokens, usage, done=True, raw_usage=raw)

    async def _refusal(self, response: Response) -> UpstreamError:
        """Why the answer is none: its status, or what stands in place of the stream that was asked for."""
        body = await error_body(response)
        if response.status == 200 and not faults.read_fault(body).message:
            return UpstreamError("upstream_error", "The upstream answered a streamed request without a stream.")
        return refusal(response.status, response.headers, body, credential=self._credential)


def _counted(choices: msgspec.Raw) -> int:
    """About how many tokens were generated, where the server does not say: by the text, the thoughts and the calls."""
    try:
        said = [choice.get("message") for choice in _choices.decode(choices)]
    except (ValueError, RecursionError):
        return 0
    size = sum(len(text.encode("utf-8", "replace")) for message in said for text in _texts(message))
    return -(-size // BYTES_PER_TOKEN)


def _texts(said: Any) -> Iterator[str]:
    """All strings of a message that the model wrote, however deep."""
    if isinstance(said, str):
        yield said
    elif isinstance(said, dict):
        for name, value in said.items():
            if name not in ("role", "id", "type"):
                yield from _texts(value)
    elif isinstance(said, list):
        for value in said:
            yield from _texts(value)
