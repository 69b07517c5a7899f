"""The load generator: kept-alive connections that each send one prepared request after another, every answer checked.

Sockets and epoll in one thread and one process of its own (``python -m bench.load`` reads a job as JSON on standard
input and prints a result as JSON), because its own cost is part of every figure: wrk is its cross-check.
"""

import gc
import json
import select
import socket
import sys
import time
from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

from bench.answers import DELTA_MARK, DELTAS, PLAIN_MARK

_DRAIN_S = 20.0
# The latency distribution that a result keeps: enough of it to draw.
SHARES = {
    "p1": 0.01,
    "p5": 0.05,
    "p10": 0.1,
    "p25": 0.25,
    "p50": 0.5,
    "p75": 0.75,
    "p90": 0.9,
    "p95": 0.95,
    "p99": 0.99,
    "p99_9": 0.999,
}


class Job(NamedTuple):
    """One measurement: ``request`` is the whole request as text, ``duration_s`` counts after ``warmup_s``.

    ``keys`` are sent in turn in place of the first of them, which stands in the request; all are of one length.
    """

    host: str
    port: int
    request: str
    connections: int
    duration_s: float
    warmup_s: float
    streamed: bool
    keys: Sequence[str] = ()


class Connection:
    """One connection: when its request left, what of it is still to be sent, when the first event came, and the answer
    so far."""

    __slots__ = ("first_at", "pieces", "sent_at", "sock", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sent_at = 0
        self.first_at = 0
        self.pieces: list[bytes] = []
        self.unsent = memoryview(b"")


class WrongAnswer(Exception):
    """An answer that is not the one asked for; the message shows its beginning."""


class Load:
    """Runs one job. Latencies are nanoseconds, taken only from requests that end inside the measured window."""

    def __init__(self, job: Job) -> None:
        self.job = job
        keys = [key.encode() for key in job.keys]
        request = job.request.encode()
        self.requests = cycle([request.replace(keys[0], key, 1) for key in keys] or [request])
        self.latencies: list[int] = []
        self.first_bytes: list[int] = []
        self.sent = 0
        self.busy = 0
        self.start_at = 0
        self.end_at = 0
        self._known_size = -1
        self._poll = select.epoll()
        self._feed = self._feed_stream if job.streamed else self._feed_plain

    def run(self) -> dict[str, float]:
        """Measure, then let open answers end, so that nothing of this job falls into the next."""
        by_fd: dict[int, Connection] = {}
        now = time.perf_counter_ns()
        self.start_at = now + int(self.job.warmup_s * 1e9)
        self.end_at = self.start_at + int(self.job.duration_s * 1e9)
        for _ in range(self.job.connections):
            connection = Connection(self._connect())
            by_fd[connection.sock.fileno()] = connection
            self._poll.register(connection.sock.fileno(), select.EPOLLIN)
            self._send(connection, time.perf_counter_ns())
        self.busy = len(by_fd)
        give_up = self.end_at + int(_DRAIN_S * 1e9)
        while self.busy:
            for fd, events in self._poll.poll(1.0):
                if events & select.EPOLLOUT:
                    self._send_rest(by_fd[fd])
                if events != select.EPOLLOUT:
                    self._feed(by_fd[fd])
            if time.perf_counter_ns() > give_up:
                raise WrongAnswer(f"{self.busy} answers still open {_DRAIN_S:.0f} s after the end")
        return self._result()

    def _connect(self) -> socket.socket:
        sock = socket.create_connection((self.job.host, self.job.port), timeout=10)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _send(self, connection: Connection, now: int) -> None:
        connection.sent_at = now
        connection.first_at = 0
        self.sent += 1
        request = next(self.requests)
        done = connection.sock.send(request)
        if done < len(request):
            connection.unsent = memoryview(request)[done:]
            self._poll.modify(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _send_rest(self, connection: Connection) -> None:
        connection.unsent = connection.unsent[connection.sock.send(connection.unsent) :]
        if not connection.unsent:
            self._poll.modify(connection.sock.fileno(), select.EPOLLIN)

    def _done(self, connection: Connection) -> None:
        now = time.perf_counter_ns()
        if self.start_at <= now <= self.end_at:
            self.latencies.append(now - connection.sent_at)
            if connection.first_at:
                self.first_bytes.append(connection.first_at - connection.sent_at)
        if now < self.end_at:
            self._send(connection, now)
        else:
            # Closed at once: a server that drops idle connections while others still drain has done nothing wrong.
            self._poll.unregister(connection.sock.fileno())
            connection.sock.close()
            self.busy -= 1

    def _feed_plain(self, connection: Connection) -> None:
        data = _receive(connection)
        # The usual case: one read, as long as the last answer that was checked in full.
        if len(data) == self._known_size and data.startswith(b"HTTP/1.1 200") and PLAIN_MARK in data:
            self._done(connection)
            return
        connection.pieces.append(data)
        whole = b"".join(connection.pieces)
        size = answer_size(whole)
        if size is None or size > len(whole):
            return
        if size != len(whole) or not whole.startswith(b"HTTP/1.1 200") or PLAIN_MARK not in whole:
            raise WrongAnswer(repr(whole[:400]))
        self._known_size = size
        connection.pieces.clear()
        self._done(connection)

    def _feed_stream(self, connection: Connection) -> None:
        data = _receive(connection)
        if not connection.first_at and b"data: " in data:
            connection.first_at = time.perf_counter_ns()
        connection.pieces.append(data)
        if not data.endswith(b"0\r\n\r\n"):
            if len(connection.pieces) == 1 and not data.startswith(b"HTTP/1.1 200"):
                raise WrongAnswer(repr(data[:400]))
            return
        whole = b"".join(connection.pieces)
        if not stream_is_whole(whole):
            raise WrongAnswer(f"{whole.count(DELTA_MARK)} deltas in {whole[:300]!r} ... {whole[-200:]!r}")
        connection.pieces.clear()
        self._done(connection)

    def _result(self) -> dict[str, float]:
        latencies = sorted(self.latencies)
        first = sorted(self.first_bytes)
        result = {
            "sent": self.sent,
            "answers": len(latencies),
            "per_s": len(latencies) / self.job.duration_s,
            **distribution(latencies),
        }
        if self.job.streamed:
            result["chunks_per_s"] = result["per_s"] * DELTAS
            result["first_p50_us"] = percentile(first, 0.5) / 1e3
            result["first_p99_us"] = percentile(first, 0.99) / 1e3
        return result


def _receive(connection: Connection) -> bytes:
    data = connection.sock.recv(32768)
    if not data:
        raise WrongAnswer(f"the server closed the connection after {b''.join(connection.pieces)[:300]!r}")
    return data


def percentile(ordered: list[int], share: float) -> float:
    """The value below which ``share`` of the ordered values lie; not-a-number when there are none."""
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))]) if ordered else float("nan")


def distribution(ordered: list[int]) -> dict[str, float]:
    """The percentiles p1 to p99.9 of ordered nanoseconds, in microseconds: p50_us, p99_9_us and so on."""
    return {f"{name}_us": percentile(ordered, share) / 1e3 for name, share in SHARES.items()}


def answer_size(data: bytes) -> int | None:
    """How long the answer at the start of ``data`` is, head and body; None while that cannot be told yet."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    at = head.find(b"content-length:")
    if at >= 0:
        return end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
    if b"transfer-encoding: chunked" in head and data.endswith(b"0\r\n\r\n"):
        return len(data)
    return None


def stream_is_whole(raw: bytes) -> bool:
    """Whether a chunked event stream has status 200, every delta once, and the end mark."""
    if not raw.startswith(b"HTTP/1.1 200"):
        return False
    if raw.count(DELTA_MARK) != DELTAS or b"[DONE]" not in raw:
        # A proxy may cut an HTTP chunk inside an event; only then is it worth taking the framing off.
        body = dechunk(raw[raw.find(b"\r\n\r\n") + 4 :])
        return body.count(DELTA_MARK) == DELTAS and b"[DONE]" in body
    return True


def dechunk(body: bytes) -> bytes:
    """The content of a chunked body."""
    pieces: list[bytes] = []
    at = 0
    while True:
        line_end = body.index(b"\r\n", at)
        size = int(body[at:line_end].split(b";", 1)[0], 16)
        if size == 0:
            return b"".join(pieces)
        pieces.append(body[line_end + 2 : line_end + 2 + size])
        at = line_end + 2 + size + 2


def main() -> int:
    """Run the job on standard input; a wrong answer is told as ``{"error": ...}``."""
    job = Job(**json.load(sys.stdin))
    gc.disable()
    try:
        print(json.dumps(Load(job).run()))
    except (WrongAnswer, OSError) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
