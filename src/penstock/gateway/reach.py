"""Whether something listens at an address; used by readiness alone."""

import asyncio
from urllib.parse import urlsplit

_TIMEOUT_S = 1.0


async def reachable(base: str) -> bool:
    """True when a connection to ``unix:///path`` or ``http://host:port`` is accepted within a second."""
    url = urlsplit(base)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            if url.scheme == "unix":
                _, writer = await asyncio.open_unix_connection(url.path)
            else:
                _, writer = await asyncio.open_connection(
                    url.hostname, url.port or (443 if url.scheme == "https" else 80)
                )
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
