"""What one worker does about its open requests and last uses when the store changes, fails and comes back."""

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import pytest

from penstock.domain.errors import PenstockError
from penstock.domain.ids import secret_hash
from penstock.domain.platform import Principal
from penstock.gateway.authenticate import authenticate
from penstock.gateway.snapshot import KeySnapshot
from penstock.gateway.underway import KEY_EXPIRED, KEY_REVOKED, Underway, Uses


def principal(name: str, expires_at: float | None = None) -> Principal:
    """Whom the key of that name stands for."""
    digest = secret_hash(name)
    return Principal(
        key_id=name, key_hash=digest, key_prefix=name, app_id="a", app_name="app", addon_id="i", attachment_id="t",
        attachment_name="INFERENCE", model_id=None, expires_at=expires_at,
    )  # fmt: skip


class Table:
    """A key table that fails while ``away``. What comes back from ``changes_since`` is set by the test."""

    def __init__(self, *names: str) -> None:
        self.keys = {secret_hash(name): principal(name) for name in names}
        self.away = False
        self.failing = 0  # so many of the next look-ups fail
        self.reads = 0
        self.change: list[bytes] | None = []
        self.now = 1

    def find_principal(self, digest: bytes, /) -> Principal | None:
        """One key."""
        return self.find_principals([digest]).get(digest)

    def find_principals(self, digests: Sequence[bytes], /) -> dict[bytes, Principal]:
        """Several keys."""
        self._read()
        assert len(digests) <= 500
        if self.failing:
            self.failing -= 1
            raise OSError("away")
        return {digest: self.keys[digest] for digest in digests if digest in self.keys}

    def changes_since(self, revision: int, /) -> tuple[int, list[bytes] | None]:
        """What the test says has changed, unless the asker has seen it."""
        self._read()
        return self.now, [] if revision == self.now else self.change

    def revision(self) -> int:
        """The newest revision."""
        return self.now

    def note_uses(self, uses: Mapping[str, float], /) -> None:
        """Nothing is kept here."""

    def changed(self, *digests: bytes) -> None:
        """A change of these keys; of everything, when none is named."""
        self.change, self.now = [*digests] or None, self.now + 1

    def _read(self) -> None:
        self.reads += 1
        if self.away:
            raise OSError("away")


class Request:
    """An open request: a task that waits until it is cut or ended."""

    def __init__(self, snapshot: KeySnapshot, key: str) -> None:
        self.outcome = "open"
        self._end = asyncio.Event()
        self._snapshot = snapshot
        self.task = asyncio.create_task(self._serve(key))

    async def _serve(self, key: str) -> None:
        try:
            task = self._snapshot.underway.enter(await authenticate(self._snapshot, key))
        except PenstockError as error:
            self.outcome = error.code
            return
        try:
            await self._end.wait()
            self.outcome = "completed"
        except asyncio.CancelledError as cancelled:
            self.outcome = str(cancelled.args[0])
        finally:
            self._snapshot.underway.leave(task)

    async def end(self) -> str:
        """Let it complete; how it went."""
        self._end.set()
        await self.task
        return self.outcome


async def until(true: Callable[[], bool]) -> None:
    """Wait for it, at most 10 s."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is awaited has no event of its own
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def following(table: Table) -> AsyncIterator[KeySnapshot]:
    """A worker's snapshot of a table, kept fresh."""
    snapshot = KeySnapshot(table, poll_s=0.005)
    tasks = [asyncio.create_task(snapshot.follow()), asyncio.create_task(snapshot.underway.expire())]
    try:
        yield snapshot
    finally:
        for task in tasks:
            task.cancel()


async def opened(snapshot: KeySnapshot, *keys: str) -> list[Request]:
    """Open requests, one on each key."""
    requests = [Request(snapshot, key) for key in keys]
    await until(lambda: len(snapshot.underway.hashes()) == len(set(keys)))
    return requests


def test_a_changed_key_is_looked_up_again_and_cut_only_when_it_is_gone() -> None:
    async def run() -> None:
        table = Table("gone", "renamed", "other")
        async with following(table) as snapshot:
            gone, renamed, other = await opened(snapshot, "gone", "renamed", "other")
            del table.keys[secret_hash("gone")]
            table.changed(secret_hash("gone"), secret_hash("renamed"))
            await asyncio.wait_for(gone.task, 10)
            assert gone.outcome == KEY_REVOKED
            assert [await one.end() for one in (renamed, other)] == ["completed", "completed"]
            assert snapshot.underway.hashes() == set()

    asyncio.run(run())


def test_when_everything_must_be_forgotten_every_open_key_is_looked_up_in_bounded_steps() -> None:
    async def run() -> None:
        names = [f"key{number}" for number in range(1_201)]
        table = Table(*names)
        async with following(table) as snapshot:
            requests = await opened(snapshot, *names)
            for name in names[::2]:
                del table.keys[secret_hash(name)]
            reads = table.reads
            table.changed()
            await until(lambda: sum(one.task.done() for one in requests) == 601)
            assert table.reads - reads < 100
            assert [await one.end() for one in requests] == [KEY_REVOKED, "completed"] * 600 + [KEY_REVOKED]

    asyncio.run(run())


def test_while_the_database_is_away_known_keys_go_on_and_nothing_is_cut_until_it_is_back() -> None:
    async def run() -> None:
        table = Table("gone", "kept")
        async with following(table) as snapshot:
            gone, _ = await opened(snapshot, "gone", "kept")
            table.away = True
            await until(lambda: not snapshot.fresh)
            del table.keys[secret_hash("gone")]
            table.changed(secret_hash("gone"))
            seen = table.reads
            await until(lambda: table.reads > seen + 3)
            assert gone.outcome == "open"
            assert (await authenticate(snapshot, "kept")).key_id == "kept"
            table.away = False
            await asyncio.wait_for(gone.task, 10)
            assert (gone.outcome, snapshot.fresh) == (KEY_REVOKED, True)

    asyncio.run(run())


def test_a_look_up_that_fails_is_made_again() -> None:
    async def run() -> None:
        table = Table("gone")
        async with following(table) as snapshot:
            [gone] = await opened(snapshot, "gone")
            table.keys.clear()
            table.failing = 2
            table.changed(secret_hash("gone"))
            await asyncio.wait_for(gone.task, 10)
            assert (gone.outcome, table.failing) == (KEY_REVOKED, 0)

    asyncio.run(run())


def test_a_flood_of_unknown_keys_does_not_delay_a_revocation() -> None:
    class Stuck(Table):
        """A table whose look-ups of single keys wait."""

        waits = threading.Event()

        def find_principal(self, digest: bytes, /) -> Principal | None:
            if digest not in self.keys:
                self.waits.wait(30)
            return super().find_principal(digest)

    async def run() -> None:
        table = Stuck("gone")
        async with following(table) as snapshot:
            [gone] = await opened(snapshot, "gone")
            flood = [Request(snapshot, f"unknown{number}") for number in range(100)]
            await asyncio.sleep(0)
            table.keys.clear()
            table.changed(secret_hash("gone"))
            await asyncio.wait_for(gone.task, 10)
            assert gone.outcome == KEY_REVOKED
            assert not any(one.task.done() for one in flood)
            table.waits.set()
            await asyncio.gather(*(one.task for one in flood))
            assert {one.outcome for one in flood} == {"invalid_api_key"}

    asyncio.run(run())


def test_an_outage_is_logged_once_and_not_for_every_request(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        snapshot = KeySnapshot(table)
        for number, away in enumerate((True, True, False, True)):
            table.away = away
            with contextlib.suppress(PenstockError):
                await snapshot.find(secret_hash(f"unknown{number}"))

    table = Table()
    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert [record.message for record in caplog.records] == ["keys cannot be looked up: OSError"] * 2


def test_a_key_that_gets_an_expiry_is_cut_when_it_is_over_and_needs_no_database_for_it() -> None:
    async def run() -> None:
        table = Table("rotated", "other")
        async with following(table) as snapshot:
            rotated, other = await opened(snapshot, "rotated", "other")
            table.keys[secret_hash("rotated")] = principal("rotated", expires_at=time.time() + 0.3)
            table.changed(secret_hash("rotated"))
            seen = table.reads
            await until(lambda: table.reads > seen + 3)
            table.away = True
            await asyncio.wait_for(rotated.task, 10)
            assert rotated.outcome == KEY_EXPIRED
            assert await other.end() == "completed"

    asyncio.run(run())


def test_an_expired_key_is_refused_from_memory() -> None:
    async def run() -> None:
        table = Table()
        table.keys[secret_hash("dead")] = principal("dead", expires_at=time.time() - 1)
        table.keys[secret_hash("alive")] = principal("alive", expires_at=time.time() + 1000)
        snapshot = KeySnapshot(table)
        for _ in range(2):
            with pytest.raises(PenstockError) as caught:
                await authenticate(snapshot, "dead")
            assert (caught.value.code, caught.value.status) == ("expired_api_key", 401)
        assert (await authenticate(snapshot, "alive")).key_id == "alive"
        assert [*snapshot.uses.seen] == ["alive"]

    asyncio.run(run())


def test_a_request_outside_a_task_is_a_bug() -> None:
    with pytest.raises(RuntimeError):
        Underway().enter(principal("x"))


def test_uses_that_could_not_be_written_are_kept_and_the_latest_wins() -> None:
    async def run() -> None:
        written: list[dict[str, float]] = []

        def write(uses: Mapping[str, float]) -> None:
            if len(written) == 1 and uses != written[0]:
                uses_seen.append(dict(uses))
                raise OSError("away")
            written.append(dict(uses))

        uses_seen: list[dict[str, float]] = []
        uses = Uses(write)
        uses.seen = {f"{number:05}": float(number) for number in range(1_500)}
        await uses.flush()  # the first batch is written, the second is not
        assert (len(written[0]), len(uses_seen[0]), len(uses.seen)) == (1_000, 500, 500)
        uses.seen["01499"] = 9_999.0
        written.append({})
        await uses.flush()
        assert written[2]["01499"] == 9_999.0
        assert len(written[2]) == 500
        assert uses.seen == {}

    asyncio.run(run())


def test_unwritten_uses_are_bounded_and_the_oldest_go_first() -> None:
    async def run() -> None:
        def write(uses: Mapping[str, float]) -> None:
            raise OSError("away")

        uses = Uses(write)
        uses.seen = {str(number): float(number) for number in range(100_010)}
        await uses.flush()
        assert len(uses.seen) == 100_000
        assert min(uses.seen.values()) == 10.0

    asyncio.run(run())


def test_uses_are_written_now_and_then_and_once_each() -> None:
    async def run() -> None:
        written: list[dict[str, float]] = []
        uses = Uses(lambda taken: written.append(dict(taken)), every_s=0.005)
        follower = asyncio.create_task(uses.follow())
        for count, use in enumerate(({"a": 1.0}, {"a": 2.0, "b": 2.0}), 1):
            uses.seen |= use
            # Taken before they are written: that they are no longer there does not say that they have arrived.
            await until(functools.partial(lambda wanted: len(written) == wanted, count))
        follower.cancel()
        assert written == [{"a": 1.0}, {"a": 2.0, "b": 2.0}]

    asyncio.run(run())
