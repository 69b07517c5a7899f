"""Many paced streams at once, and which of them stalled: the load generator of bench.stalls.

``python -m bench.pacing`` reads a job as JSON on standard input and prints a result as JSON. Each connection asks for
one stream after another. A delta carries the time at which the upstream sent it, by the same clock, so a gap is
compared with the upstream's own: a stream stalls when a gap is more than 60 ms longer here than it was there.
"""

import gc
import json
import resource
import select
import socket
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from bench.answers import DELTAS, PACE_S, STAMP, STAMP_DIGITS
from bench.load import percentile

LIMIT_NS = 60_000_000
PACE_NS = int(PACE_S * 1e9)
# Connections begin one after another over this long, a little more than a stream takes.
RAMP_S = (DELTAS + 6) * PACE_S
_END = b"0\r\n\r\n"
_LONGEST_STAMP = len(STAMP) + STAMP_DIGITS


class Job(NamedTuple):
    """One level: ``streams`` connections, looked at for ``duration_s`` once all have begun."""

    host: str
    port: int
    request: str
    streams: int
    duration_s: float


class Gaps:
    """The gaps of one stream, in nanoseconds: here, and at the upstream."""

    __slots__ = ("last_seen", "last_sent", "stalled", "upstream_late", "worst")

    def __init__(self) -> None:
        self.last_seen = 0
        self.last_sent = 0
        self.worst = 0
        self.stalled = False
        self.upstream_late = False

    def saw(self, seen: int, sent: int) -> None:
        """A delta came at ``seen`` that the upstream had sent at ``sent``."""
        if self.last_seen:
            own = sent - self.last_sent
            more = seen - self.last_seen - own
            self.worst = max(self.worst, more)
            self.stalled = self.stalled or more > LIMIT_NS
            self.upstream_late = self.upstream_late or own > PACE_NS + LIMIT_NS
        self.last_seen, self.last_sent = seen, sent

    def left_open(self, now: int) -> None:
        """It is looked at no longer: a silence that lasts counts as a gap."""
        if self.last_seen and now - self.last_seen > PACE_NS + LIMIT_NS:
            self.stalled = True


class Stream:
    """One connection with the stream under way on it."""

    __slots__ = ("began", "gaps", "rest", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""
        self.began = 0
        self.gaps = Gaps()


class Refused(Exception):
    """An answer that is not a stream; the message shows its beginning."""


def stamps(data: bytes) -> Iterator[int]:
    """The times of the deltas in a piece of a stream; one that a proxy's framing cuts in two is passed over."""
    at = data.find(STAMP)
    while at >= 0:
        digits = data[at + len(STAMP) : at + _LONGEST_STAMP]
        if len(digits) == STAMP_DIGITS and digits.isdigit():
            yield int(digits)
        at = data.find(STAMP, at + len(STAMP))


class Pacing:
    """Runs one job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.request = job.request.encode()
        self.poll = select.epoll()
        self.streams: dict[int, Stream] = {}
        self.ended: list[Gaps] = []
        self.start_at = 0
        self.end_at = 0

    def run(self) -> dict[str, float]:
        """Begin all, look at what begins from then on, stop at the end of the time."""
        began = time.monotonic_ns()
        self.start_at = began + int(RAMP_S * 1e9)
        self.end_at = self.start_at + int(self.job.duration_s * 1e9)
        step = RAMP_S * 1e9 / self.job.streams
        while (now := time.monotonic_ns()) < self.end_at:
            due = min(self.job.streams, 1 + int((now - began) / step))
            for _ in range(len(self.streams), due):
                self._begin()
            for fd, _ in self.poll.poll(0.001 if due < self.job.streams else 0.05):
                self._read(self.streams[fd])
        return self._result()

    def _begin(self) -> None:
        sock = socket.create_connection((self.job.host, self.job.port), timeout=10)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = self.streams[sock.fileno()] = Stream(sock)
        self.poll.register(sock.fileno(), select.EPOLLIN)
        self._ask(stream)

    def _ask(self, stream: Stream) -> None:
        stream.began, stream.gaps, stream.rest = time.monotonic_ns(), Gaps(), b""
        stream.sock.send(self.request)

    def _read(self, stream: Stream) -> None:
        data = stream.sock.recv(32768)
        now = time.monotonic_ns()
        if not data or (not stream.gaps.last_seen and data.startswith(b"HTTP/1.1 ") and data[9:12] != b"200"):
            raise Refused(f"{data[:300]!r} in place of a stream, or the end of one")
        whole = stream.rest + data
        for sent in stamps(whole):
            stream.gaps.saw(now, sent)
        # What was read is not read again; a stamp that is not whole yet is.
        cut = whole.rfind(STAMP[:1], max(0, len(whole) - _LONGEST_STAMP + 1))
        stream.rest = whole[cut:] if cut >= 0 else b""
        if data.endswith(_END):
            if stream.began >= self.start_at:
                self.ended.append(stream.gaps)
            self._ask(stream)

    def _result(self) -> dict[str, float]:
        now = time.monotonic_ns()
        for stream in self.streams.values():
            stream.sock.close()
            if stream.began >= self.start_at:
                stream.gaps.left_open(now)
                # One that is well under way is not counted: nobody knows how it would have ended.
                if stream.gaps.stalled:
                    self.ended.append(stream.gaps)
        worst = sorted(one.worst for one in self.ended)
        return {
            "streams": self.job.streams,
            "counted": len(self.ended),
            "stall_free": sum(not one.stalled for one in self.ended),
            "upstream_held": sum(not one.upstream_late for one in self.ended),
            "worst_p50_ms": percentile(worst, 0.5) / 1e6,
            "worst_p99_ms": percentile(worst, 0.99) / 1e6,
        }


def main() -> int:
    """Run the job on standard input; a wrong answer is told as ``{"error": ...}``."""
    job = Job(**json.load(sys.stdin))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()
    try:
        print(json.dumps(Pacing(job).run()))
    except (Refused, OSError) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
