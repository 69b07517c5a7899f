"""The engine listener's dialect (llama-server's native completion), as far as we use it.

Always streamed with progress: the listener notices a hang-up only when it writes, and during prefill it writes
nothing but progress (measured on xllamacpp 2026.10.11549); a plain call is never cancelled.
"""

from collections.abc import AsyncGenerator
from typing import Any, NoReturn, TypeVar

import msgspec

from penstock.domain.chat import Json
from penstock.domain.errors import PenstockError, UpstreamError
from penstock.providers.sse import SseParser
from penstock.providers.transport import (
    ConnectFailed,
    FirstByteTimeout,
    IdleTimeout,
    Response,
    Transport,
    TransportError,
)

RETRY_AFTER_S = 2


class Timings(msgspec.Struct):
    """``cache_n``: prompt tokens that were taken from the slot's cache; ``prompt_ms``: how long the others took."""

    cache_n: int = 0
    prompt_ms: float = 0.0


class PromptProgress(msgspec.Struct):
    """How far a prompt of ``total`` tokens has been read; ``cache`` of them were there before."""

    total: int = 0
    cache: int = 0
    processed: int = 0


class SlotParams(msgspec.Struct):
    """What a slot's last request set. ``n_discard``, of no other use here, carries our mark of a request."""

    n_discard: int = 0


class Slot(msgspec.Struct):
    """One slot of the engine: how many tokens it has read, of the last request that it worked on or still does."""

    id: int
    is_processing: bool
    n_prompt_tokens: int = 0
    params: SlotParams | None = None
    next_token: list[dict[str, Json]] = []

    @property
    def answering(self) -> bool:
        """Whether it writes an answer, and is not reading its prompt."""
        return self.is_processing and any(each.get("n_decoded") for each in self.next_token)

    def has(self, mark: int) -> bool:
        """Whether its last request has this mark."""
        return self.params is not None and self.params.n_discard == mark


class Piece(msgspec.Struct):
    """One event of the stream: text of zero or more tokens; the last one has ``stop``. Counts are of the whole call."""

    content: str = ""
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    stop: bool = False
    stop_type: str = ""
    stopping_word: str = ""
    completion_probabilities: list[dict[str, Json]] = []
    timings: Timings | None = None
    prompt_progress: PromptProgress | None = None
    error: dict[str, Json] | None = None


class _Prompt(msgspec.Struct):
    prompt: str


class _Tokens(msgspec.Struct):
    tokens: list[int]


T = TypeVar("T")
_PIECE = msgspec.json.Decoder(Piece)


class NativeClient:
    """Calls one engine child. Raises PenstockError with our codes; the engine's own texts stay inside."""

    def __init__(self, transport: Transport, *, key: str) -> None:
        self._transport = transport
        self._headers = (("authorization", f"Bearer {key}"), ("content-type", "application/json"))

    async def template(self, messages: list[dict[str, str]]) -> str:
        """The messages as the model's prompt, by the chat template in its weights."""
        return (await self._whole("/apply-template", _Prompt, {"messages": messages})).prompt

    async def tokens(self, prompt: str) -> list[int]:
        """A prompt as ``complete`` reads it."""
        asked = {"content": prompt, "add_special": True, "parse_special": True}
        return (await self._whole("/tokenize", _Tokens, asked)).tokens

    async def slots(self) -> list[Slot]:
        """What the engine is at."""
        return await self._whole("/slots", list[Slot])

    async def read(self, tokens: list[int], slot: int, mark: int) -> Timings:
        """Have a slot read what it does not know yet of the beginning of a prompt. Waits until the slot is free."""
        asked = {"prompt": tokens, "n_predict": 0, "cache_prompt": True, "id_slot": slot, "n_discard": mark}
        return (await self._whole("/completion", Piece, asked)).timings or Timings()

    async def complete(self, body: dict[str, Json]) -> AsyncGenerator[Piece, None]:
        """Pieces of one completion; the last has ``stop``. A stream that ends before that raises upstream_closed."""
        response = await self._post("/completion", {**body, "stream": True, "return_progress": True})
        try:
            if response.status != 200:
                _refuse(response.status, await response.read())
            parser, ended = SseParser(), False
            while block := await response.block():
                for payload in parser.feed(block):
                    piece = _PIECE.decode(payload)
                    if piece.error is not None:
                        _refuse_object(piece.error)
                    ended = ended or piece.stop
                    yield piece
            if not ended:
                raise UpstreamError("upstream_closed", "The embedded engine ended before the answer was complete.")
        except TransportError as error:
            _fail(error)
        except (msgspec.DecodeError, ValueError) as error:
            raise UpstreamError("upstream_error", "The embedded engine sent what cannot be read.") from error
        finally:
            response.close()

    async def _whole(self, path: str, kind: type[T], asked: dict[str, Json] | None = None) -> T:
        response: Response | None = None
        try:
            if asked is None:
                response = await self._transport.get(path, self._headers)
            else:
                response = await self._post(path, asked)
            raw = await response.read()
        except TransportError as error:
            _fail(error)
        finally:
            if response is not None:
                response.close()
        if response.status != 200:
            _refuse(response.status, raw)
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.DecodeError as error:
            raise UpstreamError("upstream_error", "The embedded engine sent what cannot be read.") from error

    async def _post(self, path: str, body: dict[str, Json]) -> Response:
        try:
            return await self._transport.post(path, self._headers, msgspec.json.encode(body))
        except TransportError as error:
            _fail(error)


def not_ready() -> PenstockError:
    """The refusal while the child starts or restarts."""
    return UpstreamError(
        "engine_not_ready",
        f"The embedded engine is starting. Try again in {RETRY_AFTER_S} s.",
        retry_after_s=RETRY_AFTER_S,
    )


def _fail(error: TransportError) -> NoReturn:
    if isinstance(error, ConnectFailed):
        raise not_ready() from error
    if isinstance(error, FirstByteTimeout | IdleTimeout):
        raise UpstreamError("upstream_timeout", "The embedded engine took too long.") from error
    raise UpstreamError("upstream_closed", "The embedded engine ended before the answer was complete.") from error


def _refuse(status: int, raw: bytes) -> NoReturn:
    if status == 503:
        raise not_ready()
    try:
        error = msgspec.json.decode(raw).get("error", {})
    except (msgspec.DecodeError, AttributeError):
        error = {}
    _refuse_object({"code": status, **error} if isinstance(error, dict) else {"code": status})


def _refuse_object(error: dict[str, Any]) -> NoReturn:
    if error.get("type") == "exceed_context_size_error":
        counted, limit = error.get("n_prompt_tokens", "?"), error.get("n_ctx", "?")
        raise PenstockError(
            "context_length_exceeded",
            f"The messages are {counted} tokens; this model's context is {limit} tokens, the answer included. "
            "Shorten the messages.",
            param="messages",
        )
    if error.get("code") == 503:
        raise not_ready()
    if error.get("type") == "unsupported_parameter":
        raise PenstockError("unsupported_parameter", str(error.get("message")), param=str(error.get("param")))
    text = str(error.get("message", ""))[:300]
    # The engine's texts may name files of this machine.
    reason = f": {text}" if text and "/" not in text else "."
    if error.get("code") == 400:
        raise UpstreamError("upstream_refused", f"The embedded engine refused the request{reason}")
    raise UpstreamError("upstream_error", "The embedded engine failed to answer.")
