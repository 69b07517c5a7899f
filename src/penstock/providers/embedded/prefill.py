"""Long prompts beside other answers are read in pieces, so that those keep about half of their pace.

The engine reads prompts in steps of up to ``engine.batch`` tokens, and every answer under way waits for each step: with
256 tokens as long as for thirty tokens of its own (``python -m bench.engine``). What the engine has read stays in its
slot, so a prompt can be given to it piece by piece, with room for the others between two pieces.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from penstock.domain.chat import Json
from penstock.domain.errors import UpstreamError
from penstock.providers.embedded.native import NativeClient, Piece, PromptProgress, Slot

# So many tokens are read at once, whoever waits: most questions, and the rest of a conversation that is cached.
_SHORT = 64
# Two steps, one of them with a piece, take so many times as long as two without; twice is what is promised.
_SHARE = 1.6
_LARGEST = 256
_MARKS = 2**31 - 2
# So often a prompt is given up, where its slot is taken or the others pause in between.
_CHANCES = 3
# When a piece is given up: its slot was taken by another request, for which it would wait.
_PIECE_S = 20.0
# For the engine to notice that a prompt was given up.
_POLL_S, _POLLS = 0.01, 1000


class Pace:
    """How many tokens a piece may have, from what the pieces before it took."""

    def __init__(self) -> None:
        self._size = 4.0

    def size(self, readers: int) -> int:
        """Tokens of the next piece, where so many prompts are read at a time."""
        return max(1, int(self._size / readers))

    def saw(self, size: int, *, step_s: float, before_s: float) -> None:
        """A piece of ``size`` tokens took a step of ``step_s``, after a wait of ``before_s`` for a step without it."""
        each_s = max(step_s - before_s, step_s / 10) / max(size, 1)
        # Two steps in a row, one with the piece, take ``_SHARE`` times two steps without it.
        fits = 2 * (_SHARE - 1) * before_s / each_s
        aim = min(max(fits, self._size / 2), self._size * 2, _LARGEST)
        self._size += (aim - self._size) / 2


class PromptReader:
    """Completions of one engine, whose long prompts let the answers under way go on."""

    def __init__(self, client: NativeClient) -> None:
        self._client = client
        self._pace = Pace()
        self._readers = 0

    async def complete(self, body: dict[str, Json]) -> AsyncGenerator[Piece, None]:
        """As NativeClient.complete. A prompt that turns out to be long while others are answered is given up, read in
        pieces, and then asked for again. Raises as that does."""
        mark = secrets.randbelow(_MARKS) + 1
        marked = {**body, "n_discard": mark}
        cached: int | None = None
        chances = _CHANCES
        while True:
            given_up: PromptProgress | None = None
            async with aclosing(self._client.complete(marked)) as pieces:
                async for piece in pieces:
                    progress = piece.prompt_progress
                    if chances and progress is not None and await self._disturbs(progress, mark):
                        given_up = progress
                        break
                    if cached is not None and piece.timings is not None:
                        piece.timings.cache_n = cached  # what was there before the first piece
                    yield piece
            if given_up is None:
                return
            cached = given_up.cache if cached is None else cached
            chances = chances - 1 if await self._read(body["prompt"], given_up, mark) else 0

    async def _disturbs(self, progress: PromptProgress, mark: int) -> bool:
        """Whether much is left to be read, others are being answered and nobody waits for a slot."""
        if progress.total - progress.processed <= max(_SHORT, self._pace.size(self._readers + 1)):
            return False
        slots = await self._slots()
        known = any(slot.has(mark) for slot in slots)
        return known and any(slot.answering for slot in slots) and not all(slot.is_processing for slot in slots)

    async def _read(self, prompt: str, progress: PromptProgress, mark: int) -> bool:
        """Have the slot read the prompt up to its last piece, as long as others are being answered. False when it read
        nothing: asking once more would end here again."""
        slot, tokens = await self._left(mark), await self._client.tokens(prompt)
        if slot is None or len(tokens) != progress.total:
            return False
        began = at = min(slot.n_prompt_tokens, len(tokens))
        self._readers += 1
        try:
            while at + (size := self._pace.size(self._readers)) < len(tokens) and await self._goes_on(mark):
                asked_at = time.monotonic()
                async with asyncio.timeout(_PIECE_S):
                    timings = await self._client.read(tokens[: at + size], slot.id, mark)
                at, step_s = at + size, timings.prompt_ms / 1e3
                self._pace.saw(size, step_s=step_s, before_s=max(time.monotonic() - asked_at - step_s, 1e-4))
        except TimeoutError:
            return False  # another request has the slot
        finally:
            self._readers -= 1
        return at > began

    async def _left(self, mark: int) -> Slot | None:
        """The slot that has read some of a prompt which was given up, once the engine has noticed that."""
        for _ in range(_POLLS):
            slot = next((slot for slot in await self._slots() if slot.has(mark)), None)
            if slot is None or not slot.is_processing:
                return slot
            await asyncio.sleep(_POLL_S)
        return None

    async def _goes_on(self, mark: int) -> bool:
        """Whether others are still being answered, and nobody has taken our slot."""
        slots = await self._slots()
        ours = any(slot.has(mark) and not slot.is_processing for slot in slots)
        return ours and any(slot.answering for slot in slots)

    async def _slots(self) -> list[Slot]:
        try:
            return await self._client.slots()
        except UpstreamError:
            return []  # the completion itself will tell
