"""Asks an engine for a streamed answer, through Penstock or bare on its own socket, and notes when its pieces came."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, Protocol

# The model's ends of a turn and of a text (SmolLM2): without them every answer is as long as it was asked to be.
_ENDS = (0, 2)
_NEVER = -100
_LONGEST_S = 120.0
_LIMIT = 1 << 20


class Answer(NamedTuple):
    """When it was asked for, when each piece with text came (seconds of the monotonic clock), how many tokens it is."""

    sent_at: float
    times: list[float]
    tokens: int


class Piece(NamedTuple):
    """What one event says: whether it has text, and the tokens of the answer where it tells them."""

    text: bool
    tokens: int | None = None


class Side(Protocol):
    """One way to the engine."""

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection. Raises OSError."""

    async def request(self, messages: list[dict[str, str]], tokens: int) -> bytes:
        """The whole request for a streamed answer of so many tokens."""

    def piece(self, event: Any) -> Piece:
        """What an event of the stream says."""


class Through:
    """Penstock's gateway on loopback."""

    def __init__(self, port: int, headers: dict[str, str], model: str) -> None:
        self._port, self._headers, self._model = port, headers, model

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection. Raises OSError."""
        return await asyncio.open_connection("127.0.0.1", self._port, limit=_LIMIT)

    async def request(self, messages: list[dict[str, str]], tokens: int) -> bytes:
        """A chat request."""
        body = {
            "model": self._model,
            "messages": messages,
            "max_tokens": tokens,
            "temperature": 0,
            "logit_bias": {str(token): _NEVER for token in _ENDS},
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return _request("/v1/chat/completions", self._headers, body)

    def piece(self, event: Any) -> Piece:
        """A chunk of a chat completion."""
        if event.get("error"):
            raise RuntimeError(f"the gateway answered {event['error']}")
        usage = event.get("usage")
        text = any(choice.get("delta", {}).get("content") for choice in event.get("choices", ()))
        return Piece(text, usage["completion_tokens"] if usage else None)


class Bare:
    """The engine's child on its socket. Prompts are rendered before the clock starts."""

    def __init__(self, path: str, key: str) -> None:
        self._path, self._headers = path, {"authorization": f"Bearer {key}"}

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection. Raises OSError."""
        return await asyncio.open_unix_connection(self._path, limit=_LIMIT)

    async def request(self, messages: list[dict[str, str]], tokens: int) -> bytes:
        """A completion of the rendered prompt, with what Penstock sets for such a request."""
        reader, writer = await self.connect()
        writer.write(_request("/apply-template", self._headers, {"messages": messages}))
        rendered = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
        writer.close()
        body = {
            "prompt": rendered["prompt"],
            "n_predict": tokens,
            "temperature": 0,
            "top_k": 40,
            "top_p": 0.95,
            "min_p": 0.05,
            "logit_bias": [[token, _NEVER] for token in _ENDS],
            "cache_prompt": True,
            "stream": True,
            "return_progress": True,
        }
        return _request("/completion", self._headers, body)

    def piece(self, event: Any) -> Piece:
        """An event of a native completion."""
        if event.get("error"):
            raise RuntimeError(f"the engine answered {event['error']}")
        return Piece(bool(event.get("content")), event["tokens_predicted"] if event.get("stop") else None)


async def ask(
    side: Side, question: str, tokens: int, *, system: str = "", seen: Callable[[float], None] | None = None
) -> Answer:
    """One answer. ``seen`` is called with the time of each piece. Raises RuntimeError when it is refused."""
    messages = [{"role": "system", "content": system}] if system else []
    request = await side.request([*messages, {"role": "user", "content": question}], tokens)
    try:
        async with asyncio.timeout(_LONGEST_S):
            return await _answer(side, request, seen)
    except TimeoutError:
        raise RuntimeError(f"no whole answer within {_LONGEST_S:.0f} s") from None


async def _answer(side: Side, request: bytes, seen: Callable[[float], None] | None) -> Answer:
    times: list[float] = []
    told = 0
    reader, writer = await side.connect()
    try:
        sent_at = time.monotonic()
        writer.write(request)
        async for event in _events(reader):
            piece = side.piece(event)
            if piece.text:
                times.append(time.monotonic())
                if seen is not None:
                    seen(times[-1])
            told = told if piece.tokens is None else piece.tokens
    finally:
        writer.close()
    if not times or not told:
        raise RuntimeError(f"an answer of {len(times)} pieces and {told} tokens")
    return Answer(sent_at, times, told)


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[Any]:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"refused: {head[:60]!r} {(await reader.read(400))!r}")
    rest = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        *lines, rest = (rest + (await reader.readexactly(size))).split(b"\n")
        await reader.readline()
        for line in lines:
            payload = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and payload != b"[DONE]":
                yield json.loads(payload)


def _request(path: str, headers: dict[str, str], body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    lines = {"host": "127.0.0.1", "content-type": "application/json", "connection": "close", **headers}
    lines["content-length"] = str(len(content))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + content
