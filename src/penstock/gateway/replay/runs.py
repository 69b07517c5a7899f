"""Requests with an Idempotency-Key: each is a follower of a run, which is a task of its own, here or elsewhere.

The order at a run's end: its settlement is in the journal, then the answer is in the store, then its last event goes
out. So who has seen the end of an answer gets the same one again, and a crash before that leaves a retry under the
same charge (docs/idempotency.md).
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from penstock.domain.errors import PenstockError
from penstock.domain.platform import Principal
from penstock.gateway.replay.asking import Asking, cannot_resume, charge_id, conflict
from penstock.gateway.replay.keeper import BEAT_S, Keeper, Run
from penstock.gateway.replay.mirror import Mirror
from penstock.gateway.replay.recording import Recording, RunLostError
from penstock.gateway.replay.sealing import place_of
from penstock.gateway.reply import Reply
from penstock.gateway.underway import DISCONNECTED, Underway
from penstock.settings.tree import IdempotencySettings
from penstock.store.keeping.answers import SILENT_S, AnswerStore, Ask, Attempt, End, Found

_log = logging.getLogger("penstock.gateway")
_TRIES = 5
# How long the end of an answer waits for the store, and for how long keeping it is tried after that.
_PATIENCE_S = 2.0
_TRYING_S = 60.0

# Serves the request into a reply, under the id by which it is charged once.
Make = Callable[[Reply, bytes], Awaitable[None]]


class Runs:
    """What one worker runs and follows. ``owner`` names the worker in the store."""

    def __init__(
        self,
        store: AnswerStore,
        *,
        owner: str,
        underway: Underway,
        settings: IdempotencySettings,
        beat_s: float = BEAT_S,
    ) -> None:
        self._store = store
        self._owner = owner
        self._underway = underway
        self._settings = settings
        self._beat_s = beat_s
        self._keeper = Keeper(store, self._lost, beat_s=beat_s)
        self.ask = self._keeper.ask
        self._mirrors: dict[bytes, Mirror] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, asking: Asking, principal: Principal, reply: Reply, make: Make) -> None:
        """Give the answer that there is, follow the one that is being made, or make it. Raises PenstockError
        idempotency_conflict, resume_not_possible, store_unavailable."""
        for _ in range(_TRIES):
            recording, mine = await self._recording(asking, principal, reply, make)
            if asking.after is not None and asking.after[0] != recording.attempt:
                raise cannot_resume("The answer has been made anew since then.")
            try:
                after = asking.after[1] if asking.after is not None else 0
                await recording.follow(reply.relay, after=after, repeated=not mine)
            except RunLostError:
                if asking.after is not None:
                    raise _gone() from None
            else:
                return
        raise PenstockError("store_unavailable", "No worker could complete this answer; try again.", retry_after_s=2)

    async def aclose(self) -> None:
        """End all runs; what they have settled stays, and a repeat elsewhere makes the answer anew."""
        runs = {run.task for run in self._keeper.runs.values() if run.task is not None and not run.closing}
        for tasks in (runs, self._tasks):
            while left := {task for task in tasks if not task.done()}:
                for task in left:
                    task.cancel()
                await asyncio.wait(left)
        await self._keeper.aclose()

    async def drain(self, within_s: float) -> None:
        """Wait until no run is left, at most so long."""
        if runs := {run.task for run in self._keeper.runs.values() if run.task is not None}:
            await asyncio.wait(runs, timeout=within_s)

    async def _recording(
        self, asking: Asking, principal: Principal, reply: Reply, make: Make
    ) -> tuple[Recording, bool]:
        """What to follow, and whether it is made for this very request."""
        if (known := self._known(asking)) is not None:
            return known, False
        if (given_up := self._keeper.runs.get(asking.id)) is not None and given_up.task is not None:
            await asyncio.wait({given_up.task})
        if asking.after is not None:
            return await self._to_resume(asking), False
        ask = Ask(
            id=asking.id, fingerprint=asking.fingerprint, app_id=principal.app_id, owner=self._owner,
            request_id=reply.request_id, window_s=self._settings.window_s,
        )  # fmt: skip
        found = await self._claim(ask)
        if found.state == "mine":
            return self._start(asking, found, principal, reply=reply, make=make), True
        if found.state == "conflict":
            raise conflict()
        if found.body is not None:
            return self._whole(asking, found.attempt, found.body), False
        return self._known(asking) or self._mirror(asking, found.attempt), False

    async def _to_resume(self, asking: Asking) -> Recording:
        """What a client that reconnects goes on with: never a new run, whose answer would be another text."""
        look = await self._keeper.ask(functools.partial(self._store.look, asking.id))
        if look is not None and look.fingerprint != asking.fingerprint:
            raise conflict()
        if look is not None and look.body is not None:
            return self._whole(asking, look.attempt, look.body)
        if look is None or look.state != "running" or look.silent_s > SILENT_S:
            raise _gone()
        return self._known(asking) or self._mirror(asking, look.attempt)

    def _known(self, asking: Asking) -> Recording | None:
        known = self._keeper.runs.get(asking.id) or self._mirrors.get(asking.id)
        if known is None or known.recording.lost:
            return None
        if known.recording.fingerprint != asking.fingerprint:
            raise conflict()
        return known.recording

    def _whole(self, asking: Asking, attempt: int, body: bytes) -> Recording:
        recording = self._new(asking, attempt)
        recording.load(asking.cipher.open_piece(body, place=place_of(attempt)))
        recording.end()
        return recording

    def _new(self, asking: Asking, attempt: int) -> Recording:
        bound = self._settings.max_answer_bytes
        return Recording(asking.fingerprint, attempt, streamed=asking.streamed, bound=bound)

    def _mirror(self, asking: Asking, attempt: int) -> Recording:
        follow_s = self._settings.detached_s / 3
        mirror = Mirror(asking, self._new(asking, attempt), self._store, ask=self._keeper.ask, follow_s=follow_s)
        task = self._spawn(mirror.run())
        self._mirrors[asking.id] = mirror

        def over(_: object = None) -> None:
            if self._mirrors.get(asking.id) is mirror:
                del self._mirrors[asking.id]
            if not mirror.recording.ended:
                mirror.recording.end(lost=True)
            task.cancel()

        mirror.recording.on_left = over
        task.add_done_callback(over)
        return mirror.recording

    async def _claim(self, ask: Ask) -> Found:
        claiming = asyncio.ensure_future(self._keeper.ask(functools.partial(self._store.claim, ask)))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(functools.partial(self._unclaim, ask))
            raise

    def _unclaim(self, ask: Ask, claiming: "asyncio.Future[Found]") -> None:
        """Who claimed it has gone before it began."""
        if not claiming.cancelled() and claiming.exception() is None and claiming.result().state == "mine":
            attempt = Attempt(ask.id, claiming.result().attempt, ask.owner)
            self._spawn(self._release(attempt, "failed"))

    async def _release(self, attempt: Attempt, state: End) -> None:
        act = functools.partial(self._store.end, attempt, state, ())
        if attempt.number == 1 and state == "failed":
            act = functools.partial(self._store.forget, attempt)
        try:
            await self._keeper.ask(act)
        except PenstockError as error:
            _log.warning("an answer is not released, it is after %.0f s of silence: %s", SILENT_S, error.code)

    def _start(self, asking: Asking, found: Found, principal: Principal, *, reply: Reply, make: Make) -> Recording:
        recording = self._new(asking, found.attempt)
        attempt = Attempt(asking.id, found.attempt, self._owner)
        charge = charge_id(asking.id, found.created_s)
        run = Run(attempt, recording, asking.cipher, charge_id=charge, request_id=reply.request_id)
        self._keeper.add(run)
        self._watch(run)
        run.task = self._spawn(self._run(run, reply.twin(recording.send), make))
        self._underway.enter(principal, run.task)
        return recording

    async def _run(self, run: Run, reply: Reply, make: Make) -> None:
        """Make the answer, then keep it; whatever happens, the followers hear of it."""
        why: BaseException | None = None
        task = asyncio.current_task()
        assert task is not None
        try:
            await make(reply, run.charge_id)
        except BaseException as error:  # noqa: BLE001 - it is told through the recording, also why it was cancelled
            why = error
            await reply.failed(error)
        finally:
            self._underway.leave(task)
        try:
            await self._close(run, why)
        finally:
            run.leave_alone()
            run.recording.end(lost=run.recording.head is None or _hung_up(why))

    async def _close(self, run: Run, why: BaseException | None) -> None:
        """The end of a run in the store, waited for as long as is bearable; after that it is tried on."""
        if not run.owned:
            return
        run.closing = True
        closing = self._spawn(self._write_end(run, why))
        closing.add_done_callback(lambda _: self._keeper.remove(run))
        await asyncio.wait({closing}, timeout=_PATIENCE_S)

    async def _write_end(self, run: Run, why: BaseException | None) -> None:
        until = asyncio.get_running_loop().time() + _TRYING_S
        while run.owned:
            try:
                return await self._write_end_once(run, why)
            except PenstockError as error:
                if asyncio.get_running_loop().time() > until:
                    _log.warning("the answer of request %s is not kept: %s", run.request_id, error.code)
                    return
            await asyncio.sleep(self._beat_s)

    async def _write_end_once(self, run: Run, why: BaseException | None) -> None:
        recording = run.recording
        given = recording.head is not None and recording.head.status == 200
        if why is None and given and not recording.too_large:
            await self._keeper.finish(run)
        elif recording.too_large or _hung_up(why):
            await self._keeper.end(run, "over")
        elif given or run.attempt.number > 1:
            await self._keeper.end(run, "failed")
        else:
            await self._keeper.ask(functools.partial(self._store.forget, run.attempt))

    def _watch(self, run: Run) -> None:
        """Without a follower, here or elsewhere, the upstream is kept running for a while only."""
        loop, detached_s = asyncio.get_running_loop(), self._settings.detached_s

        def left() -> None:
            run.leave_alone()
            run.timer = loop.call_later(detached_s if self._keeper.has(run) else 0, give_up)

        def give_up() -> None:
            left_s = run.followed_at + detached_s - loop.time() if self._keeper.has(run) else 0
            if left_s > 0:
                run.timer = loop.call_later(left_s, give_up)
            elif run.task is not None:
                run.recording.end(lost=True)  # before its last words, so that nobody begins to follow it
                run.task.cancel(DISCONNECTED)

        run.recording.on_left, run.recording.on_joined = left, run.leave_alone

    def _lost(self, run: Run) -> None:
        """Another worker has taken over, or the answer is not kept: only those who follow it now get it."""
        self._keeper.remove(run)
        if run.recording.too_large and run.owned:
            self._spawn(self._release(run.attempt, "over"))
        run.owned = False
        if not (run.recording.followed or run.recording.ended):
            run.recording.on_left()

    def _spawn(self, act: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(act)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _hung_up(why: BaseException | None) -> bool:
    return isinstance(why, asyncio.CancelledError) and DISCONNECTED in why.args


def _gone() -> PenstockError:
    return cannot_resume("What made this answer is gone, and so is the rest of it.")
