"""Many requests at once, fast: raw connections that are kept alive, spread over the workers of one or more servers."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

# The tail of a request id counts; what stands before it is the worker's own.
_COUNTED = 8
_MOST_CONNECTIONS = 400


@dataclass(frozen=True)
class Answer:
    """One answer as it arrived; ``at`` is Unix time."""

    status: int
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def worker(self) -> str:
        """Which gateway worker gave it."""
        return self.headers["x-request-id"][:-_COUNTED]

    @property
    def error(self) -> dict[str, Any]:
        """What an error says of itself."""
        said: dict[str, Any] = json.loads(self.body)["error"]
        return said


class Connection:
    """One connection to a gateway, used for one request after the other. ``worker`` is who serves it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.worker = ""

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect, and learn who serves it from a request that is refused before it is counted."""
        where = urlsplit(url)
        made = cls(*await asyncio.open_connection(where.hostname, where.port))
        made.worker = (await made.ask(request("", b"{}"))).worker
        return made

    async def ask(self, message: bytes) -> Answer:
        """Send a prepared request, read its answer."""
        self._writer.write(message)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        body = await self._reader.readexactly(int(headers["content-length"]))
        return Answer(int(lines[0].split()[1]), headers, body, time.time())

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def request(key: str, body: bytes) -> bytes:
    """A chat request as it goes over the wire."""
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
    return f"{head}authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def chat(key: str, model: str = "m") -> bytes:
    """A small chat request."""
    return request(key, json.dumps({"model": model, "messages": [{"role": "user", "content": "plain"}]}).encode())


async def connected(url: str, *, workers: int, each: int = 1) -> list[Connection]:
    """``each`` connections to each worker of a gateway."""
    opened: list[Connection] = []
    count: Counter[str] = Counter()
    while len(count) < workers or min(count.values()) < each:
        assert len(opened) < _MOST_CONNECTIONS, count
        opened.append(await Connection.open(url))
        count[opened[-1].worker] += 1
    kept: list[Connection] = []
    seen: Counter[str] = Counter()
    for one in opened:
        seen[one.worker] += 1
        if seen[one.worker] <= each:
            kept.append(one)
        else:
            one.close()
    return kept


def volley(urls: Iterable[str], message: bytes, count: int, *, workers: int, each: int = 4) -> list[Answer]:
    """The answers to ``count`` requests, sent as fast as they are answered by ``each`` connections to every one of the
    workers of every gateway, all of them until the end."""

    async def run() -> list[Answer]:
        connections = [one for url in urls for one in await connected(url, workers=workers, each=each)]
        numbers = iter(range(count))
        answers = await asyncio.gather(*(_repeat(one, message, numbers) for one in connections))
        return list(itertools.chain.from_iterable(answers))

    return asyncio.run(run())


def one_each(urls: Iterable[str], message: bytes, *, workers: int) -> list[Answer]:
    """The answers to one request to every worker of every gateway."""

    async def run() -> list[Answer]:
        connections = [one for url in urls for one in await connected(url, workers=workers)]
        answers = [await one.ask(message) for one in connections]
        for one in connections:
            one.close()
        return answers

    return asyncio.run(run())


async def _repeat(connection: Connection, message: bytes, numbers: Iterator[int]) -> list[Answer]:
    answers = [await connection.ask(message) for _ in numbers]
    connection.close()
    return answers
