"""The driver's own listener: as much of llama-server's HTTP dialect as providers/embedded and readiness speak.

Everything but GET /health asks for the key; no origin is granted access.
"""

import asyncio
import contextlib
import hmac
import os
from collections.abc import Callable
from typing import Any

import httptools
import msgspec

from penstock.engine.openvino.asked import Completion, Refused
from penstock.engine.openvino.batch import Batch, Piece

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 503: "Service Unavailable"}
_UNKNOWN = {"error": {"code": 404, "message": "no such path", "type": "not_found_error"}}
_NO_KEY = {"error": {"code": 401, "message": "the key is missing or wrong", "type": "authentication_error"}}
_FAILED = {"error": {"code": 500, "message": "the engine gave up the answer", "type": "server_error"}}
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_COMPLETION = msgspec.json.Decoder(Completion)


class _Messages(msgspec.Struct):
    messages: list[dict[str, str]]


class _Content(msgspec.Struct):
    content: str


class Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self, batch: Batch, key: str, opened: set["Connection"]) -> None:
        self._batch = batch
        self._expected = f"Bearer {key}".encode()
        self._opened = opened
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._path = ""
        self._given = b""
        self._body: list[bytes] = []
        self._running: int | None = None
        self._routes: dict[tuple[str, str], Callable[[bytes], Any]] = {
            ("GET", "/health"): lambda _: {"status": "ok"},
            ("GET", "/slots"): lambda _: self._slots(),
            ("GET", "/props"): lambda _: {"driver": "openvino", "total_slots": batch.slots},
            ("POST", "/tokenize"): lambda raw: {"tokens": batch.tokens(_decoded(raw, _Content).content)},
            ("POST", "/apply-template"): lambda raw: {"prompt": batch.prompt(_decoded(raw, _Messages).messages)},
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._opened.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has gone, and what it waited for is dropped."""
        self._transport = None
        self._opened.discard(self)
        if self._running is not None:
            self._batch.drop(self._running)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request. What is no HTTP ends the connection, as does a second request before an answer's end."""
        if self._transport is None:
            return
        if self._running is not None:
            self._transport.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.close()

    def on_message_begin(self) -> None:
        """The parser begins a request."""
        self._path, self._given, self._body = "", b"", []

    def on_url(self, url: bytes) -> None:
        """The parser has read a part of the path."""
        self._path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser has read a header."""
        if name.lower() == b"authorization":
            self._given = value

    def on_body(self, body: bytes) -> None:
        """The parser has read a part of the body; that of a caller without the key is not kept."""
        if self._is_known():
            self._body.append(body)

    def on_message_complete(self) -> None:
        """The parser has read a whole request: answer it."""
        method, path = self._parser.get_method().decode("latin-1"), self._path.partition("?")[0]
        if path != "/health" and not self._is_known():
            self._answer(401, _NO_KEY)
            return
        try:
            if (method, path) == ("POST", "/completion"):
                self._complete(b"".join(self._body))
            elif (method, path) in self._routes:
                self._answer(200, self._routes[method, path](b"".join(self._body)))
            else:
                self._answer(404, _UNKNOWN)
        except Refused as refused:
            self._answer(refused.status, refused.body)

    def _is_known(self) -> bool:
        return hmac.compare_digest(self._given, self._expected)

    def _slots(self) -> list[dict[str, Any]]:
        return [{"id": at, "is_processing": at < self._batch.busy} for at in range(self._batch.slots)]

    def _complete(self, raw: bytes) -> None:
        self._running = self._batch.begin(_decoded(raw, Completion), self._send)
        self._write(_STREAM)

    def _send(self, piece: Piece | None) -> None:
        self._write(_chunk(_FAILED if piece is None else piece))
        if piece is None or piece.stop:
            self._running = None
            self._write(b"0\r\n\r\n")

    def _answer(self, status: int, body: Any) -> None:
        raw = msgspec.json.encode(body)
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n"
        )
        self._write(head.encode() + b"\r\n" + raw)
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()

    def _write(self, raw: bytes) -> None:
        if self._transport is not None:
            self._transport.write(raw)


async def serve(batch: Batch, *, socket: str, key: str, listens: Callable[[], None]) -> None:
    """Serve until stdin ends. ``listens`` is called once callers are taken."""
    loop = asyncio.get_running_loop()
    opened: set[Connection] = set()
    await loop.create_unix_server(lambda: Connection(batch, key, opened), socket, backlog=512)
    listens()
    ended = asyncio.Event()
    loop.add_reader(0, _watch_stdin, ended)
    working = asyncio.create_task(batch.run())
    await ended.wait()
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


def _watch_stdin(ended: asyncio.Event) -> None:
    if not os.read(0, 4096):
        ended.set()


def _decoded(raw: bytes, kind: Any) -> Any:
    try:
        return _COMPLETION.decode(raw) if kind is Completion else msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise Refused(f"the body cannot be read: {error}") from error


def _chunk(body: Any) -> bytes:
    raw = b"data: " + msgspec.json.encode(body) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(raw), raw)
