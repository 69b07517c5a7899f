"""The upstream double: an OpenAI-compatible server that answers at once, as its own process on loopback.

Sockets and epoll without a framework, because it has to be much faster than everything measured in front of it. It
prints ``{"port": N}`` when it listens; closing its standard input stops it. GET /stats tells what it has served.
"""

import contextlib
import gc
import heapq
import json
import select
import socket
import sys
import time

from bench.answers import BLANK_STAMP, PACE_S, PACED, STAMP, plain_answer, stream_frames, stream_head

_PLAIN = plain_answer()
_HEAD = stream_head()
_FRAMES = stream_frames()
_PACED = PACED.encode()
_PACED_FRAMES = stream_frames(stamped=True)
# What is asked for stands at the start or at the end of a long request.
_LOOKED_AT = 2048


class Connection:
    """One kept-alive client: what came of the next request and how much is missing at least, and the next frame of an
    open stream."""

    __slots__ = ("missing", "next_frame", "pieces", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pieces: list[bytes] = []
        self.missing = 0
        self.next_frame = 0


class Upstream:
    """The double's loop. A stream gets one frame per turn, each in a send of its own, as a fast engine would."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.poll = select.epoll()
        self.poll.register(self.listener.fileno(), select.EPOLLIN)
        self.poll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
        self.connections: dict[int, Connection] = {}
        self.fast: list[Connection] = []
        self.paced: list[tuple[float, int, Connection]] = []
        self.served = {"plain": 0, "streamed": 0, "connections": 0}

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.listener.getsockname()[1])

    def run(self) -> None:
        """Serve until standard input closes."""
        listener, lifeline = self.listener.fileno(), sys.stdin.fileno()
        while True:
            for fd, _ in self.poll.poll(self._wait_s()):
                if fd == listener:
                    self._accept()
                elif fd == lifeline:
                    return
                else:
                    self._readable(self.connections[fd])
            if self.fast:
                self.fast = [one for one in self.fast if self._send_frame(one, _FRAMES[one.next_frame])]
            if self.paced:
                self._send_due()

    def _wait_s(self) -> float:
        if self.fast:
            return 0.0
        return max(0.0, self.paced[0][0] - time.monotonic()) if self.paced else -1.0

    def _accept(self) -> None:
        sock, _ = self.listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections[sock.fileno()] = Connection(sock)
        self.poll.register(sock.fileno(), select.EPOLLIN)
        self.served["connections"] += 1

    def _close(self, connection: Connection) -> None:
        fd = connection.sock.fileno()
        if fd >= 0:
            self.poll.unregister(fd)
            del self.connections[fd]
            connection.sock.close()

    def _readable(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(32768)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        if connection.pieces:
            connection.pieces.append(data)
            connection.missing -= len(data)
            if connection.missing > 0:
                return
            data = b"".join(connection.pieces)
            connection.pieces.clear()
        size = request_size(data)
        if size is None or size > len(data):
            connection.pieces.append(data)
            connection.missing = 1 if size is None else size - len(data)
            return
        if size < len(data):
            connection.pieces.append(data[size:])
            connection.missing = 1
        self._answer(connection, data[:size])

    def _answer(self, connection: Connection, request: bytes) -> None:
        if len(request) > 2 * _LOOKED_AT:
            request = request[:_LOOKED_AT] + request[-_LOOKED_AT:]
        if request.startswith(b"GET"):
            body = json.dumps(self.served).encode()
            self._send(connection, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        elif b'"stream":true' in request or b'"stream": true' in request:
            self.served["streamed"] += 1
            connection.next_frame = 0
            self._send(connection, _HEAD)
            if _PACED in request:
                heapq.heappush(self.paced, (time.monotonic(), id(connection), connection))
            else:
                self.fast.append(connection)
        else:
            self.served["plain"] += 1
            self._send(connection, _PLAIN)

    def _send(self, connection: Connection, data: bytes) -> None:
        try:
            connection.sock.send(data)
        except OSError:
            self._close(connection)

    def _send_frame(self, connection: Connection, frame: bytes) -> bool:
        try:
            connection.sock.send(frame)
        except BlockingIOError:
            return True
        except OSError:
            self._close(connection)
            return False
        connection.next_frame += 1
        return connection.next_frame < len(_FRAMES)

    def _send_due(self) -> None:
        now = time.monotonic()
        while self.paced and self.paced[0][0] <= now:
            due, key, connection = self.paced[0]
            stamp = STAMP + b"%019d" % time.monotonic_ns()
            if self._send_frame(connection, _PACED_FRAMES[connection.next_frame].replace(BLANK_STAMP, stamp)):
                heapq.heapreplace(self.paced, (due + PACE_S, key, connection))
            else:
                heapq.heappop(self.paced)


def request_size(data: bytes) -> int | None:
    """How long the first request in ``data`` is, head and body; None while that cannot be told yet."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    at = head.find(b"content-length:")
    if at >= 0:
        return end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
    if b"transfer-encoding: chunked" in head:
        last = data.find(b"0\r\n\r\n", end)
        return None if last < 0 else last + 5
    return end + 4


def main() -> None:
    """Listen, say where, serve."""
    upstream = Upstream()
    print(json.dumps({"port": upstream.port}), flush=True)
    gc.freeze()
    gc.disable()
    with contextlib.suppress(KeyboardInterrupt):
        upstream.run()


if __name__ == "__main__":
    main()
