"""One answer as it is being made, for any number of followers, each at its own pace and from its own place."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from penstock.domain.errors import PenstockError
from penstock.gateway.replay.asking import cannot_resume, event_id
from penstock.gateway.replay.sealing import Head, Piece

Relay = Callable[[dict[str, Any]], Awaitable[None]]
# They tell how it was then: a repeat must not take them for how it is now.
_OF_THE_MOMENT = b"x-ratelimit-"


class RunLostError(Exception):
    """The run that made the answer is gone, and this follower has got nothing of it: it may ask anew."""


class Recording:
    """Head and frames of one attempt. What writes it is the run itself (``send``) or what another worker stores of its
    own (``load``). ``bound`` is how many bytes are kept: beyond it, frames go as soon as all followers have them, and
    the answer is ``too_large`` to be given again."""

    def __init__(self, fingerprint: bytes, attempt: int, *, streamed: bool, bound: int) -> None:
        self.fingerprint = fingerprint
        self.attempt = attempt
        self.head: Head | None = None
        self.frames: list[bytes] = []
        self.dropped = 0  # frames that are no longer kept
        self.size = 0
        self.too_large = False
        self.ended = False
        self._streamed = streamed
        self._bound = bound
        self.given = 0  # frames that followers may have
        self.lost = False
        self.on_joined: Callable[[], None] = _nothing  # the first follower has come
        self.on_left: Callable[[], None] = _nothing  # the last follower has gone before the end
        self._places: dict[object, int] = {}
        self._changed = asyncio.Event()

    @property
    def total(self) -> int:
        """How many frames there are so far."""
        return self.dropped + len(self.frames)

    @property
    def followed(self) -> bool:
        """Whether anybody follows."""
        return bool(self._places)

    async def send(self, message: dict[str, Any]) -> None:
        """One ASGI message of the run's answer. The last one's frames are held back until ``end``."""
        if message["type"] == "http.response.start":
            self.head = Head(message["status"], message["headers"])
            return
        if body := message.get("body"):
            self._add(numbered(body, self.attempt, self.total + 1) if self._numbers else [body])
        if message.get("more_body"):
            self.given = self.total
            self._wake()
            await self._paced()

    def load(self, piece: Piece) -> None:
        """Frames that another worker has stored."""
        self.head = self.head or piece.head
        self._add(piece.frames)
        self.given = self.total
        self._wake()

    def end(self, *, lost: bool = False) -> None:
        """Nothing more comes; ``lost``: although the answer is not whole. The first end counts."""
        if self.ended:
            return
        self.ended, self.lost, self.given = True, lost, self.total
        self._wake()

    def give_up_keeping(self) -> None:
        """The answer is given to those who follow it now, and to nobody again."""
        self.too_large = True
        self._drop()

    def piece(self, first: int, end: int) -> Piece:
        """The frames from index ``first`` to before ``end``, with the head when they are the first ones."""
        return Piece(self.frames[first - self.dropped : end - self.dropped], self.head if first == 0 else None)

    async def follow(self, relay: Relay, *, after: int = 0, repeated: bool = False) -> None:
        """Relay everything behind the frame of that number, and wait for what is still to come. Raises RunLostError,
        PenstockError resume_not_possible, upstream_closed when the run is lost in the middle."""
        me = object()
        at, begun = after, False
        self._places[me] = at
        if len(self._places) == 1:
            self.on_joined()
        try:
            while True:
                while at >= self.given and not self.ended:
                    await self._changed.wait()
                self._check(at, begun=begun)
                if not begun:
                    begun = True
                    await relay(self._start(repeated=repeated))
                frames = self.frames[at - self.dropped : self.given - self.dropped]
                at = self._places[me] = at + len(frames)
                more = not (self.ended and at == self.total)
                await relay({"type": "http.response.body", "body": b"".join(frames), "more_body": more})
                self._drop()
                if not more:
                    return
        finally:
            del self._places[me]
            self._drop()
            if not (self._places or self.ended):
                self.on_left()

    @property
    def _numbers(self) -> bool:
        return self._streamed and self.head is not None and self.head.status == 200

    def _check(self, at: int, *, begun: bool) -> None:
        if self.lost and at >= self.given:
            if begun:
                raise PenstockError(
                    "upstream_closed", "The worker that made this answer is gone. Repeat the request to have it again."
                )
            raise RunLostError
        if self.head is None:
            raise RunLostError
        if at > self.total or at < self.dropped:
            raise cannot_resume("Last-Event-ID is not the id of an event of this answer.")

    def _start(self, *, repeated: bool) -> dict[str, Any]:
        assert self.head is not None
        headers = self.head.headers
        if repeated:
            headers = [pair for pair in headers if not pair[0].startswith(_OF_THE_MOMENT)]
            headers = [*headers, (b"idempotent-replayed", b"true")]
        return {"type": "http.response.start", "status": self.head.status, "headers": headers}

    def _add(self, frames: list[bytes]) -> None:
        self.frames += frames
        self.size += sum(map(len, frames))
        if self.size > self._bound:
            self.too_large = True

    async def _paced(self) -> None:
        """What is too large to be kept goes no faster than its slowest follower."""
        self._drop()
        while self.too_large and self.size > self._bound and self._places:
            await self._changed.wait()

    def _drop(self) -> None:
        if not self.too_large:
            return
        reached = min(self._places.values(), default=self.given)
        gone = reached - self.dropped
        if gone > 0:
            self.size -= sum(map(len, self.frames[:gone]))
            del self.frames[:gone]
            self.dropped = reached
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _nothing() -> None:
    pass


def numbered(frame: bytes, attempt: int, first: int) -> list[bytes]:
    """The events of a frame one by one, each with its id."""
    events = [event for event in frame.split(b"\n\n") if event.strip()]
    return [b"id: %b\n%b\n\n" % (event_id(attempt, first + at), event.lstrip(b"\n")) for at, event in enumerate(events)]
