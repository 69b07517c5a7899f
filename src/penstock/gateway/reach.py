"""Whether an engine is loaded and answers; used by readiness alone."""

import asyncio
from urllib.parse import urlsplit

_TIMEOUT_S = 1.0
_REQUEST = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


async def reachable(base: str) -> bool:
    """True when GET /health at ``unix:///path`` is a 200 within a second; a listener that still loads says 503."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(urlsplit(base).path)
            try:
                writer.write(_REQUEST)
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return b" 200 " in status
