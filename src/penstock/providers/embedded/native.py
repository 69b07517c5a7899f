"""The engine listener's dialect (llama-server's native completion), as far as we use it.

Always streamed with progress: the listener notices a hang-up only when it writes, and during prefill it writes
nothing but progress (measured on xllamacpp 2026.10.11549); a plain call is never cancelled.
"""

from collections.abc import AsyncGenerator
from typing import Any, NoReturn

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
    """``cache_n``: prompt tokens that were taken from the slot's cache."""

    cache_n: int = 0


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
    error: dict[str, Json] | None = None


class _Prompt(msgspec.Struct):
    prompt: str


_PIECE = msgspec.json.Decoder(Piece)
_PROMPT = msgspec.json.Decoder(_Prompt)


class NativeClient:
    """Calls one engine child. Raises PenstockError with our codes; the engine's own texts stay inside."""

    def __init__(self, transport: Transport, *, key: str) -> None:
        self._transport = transport
        self._headers = (("authorization", f"Bearer {key}"), ("content-type", "application/json"))

    async def template(self, messages: list[dict[str, str]]) -> str:
        """The messages as the model's prompt, by the chat template in its weights."""
        response = await self._post("/apply-template", {"messages": messages})
        try:
            raw = await response.read()
        except TransportError as error:
            _fail(error)
        finally:
            response.close()
        if response.status != 200:
            _refuse(response.status, raw)
        return _PROMPT.decode(raw).prompt

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
