"""A small model hub on loopback: metadata, redirects, ranges and failures, with real bytes."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

COMMIT = "a" * 40


class HubDouble:
    """Serves ``files`` by "OWNER/REPO/FILE". ``cut_after`` breaks a download off; ``etag`` lies about the hash."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.cut_after: int | None = None
        self.etag: str | None = None
        self.requests: list[tuple[str, str, str | None]] = []
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                double.answer(self, body=False)

            def do_GET(self) -> None:
                double.answer(self, body=True)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, *, body: bool) -> None:
        """One request to /OWNER/REPO/resolve/REVISION/FILE."""
        span = handler.headers.get("range")
        self.requests.append((handler.command, handler.path, span))
        owner, repo, _, revision, *rest = handler.path.strip("/").split("/") + [""] * 4
        content = self.files.get(f"{owner}/{repo}/{'/'.join(part for part in rest if part)}")
        if content is None or revision not in ("main", COMMIT):
            handler.send_response(404)
            handler.send_header("x-error-code", "EntryNotFound")
            handler.send_header("content-length", "0")
            handler.end_headers()
            return
        start = int(span.removeprefix("bytes=").partition("-")[0]) if span else 0
        part = content[start:]
        handler.send_response(206 if span else 200)
        handler.send_header("content-length", str(len(part)))
        if span:
            handler.send_header("content-range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("accept-ranges", "bytes")
        handler.send_header("x-repo-commit", COMMIT)
        handler.send_header("x-linked-size", str(len(content)))
        handler.send_header("x-linked-etag", f'"{self.etag or hashlib.sha256(content).hexdigest()}"')
        handler.end_headers()
        if not body:
            return
        if self.cut_after is not None and len(part) > self.cut_after:
            part, self.cut_after = part[: self.cut_after], None
            handler.close_connection = True
        handler.wfile.write(part)
