"""Serves our dialect from an upstream that speaks another: a Dialect translates, this adapter calls and relays.

A Dialect is pure but for what it must fetch: bytes in, parts out. Everything that can go wrong on the way (before the
head, after it, in the middle of the stream, in a 200 with an error in it) is handled here, once for all vendors.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeVar

from penstock.domain.answer import ChatEvent, EventStream, Whole
from penstock.domain.chat import BoundRequest
from penstock.domain.errors import UpstreamError
from penstock.domain.usage import Usage
from penstock.providers import faults
from penstock.providers.connection import Response, TransportError
from penstock.providers.stream import Block, Source, Unshown, UpstreamStream, error_body
from penstock.providers.translation.parts import Frames, Part, folded
from penstock.providers.transport import Headers, Transport

Block_contra = TypeVar("Block_contra", contravariant=True)


class Call(NamedTuple):
    """One upstream call: path below the base URL, all its headers, body."""

    path: str
    headers: Headers
    body: bytes


class Reader(Protocol[Block_contra]):
    """The state of one streamed answer. ``done`` is true once the upstream's own end of a whole answer was seen."""

    done: bool

    def feed(self, block: Block_contra, /) -> Iterable[Part]:
        """The parts that a block of the body completes, lazily: those before a failure come out before it is raised.
        Raises UpstreamError for an error event or a broken protocol."""

    def end(self) -> Iterable[Part]:
        """The body has ended as HTTP frames it: the last parts, and ``done``, when that is how the answer ends."""


class Dialect(Protocol):
    """A vendor's wire, both ways. The credential arrives bound and stands in no message that it raises."""

    stream_type: str  # the content type of a streamed answer

    async def call(self, request: BoundRequest, /) -> Call:
        """The request in the vendor's words. Raises PenstockError for what it cannot say."""

    def reader(self, request: BoundRequest, /) -> Reader[bytes]:
        """A new reader of a streamed answer."""

    def whole(self, request: BoundRequest, body: bytes, /) -> list[Part]:
        """The parts of a plain answer, the usage among them. Raises UpstreamError, also for an error in a 200."""

    def fault(self, status: int, headers: dict[str, str], body: bytes, /) -> UpstreamError:
        """The public error for an answer that is none; ``status`` is 200 when an error came in place of a stream."""

    def ignored(self, request: BoundRequest, /) -> tuple[str, ...]:
        """Parameters that are set and have no effect here."""


class TranslatedAdapter:
    """Calls one upstream through a dialect."""

    def __init__(self, transport: Transport, dialect: Dialect) -> None:
        self._transport = transport
        self._dialect = dialect

    def ignored(self, request: BoundRequest) -> tuple[str, ...]:
        """Parameters that are set and have no effect here."""
        return self._dialect.ignored(request)

    async def open(self, request: BoundRequest) -> EventStream:
        """Wait for the first event. Raises PenstockError for what cannot be said, UpstreamError."""
        call = await self._dialect.call(request)
        streamed = bool(request.chat.stream)
        response: Response | None = None
        try:
            response = await self._transport.post(
                call.path, call.headers, call.body, timeouts=request.timeouts, streamed=streamed
            )
            if response.status != 200:
                raise await self._refusal(response)
            if not streamed:
                return Whole(folded(request, self._dialect.whole(request, await response.read())))
            if self._dialect.stream_type not in response.headers.get("content-type", ""):
                raise await self._refusal(response)
            stream = Translated(response, self._dialect.reader(request), request)
            await stream.prime(request.produced)
            return stream
        except TransportError as error:
            raise faults.from_transport(error) from error
        except BaseException:
            if response is not None:
                response.close()
            raise

    async def _refusal(self, response: Response) -> UpstreamError:
        return self._dialect.fault(response.status, response.headers, await error_body(response))


class Translated(UpstreamStream[Block]):
    """The events of a streamed answer in our dialect: what arrived together leaves together."""

    __slots__ = ("_begun", "_frames", "_raw", "_reader", "_tokens", "_usage")

    def __init__(self, source: Source[Block], reader: Reader[Block], request: BoundRequest) -> None:
        super().__init__(source)
        self._reader = reader
        self._frames = Frames(request)
        self._usage: Usage | None = None
        self._raw: bytes | None = None
        self._begun = False
        self._tokens = 0  # of parts before the first that shows something: they count with it

    def whole(self) -> bool:
        """Whether the reader has seen the vendor's end."""
        return self._reader.done

    def _take(self, block: Block) -> None:
        self._put(self._reader.feed(block))

    def _end(self) -> None:
        self._put(self._reader.end())

    def _put(self, parts: Iterable[Part]) -> None:
        frames: list[bytes] = []
        usage = raw = None
        try:
            for part in parts:
                frames.append(self._frames.part(part))
                self._tokens += part.tokens
                if part.usage is not None:
                    usage, raw = part.usage, part.raw_usage
        except UpstreamError as error:
            self._failure = error
        if usage is not None:
            self._usage, self._raw = usage, raw
        done = self._reader.done and self._failure is None
        if done:
            self._over = True
            frames.append(self._frames.last(self._usage or Usage(estimated=True)))
        frame = b"".join(frames)
        if frame or (self._begun and self._tokens):
            self._begun = True
            self._ready.append(ChatEvent(frame, self._tokens, self._usage, done, self._raw))
            self._tokens = 0

    def _unshown(self) -> Unshown:
        tokens, self._tokens = self._tokens, 0
        return Unshown(tokens, self._usage, self._raw)
