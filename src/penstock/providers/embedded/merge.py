"""Runs the choices of one answer side by side and yields their parts as they come."""

import asyncio
from collections.abc import AsyncGenerator

from penstock.providers.translation.parts import Part

_WAITING_PARTS = 64


def merged(streams: list[AsyncGenerator[Part, None]]) -> AsyncGenerator[Part, None]:
    """Parts of all streams; the first failure ends all of them. Closing it closes every stream."""
    return streams[0] if len(streams) == 1 else _merged(streams)


async def _merged(streams: list[AsyncGenerator[Part, None]]) -> AsyncGenerator[Part, None]:
    queue: asyncio.Queue[Part | Exception | None] = asyncio.Queue(_WAITING_PARTS)
    tasks = [asyncio.create_task(_pump(stream, queue)) for stream in streams]
    try:
        running = len(tasks)
        while running:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(stream: AsyncGenerator[Part, None], queue: asyncio.Queue[Part | Exception | None]) -> None:
    try:
        async for part in stream:
            await queue.put(part)
    except Exception as error:  # noqa: BLE001 - carried to the one who reads, who raises it
        await queue.put(error)
    else:
        await queue.put(None)
    finally:
        await stream.aclose()
