"""How a peer says that nothing more comes, and how long it keeps a connection that rests."""

import ssl
from typing import Any

_KEPT_S = 5.0
_MAX_KEPT_S = 3600.0


def ended(tls: Any) -> bool:
    """Whether the peer has said, by close_notify, that nothing more comes."""
    try:
        return bool(tls.read(1) == b"")
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False


def kept_for(header: str | None) -> float:
    """Seconds the peer keeps an idle connection, from ``Keep-Alive: timeout=N``; 5 where it does not say."""
    if header is None:
        return _KEPT_S
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        if name == "timeout" and value.isascii() and value.isdigit():
            return min(float(value), _MAX_KEPT_S)
    return _KEPT_S
