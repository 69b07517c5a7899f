"""For tests of answers that are given again: workers on one database, an upstream that waits to be told to go on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from penstock.settings.tree import CacheSettings, IdempotencySettings
from penstock.store.keeping.answers import AnswerStore
from tests.gateway.conftest import DONE, USAGE, delta
from tests.gateway.lab import Answers, Asking, Lab, lab
from tests.sqlite import new_sqlite
from tests.upstream import Exchange, Script

KEYED = {"idempotency-key": "order-1"}


@contextlib.contextmanager
def answers(folder: Path, *, cache: CacheSettings | None = None, **idempotency: Any) -> Iterator[Answers]:
    """A database of answers in the folder; the rest are settings of [idempotency]."""
    db = new_sqlite(folder / "penstock.db")
    try:
        yield Answers(AnswerStore(db), IdempotencySettings(**idempotency), cache or CacheSettings())
    finally:
        db.close()


@contextlib.asynccontextmanager
async def worker(folder: Path, script: Script, kept: Answers, **fields: Any) -> AsyncIterator[Lab]:
    """One worker with an upstream of its own."""
    async with lab(folder, {"one": script}, answers=kept, **fields) as made:
        yield made


class Steps:
    """An upstream that streams a word whenever it is told to, and ends or fails when it is told that; each of its
    answers begins with what is said ``at_once``."""

    def __init__(self, *at_once: str) -> None:
        self._at_once = at_once
        self.calls = 0
        self.hung_up = 0
        self._steps: list[tuple[asyncio.AbstractEventLoop, asyncio.Queue[str]]] = []

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one request."""
        steps: asyncio.Queue[str] = asyncio.Queue()
        for word in self._at_once:
            steps.put_nowait(word)
        self._steps.append((asyncio.get_running_loop(), steps))
        self.calls += 1
        await exchange.begin_stream()
        gone = asyncio.ensure_future(exchange.hung_up())
        while True:
            step = asyncio.ensure_future(steps.get())
            await asyncio.wait({gone, step}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                self.hung_up += 1
                raise ConnectionError
            if step.result() == "end":
                gone.cancel()
                await asyncio.wait({gone})
                await exchange.chunk(USAGE + DONE)
                await exchange.chunk(b"")
                exchange.close()
                return
            if step.result() == "fail":
                exchange.reset()
                raise ConnectionError
            await exchange.chunk(delta(step.result()))

    def say(self, *words: str, call: int = -1) -> None:
        """Tell a call, the last by default, to go on: a word, ``end`` or ``fail``."""
        loop, steps = self._steps[call]
        for word in words:
            loop.call_soon_threadsafe(steps.put_nowait, word)


def body_of(asking: Asking) -> bytes:
    """What the client has got so far."""
    return b"".join(message.get("body", b"") for message in asking.messages[1:])


def events(body: bytes) -> list[tuple[str, str]]:
    """Id and data of every event."""
    found = []
    for event in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in event.split("\n"))
        found.append((fields.get("id", ""), fields["data"]))
    return found
