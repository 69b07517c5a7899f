"""Whether an answer may come out of the cache: what the app's policy and the request's own header say, and whether
the request is deterministic at all."""

import re

import msgspec

from penstock.domain.chat import ChatRequest
from penstock.domain.errors import PenstockError
from penstock.domain.limits import Policy

# For ``on`` where the app has no time of its own.
DEFAULT_TTL_S = 3600
_FOREVER_S = 10**12
_TTL = re.compile(rb"ttl=([1-9]\d*)")


class Wish(msgspec.Struct, frozen=True):
    """Answers of at most this age in seconds will do; ``possible`` is whether this request's can be cached."""

    ttl_s: float
    possible: bool = True


def read_wish(header: bytes | None, policy: Policy, chat: ChatRequest, *, max_ttl_s: float) -> Wish | None:
    """What the request wishes; None when the cache has no part in it. The header comes first; an age above the bound is
    the bound. Raises PenstockError invalid_request for a header that says nothing known."""
    ttl_s = policy.cache_ttl_s
    said = header.strip().lower() if header is not None else None
    if said == b"on":
        ttl_s = ttl_s or DEFAULT_TTL_S
    elif said == b"off":
        ttl_s = None
    elif said is not None:
        found = _TTL.fullmatch(said)
        if found is None:
            takes = "on, off, or ttl= and whole seconds from 1, such as ttl=600"
            message = f"The header Penstock-Cache takes {takes}; at most {max_ttl_s:g} count (cache.max_ttl_s)."
            raise PenstockError("invalid_request", message)
        # No more digits are read than a bound can have.
        ttl_s = int(found[1]) if len(found[1]) <= 12 else _FOREVER_S
    return Wish(min(ttl_s, max_ttl_s), deterministic(chat)) if ttl_s else None


def deterministic(chat: ChatRequest) -> bool:
    """Whether two answers to the request are meant to be the same: temperature 0 or a seed, and one choice."""
    return (chat.temperature == 0 or chat.seed is not None) and chat.n in (None, 1)
