"""Relays an OpenAI event stream: whole blocks of events untouched, a closer look only where the meter needs one.

However the bytes are cut, the client gets the same: an event passes as it is when it is a JSON object without a mark,
and a block when all of its events do; everything else is read event by event.
"""

import re
from typing import NamedTuple

import msgspec

from penstock.domain.answer import ChatEvent
from penstock.domain.errors import UpstreamError
from penstock.domain.usage import Usage
from penstock.providers.accounts import ABSENT
from penstock.providers.connection import Response
from penstock.providers.openai.answers import Chunk, Groq
from penstock.providers.openai.reasoning import TEXT, translated
from penstock.providers.openai.refusals import refusal
from penstock.providers.openai.usage import account
from penstock.providers.sse import SseParser
from penstock.providers.stream import Unshown, UpstreamStream
from penstock.providers.wire_out import DONE

_MAX_EVENT = 16 * 1024 * 1024
# A quote inside a JSON string is escaped, so these bytes can only be keys.
_NOTED = rb'usage"\s*:\s*\{|error"\s*:\s*+(?!null)|object"\s*:\s*"error"|choices"\s*:\s*\[\s*\]'
_MARKS = re.compile(b'"(?:%b)' % _NOTED)
_MARKS_OF_THOUGHTS = re.compile(b'"(?:%b|%b)' % (_NOTED, TEXT))
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"')


class Manner(NamedTuple):
    """What decides how a stream is relayed.

    ``keep_usage`` is false when the client did not ask for the usage chunk that we asked for on its behalf;
    ``credential`` is what an error must not quote; ``thoughts`` says that they come as text; ``finish_ends`` that a
    stream whose one choice has finished is whole without [DONE].
    """

    keep_usage: bool
    credential: str | None = None
    thoughts: bool = False
    finish_ends: bool = False


_NO_GROQ = Groq()
_decoder = msgspec.json.Decoder(Chunk)


class _Seen(NamedTuple):
    """An event after a closer look; ``shown`` is false when it has nothing for a reader."""

    frame: bytes
    tokens: int
    usage: Usage | None
    shown: bool
    raw: bytes | None = None


class Relay(UpstreamStream[bytes]):
    """The events of a streamed answer. Raises UpstreamError, after all events before it, when the stream holds an error
    or breaks the protocol."""

    __slots__ = (
        "_begun",
        "_done",
        "_finished",
        "_held",
        "_manner",
        "_marks",
        "_parser",
        "_raw",
        "_rest",
        "_usage",
    )

    def __init__(self, response: Response, manner: Manner) -> None:
        super().__init__(response)
        self._manner = manner
        self._marks = _MARKS_OF_THOUGHTS if manner.thoughts else _MARKS
        self._parser: SseParser | None = None
        self._rest = bytearray()  # an event that has begun
        self._held = bytearray()  # what came before the first event that shows something, and goes out with it
        self._usage: Usage | None = None
        self._raw: bytes | None = None
        self._begun = self._done = self._finished = False

    def whole(self) -> bool:
        """Whether [DONE] came, or what stands for it."""
        return self._done

    def _take(self, block: bytes) -> None:
        """Turn a block into events: whole and untouched where nothing in it concerns the meter."""
        if self._parser is None and (b"\r" in block or len(self._rest) > _MAX_EVENT):
            self._parser = SseParser(_MAX_EVENT)
            block, self._rest = bytes(self._rest) + block, bytearray()
        if self._parser is not None:
            try:
                payloads = self._parser.feed(block)
            except ValueError as error:
                self._failure = UpstreamError("upstream_error", f"{error}.")
                return
            self._read(payloads)
            return
        whole = self._split(block)
        if (count := _plain(whole)) and not self._marks.search(whole):
            self._note_finish(whole)
            self._put(whole, count, shown=True)
        elif whole:
            self._read(SseParser(_MAX_EVENT).feed(whole))

    def _split(self, block: bytes) -> bytes:
        """The whole events that this block completes. Of what came before it nothing is looked at again: the pieces of
        a large event would cost the square of their number."""
        cut = block.rfind(b"\n\n") + 2
        if cut == 1 and not (block.startswith(b"\n") and self._rest.endswith(b"\n")):
            self._rest += block
            return b""
        whole = block[:cut]
        if self._rest:
            whole = bytes(self._rest) + whole
            self._rest.clear()
        if cut < len(block):
            self._rest += block[cut:]
        return whole

    def _end(self) -> None:
        """The body has ended as HTTP frames it. Of an event without the empty line behind it only [DONE] counts."""
        left = (self._parser or SseParser(_MAX_EVENT)).feed(bytes(self._rest) + b"\n\n")
        if (left and left[-1].strip() == b"[DONE]") or (self._manner.finish_ends and self._finished):
            self._done = True
            self._put(DONE, 0, shown=True)

    def _read(self, payloads: list[bytes]) -> None:
        """Events one by one; what arrived together leaves together, and before the failure that follows it."""
        frames: list[bytes] = []
        tokens, usage, raw, shown = 0, None, None, False
        try:
            for payload in map(bytes.strip, payloads):
                if payload == b"[DONE]":
                    self._done = self._over = shown = True
                    frames.append(DONE)
                    break
                seen = self._look(payload)
                frames.append(seen.frame)
                tokens, shown = tokens + seen.tokens, shown or seen.shown
                usage, raw = seen.usage or usage, seen.raw or raw
        except UpstreamError as error:
            self._failure = error
        if frames:
            self._put(b"".join(frames), tokens, usage, raw, shown=shown)

    def _look(self, payload: bytes) -> _Seen:
        """One event. Raises UpstreamError for one that is an error, or none of this dialect."""
        self._note_finish(payload)
        if b"\n" in payload:  # several data lines: in JSON a line break is only space
            payload = payload.replace(b"\n", b" ")
        whole = payload[:1] == b"{" and payload[-1:] == b"}"
        if whole and not self._marks.search(payload):
            return _Seen(b"data: %b\n\n" % payload, 1, None, shown=True)
        try:
            chunk = _decoder.decode(payload)
        except (ValueError, RecursionError) as error:
            raise UpstreamError("upstream_error", "The upstream sent an event that is not JSON.") from error
        if bytes(chunk.error) not in ABSENT or chunk.object == "error":
            raise refusal(200, {}, payload, credential=self._manner.credential)
        groq = chunk.x_groq or _NO_GROQ
        if bytes(groq.error) not in ABSENT:
            raise refusal(200, {}, b'{"error":%b}' % bytes(groq.error), credential=self._manner.credential)
        usage, raw = account(chunk.usage, groq.usage)
        if not chunk.choices:
            dropped = usage is not None and not self._manner.keep_usage
            return _Seen(b"" if dropped else b"data: %b\n\n" % payload, 0, usage, shown=False, raw=raw)
        if self._manner.thoughts:
            payload = translated(payload)
        return _Seen(b"data: %b\n\n" % payload, 1, usage, shown=True, raw=raw)

    def _note_finish(self, events: bytes) -> None:
        if self._manner.finish_ends and not self._finished:
            self._finished = _FINISH.search(events) is not None

    def _put(
        self, frame: bytes, tokens: int, usage: Usage | None = None, raw: bytes | None = None, *, shown: bool
    ) -> None:
        if self._begun:
            self._ready.append(ChatEvent(frame, tokens, usage, self._done, raw))
        elif shown:
            self._begun = True
            frame, usage, raw = bytes(self._held) + frame, usage or self._usage, raw or self._raw
            self._ready.append(ChatEvent(frame, tokens, usage, self._done, raw))
            self._held.clear()
        else:
            self._held += frame
            self._usage, self._raw = usage or self._usage, raw or self._raw

    def _unshown(self) -> Unshown:
        return Unshown() if self._begun else Unshown(0, self._usage, self._raw)


def _plain(whole: bytes) -> int:
    """How many events a block has, when it is nothing but events as we write them ourselves, each a JSON object by its
    ends; else 0. A line break in a JSON string is escaped, so all of them are accounted for."""
    if not whole.startswith(b"data: {") or not whole.endswith(b"}\n\n"):
        return 0
    count = whole.count(b"}\n\ndata: {") + 1
    return count if whole.count(b"\n") == 2 * count else 0
