"""Follows a run of another worker through the store, for this worker's clients."""

import asyncio
import functools

from penstock.domain.errors import PenstockError
from penstock.gateway.replay.asking import Asking
from penstock.gateway.replay.keeper import AskStore
from penstock.gateway.replay.recording import Recording
from penstock.gateway.replay.sealing import place_of
from penstock.store.keeping.answers import SILENT_S, AnswerStore, Look

_POLL_S = 0.15
# How long the database may be away before a follower is told that the rest is lost.
_BEARABLE_S = 10.0


class Mirror:
    """Fills a recording with what the owner of the run stores, until the run ends or nobody follows."""

    def __init__(
        self, asking: Asking, recording: Recording, store: AnswerStore, *, ask: AskStore, follow_s: float
    ) -> None:
        self.recording = recording
        self._asking = asking
        self._store = store
        self._ask = ask
        self._follow_s = follow_s
        self._chunks = 0

    async def run(self) -> None:
        """Until the end of the answer, or cancelled."""
        clock = asyncio.get_running_loop().time
        follow_at, give_up_at = clock(), clock() + _BEARABLE_S
        try:
            while (now := clock()) < give_up_at:
                try:
                    if now >= follow_at:
                        follow_at = now + self._follow_s
                        await self._ask(functools.partial(self._store.follow, self._asking.id, self.recording.attempt))
                    look = await self._ask(functools.partial(self._store.look, self._asking.id, after=self._chunks))
                except PenstockError:
                    follow_at = 0.0
                else:
                    give_up_at = now + _BEARABLE_S
                    if self._over(look):
                        return
                await asyncio.sleep(_POLL_S)
        finally:
            if not self.recording.ended:
                self.recording.end(lost=True)

    def _over(self, look: Look | None) -> bool:
        """Take what is new; whether nothing more comes."""
        recording, cipher = self.recording, self._asking.cipher
        if look is None or look.attempt != recording.attempt:
            return True
        if look.body is not None:
            piece = cipher.open_piece(look.body, place=place_of(look.attempt))
            recording.load(piece.after(recording.total))
            recording.end()
            return True
        for chunk in look.chunks:
            recording.load(cipher.open_piece(chunk, place=place_of(look.attempt, self._chunks)))
            self._chunks += 1
        if look.state == "failed" and recording.total:
            recording.end()
        return look.state != "running" or look.silent_s > SILENT_S
