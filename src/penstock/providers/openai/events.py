"""Relays an OpenAI event stream: whole blocks of events untouched, a closer look only where the meter needs one."""

from collections.abc import AsyncIterator

import msgspec

from penstock.domain.chat import ChatEvent
from penstock.domain.errors import UpstreamError
from penstock.domain.usage import Usage
from penstock.providers.connection import Response
from penstock.providers.faults import mask, read_fault
from penstock.providers.sse import SseParser

_MAX_EVENT = 16 * 1024 * 1024
# A quote inside a JSON string is escaped, so these bytes can only be keys. [DONE] may stand in a text: it is looked at.
_MARKS = (b'"usage":{', b'"usage": {', b'"error":', b"[DONE]")

# What a Raw field holds when its key is missing or null.
ABSENT = (b"", b"null")


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class WireUsage(msgspec.Struct):
    """``usage`` as the dialect writes it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None

    def normalised(self) -> Usage:
        """The meter's counts."""
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        return Usage(
            input_tokens=self.prompt_tokens, output_tokens=self.completion_tokens, cached_input_tokens=cached or 0
        )


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: WireUsage | None = None
    error: msgspec.Raw = msgspec.Raw()


_decoder = msgspec.json.Decoder(_Chunk)


async def relay(response: Response, *, keep_usage: bool) -> AsyncIterator[ChatEvent]:
    """Events of a streamed answer. Raises UpstreamError when the stream holds an error or breaks the protocol.

    ``keep_usage`` is false when the client did not ask for the usage chunk that we asked for on its behalf.
    """
    parser: SseParser | None = None
    rest = b""
    while block := await response.block():
        if parser is None and (b"\r" in block or len(rest) > _MAX_EVENT):
            parser = SseParser(_MAX_EVENT)
            block, rest = rest + block, b""
        if parser is None:
            whole, rest = _split(rest, block)
            if not whole:
                continue
            if not any(mark in whole for mark in _MARKS):
                yield ChatEvent(whole, whole.count(b"\n\n"))
                continue
            payloads = SseParser(_MAX_EVENT).feed(whole)
        else:
            try:
                payloads = parser.feed(block)
            except ValueError as error:
                raise UpstreamError("upstream_error", f"{error}.") from error
        for payload in payloads:
            event = _read(payload, keep_usage=keep_usage)
            yield event
            if event.done:
                return


def _split(rest: bytes, block: bytes) -> tuple[bytes, bytes]:
    data = rest + block if rest else block
    cut = data.rfind(b"\n\n") + 2
    return (data[:cut], data[cut:]) if cut > 1 else (b"", data)


def _read(payload: bytes, *, keep_usage: bool) -> ChatEvent:
    if payload == b"[DONE]":
        return ChatEvent(b"data: [DONE]\n\n", done=True)
    try:
        chunk = _decoder.decode(payload)
    except (ValueError, RecursionError) as error:
        raise UpstreamError("upstream_error", "The upstream sent an event that is not JSON.") from error
    if bytes(chunk.error) not in ABSENT:
        said = read_fault(payload).message
        raise UpstreamError("upstream_error", f"The upstream failed: {mask(said)}" if said else "The upstream failed.")
    usage = chunk.usage.normalised() if chunk.usage is not None else None
    only_usage = usage is not None and not chunk.choices
    frame = b"" if only_usage and not keep_usage else b"data: " + payload + b"\n\n"
    return ChatEvent(frame, 0 if only_usage else 1, usage)
