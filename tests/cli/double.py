"""An HTTP server on loopback that answers as a test scripts it, and keeps what it was asked."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Double:
    """A running server. ``url`` has no trailing slash; ``asked`` grows with every request."""

    url: str
    asked: list[Asked] = field(default_factory=list)


Script = Callable[[BaseHTTPRequestHandler, Asked], None]


@contextlib.contextmanager
def serving(script: Script) -> Iterator[Double]:
    """Answers every request by ``script(handler, asked)``."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): item for name, item in self.headers.items()}
            asked = Asked(self.command, self.path, headers, json.loads(body) if body else None)
            double.asked.append(asked)
            with contextlib.suppress(ConnectionError):
                script(self, asked)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815 - the base class looks for these

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    double = Double(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, body: object, *, headers: dict[str, str] | None = None) -> None:
    """One complete answer: JSON, or bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(data)))
    for name, item in (headers or {}).items():
        handler.send_header(name, item)
    handler.end_headers()
    handler.wfile.write(data)


def send_events(handler: BaseHTTPRequestHandler, *events: object) -> None:
    """A stream of server-sent events, each a JSON value or a string; the connection closes after them."""
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("connection", "close")
    handler.end_headers()
    for event in events:
        handler.wfile.write(b"data: " + _text(event).encode() + b"\n\n")
        handler.wfile.flush()


def delta(text: str) -> dict[str, Any]:
    """A chunk of a chat answer."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


def _text(event: object) -> str:
    return event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
