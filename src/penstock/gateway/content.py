"""Keeps what is asked and answered, for apps whose policy says so: collected beside the request, closed and stored
later by a thread of its own. Nothing of it is on the way of other apps' requests.

What waits for the store is bounded. While the database does not answer, the oldest are dropped and counted: a request
is never delayed or refused for this, and the bill does not depend on it.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from penstock.domain.content import LONGEST, Content
from penstock.domain.platform import Principal
from penstock.gateway.wire import Parsed

_log = logging.getLogger("penstock.gateway")

EVERY_S = 1.0
# What waits, in memory: so many requests, of so many bytes together.
MOST_WAITING = 10_000
MOST_BYTES = 64 * 1024 * 1024
# The chunks of a stream are many times as long as its text.
_LONGEST_STREAM = 16 * LONGEST
_BATCH = 50
# In a streamed answer these are said whole, as often as they are said; other texts are said bit by bit.
_WHOLE = frozenset({"id", "type", "role", "name", "finish_reason", "format"})

Write = Callable[[Sequence[Content]], int]


class Kept:
    """One request that is kept: its body, and what its client gets."""

    __slots__ = ("_frames", "_room", "_streamed", "app_id", "at", "cut", "key_prefix", "model", "outcome", "request",
                 "request_id")  # fmt: skip

    def __init__(self, principal: Principal, model: str, parsed: Parsed, *, request_id: str) -> None:
        request = parsed.raw
        self.request_id = request_id
        self.app_id = principal.app_id
        self.key_prefix = principal.key_prefix
        self.at = time.time()
        self.model = model
        self.outcome = ""
        # A byte more than is kept tells that there was more.
        self.request = request if len(request) <= LONGEST else request[: LONGEST + 1]
        self._streamed = bool(parsed.chat.stream)
        self.cut = False
        self._frames: list[bytes] = []
        self._room = _LONGEST_STREAM

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return len(self.request) + _LONGEST_STREAM - self._room

    def add(self, frame: bytes) -> None:
        """Bytes that go to the client."""
        if len(frame) > self._room:
            self.cut = True
            frame = frame[: self._room]
        self._room -= len(frame)
        self._frames.append(frame)

    def content(self) -> Content:
        """What is stored of it."""
        raw = b"".join(self._frames)
        answer = _joined(raw) if self._streamed else raw
        return Content(
            request_id=self.request_id,
            app_id=self.app_id,
            at_us=int(self.at * 1_000_000),
            key_prefix=self.key_prefix,
            model=self.model,
            outcome=self.outcome,
            request=_text(self.request),
            answer=_text(answer),
            request_cut=len(self.request) > LONGEST,
            answer_cut=self.cut or len(answer) > LONGEST,
        )


class Contents:
    """What one worker keeps until it is stored by ``write``: the last ``most`` requests, of ``most_bytes`` together."""

    def __init__(
        self, write: Write, *, every_s: float = EVERY_S, most: int = MOST_WAITING, most_bytes: int = MOST_BYTES
    ) -> None:
        self._write = write
        self._every_s = every_s
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: deque[Kept] = deque()
        self._bytes = 0
        self._dropped = 0
        self._away = False
        # Its own thread: to close boxes must not delay the look-up of keys.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="contents")

    def __len__(self) -> int:
        return len(self._waiting)

    def end(self, kept: Kept, outcome: str) -> None:
        """The request is over: from here on it waits to be stored."""
        kept.outcome = outcome
        self._waiting.append(kept)
        self._bytes += kept.size
        self._bound()

    async def follow(self) -> None:
        """Store every ``every_s`` until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.flush()

    async def flush(self) -> None:
        """Store what waits; what the store does not take waits on."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            self._bytes -= sum(kept.size for kept in taken)
            try:
                await loop.run_in_executor(self._thread, self._store, taken)
            except BaseException as error:
                self._waiting.extendleft(reversed(taken))
                self._bytes += sum(kept.size for kept in taken)
                self._bound()
                if not isinstance(error, Exception):
                    raise
                if not self._away:
                    _log.warning("prompts and answers cannot be kept, tried again later: %s", type(error).__name__)
                self._away = True
                return
        if self._dropped:
            _log.warning("the prompts and answers of %d requests are not kept: too many waited", self._dropped)
        self._away, self._dropped = False, 0

    async def aclose(self) -> None:
        """Store what waits, or give it up with a word."""
        await self.flush()
        if self._waiting:
            _log.warning(
                "the prompts and answers of %d requests are not kept: the database does not answer",
                len(self._waiting) + self._dropped,
            )
        self._thread.shutdown(wait=False)

    def _store(self, taken: Sequence[Kept]) -> None:
        self._write([kept.content() for kept in taken])

    def _bound(self) -> None:
        while len(self._waiting) > self._most or self._bytes > self._most_bytes:
            self._bytes -= self._waiting.popleft().size
            self._dropped += 1


def _text(data: bytes) -> str:
    """At most ``LONGEST`` bytes as text; a character that the cut went through is left out."""
    return data[:LONGEST].decode("utf-8", "ignore")


def _joined(stream: bytes) -> bytes:
    """The message that the chunks of a stream add up to, as JSON: ``{"choices": [{"index": 0, "delta": {...}}]}``.
    What is no chunk, such as a last one that was cut, is left out."""
    whole: dict[str, Any] = {}
    for line in stream.split(b"\n"):
        if line.startswith(b"data:") and not line.startswith(b"data: [DONE]"):
            try:
                chunk = msgspec.json.decode(line[5:])
            except (msgspec.DecodeError, RecursionError):
                continue
            if isinstance(chunk, dict):
                _merge(whole, {name: chunk[name] for name in ("choices", "error") if name in chunk})
    return msgspec.json.encode(whole)


def _merge(whole: dict[str, Any], more: dict[str, Any]) -> None:
    """Adds a chunk's fields to those before it: texts and lists grow, objects in lists are told apart by ``index``."""
    for name, value in more.items():
        old = whole.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value)
        elif isinstance(value, list):
            if not isinstance(old, list):
                old = whole[name] = []
            _extend(old, value)
        elif isinstance(old, str) and isinstance(value, str) and name not in _WHOLE:
            whole[name] = old + value
        elif value is not None or name not in whole:
            whole[name] = value


def _extend(old: list[Any], more: list[Any]) -> None:
    for item in more:
        at = item.get("index") if isinstance(item, dict) else None
        known = [one for one in old if at is not None and isinstance(one, dict) and one.get("index") == at]
        if known:
            _merge(known[0], item)
        else:
            old.append(item)
