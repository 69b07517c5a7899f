"""Writes the answers of one worker's runs to the store as they grow, in threads, all together twice a second."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from penstock.domain.errors import PenstockError
from penstock.gateway.replay.recording import Recording
from penstock.gateway.replay.sealing import Cipher, Piece, place_of
from penstock.store.keeping.answers import AnswerStore, Attempt, Beat, End

_log = logging.getLogger("penstock.gateway")
BEAT_S = 0.5
_THREADS = 4
# All recordings of a worker together; beyond it the largest is not kept.
_MAX_BYTES = 256 * 1024 * 1024

T = TypeVar("T")


class AskStore(Protocol):
    """Puts a question to the store in a thread."""

    def __call__(self, question: Callable[[], T], /) -> Awaitable[T]: ...


class Run:
    """One attempt that this worker makes. ``owned`` as long as the store takes what it writes for it."""

    def __init__(
        self, attempt: Attempt, recording: Recording, cipher: Cipher, *, charge_id: bytes, request_id: str
    ) -> None:
        self.attempt = attempt
        self.recording = recording
        self.charge_id = charge_id
        self.request_id = request_id
        self.owned = True
        self.closing = False  # it has ended, and its end is being written
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.followed_at = asyncio.get_running_loop().time()  # the last sign of a follower elsewhere
        self._cipher = cipher
        self._chunks = 0
        self._stored = 0  # frames in the chunks so far
        self._pending: tuple[int, Piece] | None = None

    def leave_alone(self) -> None:
        """It is followed, or over: it is not to be given up."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def next(self) -> tuple[int, Piece | None]:
        """Number and content of the next chunk; the same until ``taken``, for the store may have it already."""
        recording = self.recording
        if self._pending is None and recording.given > self._stored and not recording.too_large:
            self._pending = (recording.given, recording.piece(self._stored, recording.given))
        return self._chunks, self._pending[1] if self._pending else None

    def taken(self) -> None:
        """The store has the chunk that ``next`` gave."""
        if self._pending is not None:
            self._stored, self._pending = self._pending[0], None
            self._chunks += 1

    def last(self) -> list[tuple[int, Piece]]:
        """What may be in no chunk yet, of an answer that is not to be kept."""
        number, piece = self.next()
        chunks = [(number, piece)] if piece is not None else []
        stored = self._pending[0] if self._pending is not None else self._stored
        if not self.recording.too_large and stored < self.recording.total:
            chunks.append((number + len(chunks), self.recording.piece(stored, self.recording.total)))
        return chunks

    def beat(self, number: int, piece: Piece | None) -> Beat:
        """The sign of life, sealed; may be called in a thread."""
        if piece is None:
            return Beat(self.attempt)
        place = place_of(self.attempt.number, number)
        return Beat(self.attempt, number, self._cipher.seal_piece(piece, place=place))

    def whole(self, piece: Piece) -> bytes:
        """The whole answer, sealed; may be called in a thread."""
        return self._cipher.seal_piece(piece, place=place_of(self.attempt.number))


class Keeper:
    """The runs of one worker by their answers' ids. ``on_lost`` is told of a run that is no longer this worker's."""

    def __init__(self, store: AnswerStore, on_lost: Callable[[Run], None], *, beat_s: float = BEAT_S) -> None:
        self.runs: dict[bytes, Run] = {}
        self._store = store
        self._on_lost = on_lost
        self._beat_s = beat_s
        self._beating: asyncio.Task[None] | None = None
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="replay")

    async def ask(self, question: Callable[[], T]) -> T:
        """What the store answers. Raises PenstockError store_unavailable."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, question)

    def add(self, run: Run) -> None:
        """From here on the run's signs of life are written."""
        self.runs[run.attempt.id] = run
        if self._beating is None or self._beating.done():
            self._beating = asyncio.create_task(self._beat())

    def remove(self, run: Run) -> None:
        """The run is over, or no longer this worker's."""
        if self.runs.get(run.attempt.id) is run:
            del self.runs[run.attempt.id]
        if not self.runs and self._beating is not None:
            self._beating.cancel()
            self._beating = None

    def has(self, run: Run) -> bool:
        """Whether the run is written, so that a repeat can follow it."""
        return self.runs.get(run.attempt.id) is run

    async def finish(self, run: Run) -> None:
        """Keep the whole answer. Raises PenstockError store_unavailable."""
        piece = run.recording.piece(0, run.recording.total)
        run.owned = await self.ask(lambda: self._store.finish(run.attempt, run.whole(piece)))

    async def end(self, run: Run, state: End) -> None:
        """The attempt ended without an answer to keep. Raises PenstockError store_unavailable."""
        last = run.last() if run.recording.head is not None else []
        await self.ask(lambda: self._store.end(run.attempt, state, [run.beat(*chunk) for chunk in last]))

    async def aclose(self) -> None:
        """Stop writing."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait({self._beating})
        self._pool.shutdown()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._beat_s)
            self._bound()
            runs = tuple(self.runs.values())
            try:
                alone = await self.ask(functools.partial(self._write, [(run, *run.next()) for run in runs]))
            except PenstockError:
                continue  # the store says it once; the same is written with the next beat
            except Exception as error:  # noqa: BLE001 - whatever broke, the next beat may go well
                _log.error("answers cannot be kept: %s", type(error).__name__)
                continue
            self._told(runs, alone)

    def _write(self, steps: list[tuple[Run, int, Piece | None]]) -> dict[bytes, float]:
        return self._store.beat([run.beat(number, piece) for run, number, piece in steps])

    def _told(self, runs: tuple[Run, ...], alone: dict[bytes, float]) -> None:
        now = asyncio.get_running_loop().time()
        for run in runs:
            seconds = alone.get(run.attempt.id)
            if seconds is None:
                if self.has(run) and not run.closing:
                    run.owned = False
                    self._on_lost(run)
                continue
            run.taken()
            run.followed_at = max(run.followed_at, now - seconds)

    def _bound(self) -> None:
        sizes = {run: run.recording.size for run in self.runs.values() if not run.closing}
        total = sum(sizes.values())
        for run in sorted(sizes, key=sizes.__getitem__, reverse=True):
            if run.recording.too_large:
                self._on_lost(run)
            elif total > _MAX_BYTES:
                total -= sizes[run]
                run.recording.give_up_keeping()
                self._on_lost(run)
