"""Relays an OpenAI event stream: whole blocks of events untouched, a closer look only where the meter needs one."""

import re
from collections import deque
from typing import Annotated, Self

import msgspec

from penstock.domain.chat import ChatEvent
from penstock.domain.errors import UpstreamError
from penstock.domain.usage import Usage
from penstock.providers.connection import Response, TransportError
from penstock.providers.faults import from_transport, read_fault
from penstock.providers.sse import SseParser

_MAX_EVENT = 16 * 1024 * 1024
# A quote inside a JSON string is escaped, so these bytes can only be keys. [DONE] may stand in a text: it is looked at.
_MARKS = re.compile(rb'"usage": ?\{|"error":|\[DONE\]')

# What a Raw field holds when its key is missing or null.
ABSENT = (b"", b"null")


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Details(msgspec.Struct):
    cached_tokens: _Count | None = None


class _WireUsage(msgspec.Struct):
    prompt_tokens: _Count
    completion_tokens: _Count = 0
    prompt_tokens_details: _Details | None = None


_usage_decoder = msgspec.json.Decoder(_WireUsage)


def read_usage(raw: msgspec.Raw) -> Usage | None:
    """The meter's counts from ``usage`` as the dialect writes it; None when it is absent or makes no sense.

    A good answer is not thrown away for a bad count: the meter then estimates, and says so.
    """
    if bytes(raw) in ABSENT:
        return None
    try:
        wire = _usage_decoder.decode(raw)
    except (ValueError, RecursionError):
        return None
    cached = wire.prompt_tokens_details.cached_tokens if wire.prompt_tokens_details else None
    return Usage(input_tokens=wire.prompt_tokens, output_tokens=wire.completion_tokens, cached_input_tokens=cached or 0)


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_decoder = msgspec.json.Decoder(_Chunk)


class Relay:
    """The events of a streamed answer. Raises UpstreamError when the stream holds an error or breaks the protocol.

    ``keep_usage`` is false when the client did not ask for the usage chunk that we asked for on its behalf;
    ``credential`` is what an error must not quote.
    """

    __slots__ = ("_credential", "_done", "_keep_usage", "_parser", "_ready", "_response", "_rest")

    def __init__(self, response: Response, *, keep_usage: bool, credential: str | None) -> None:
        self._response = response
        self._credential = credential
        self._keep_usage = keep_usage
        self._parser: SseParser | None = None
        self._rest = b""
        self._ready: deque[ChatEvent] = deque()
        self._done = False

    async def prime(self) -> None:
        """Wait for the first event and keep it for the reader."""
        try:
            first = await anext(self)
        except StopAsyncIteration:
            message = "The upstream ended without an answer. Try again."
            raise UpstreamError("upstream_closed", message) from None
        self._response.begun()
        self._ready.appendleft(first)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatEvent:
        try:
            while not self._ready:
                if self._done:
                    raise StopAsyncIteration
                block = await self._response.block()
                if not block:
                    raise StopAsyncIteration
                self._take(block)
        except TransportError as error:
            raise from_transport(error) from error
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Hang up unless the answer is complete."""
        if self._done:
            self._response.let_go()
        else:
            self._response.close()

    def _take(self, block: bytes) -> None:
        """Turn a block into events: whole and untouched where nothing in it concerns the meter."""
        if self._parser is None and (b"\r" in block or len(self._rest) > _MAX_EVENT):
            self._parser = SseParser(_MAX_EVENT)
            block, self._rest = self._rest + block, b""
        if self._parser is None:
            whole, self._rest = _split(self._rest, block)
            if not _MARKS.search(whole):
                # A quote inside a JSON string is escaped and so is a line break: this counts events, not text. A block
                # of comments alone is no event: it must not decide that this target has answered.
                if count := whole.count(b"\ndata:") + whole.startswith(b"data:"):
                    self._ready.append(ChatEvent(whole, count))
                return
            payloads = SseParser(_MAX_EVENT).feed(whole)
        else:
            try:
                payloads = self._parser.feed(block)
            except ValueError as error:
                raise UpstreamError("upstream_error", f"{error}.") from error
        for payload in payloads:
            event = _read(payload, keep_usage=self._keep_usage, credential=self._credential)
            self._ready.append(event)
            if event.done:
                self._done = True
                return


def _split(rest: bytes, block: bytes) -> tuple[bytes, bytes]:
    data = rest + block if rest else block
    cut = data.rfind(b"\n\n") + 2
    return (data[:cut], data[cut:]) if cut > 1 else (b"", data)


def _read(payload: bytes, *, keep_usage: bool, credential: str | None) -> ChatEvent:
    if payload == b"[DONE]":
        return ChatEvent(b"data: [DONE]\n\n", done=True)
    try:
        chunk = _decoder.decode(payload)
    except (ValueError, RecursionError) as error:
        raise UpstreamError("upstream_error", "The upstream sent an event that is not JSON.") from error
    if bytes(chunk.error) not in ABSENT:
        said = read_fault(payload, credential=credential).message
        raise UpstreamError("upstream_error", f"The upstream failed: {said}" if said else "The upstream failed.")
    usage = read_usage(chunk.usage)
    only_usage = usage is not None and not chunk.choices
    frame = b"" if only_usage and not keep_usage else b"data: " + payload + b"\n\n"
    return ChatEvent(frame, 0 if only_usage else 1, usage)
