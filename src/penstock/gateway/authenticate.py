"""The authenticate stage: credentials to Principal, from the snapshot in memory."""

import time

from penstock.domain.errors import PenstockError
from penstock.domain.ids import secret_hash
from penstock.domain.platform import Principal
from penstock.gateway.snapshot import KeySnapshot
from penstock.gateway.underway import KEY_EXPIRED, gone

_REMEDY = "Read it with: penstock config:get INFERENCE_KEY -a APP"


def bearer_key(authorization: str | None, x_api_key: str | None) -> str | None:
    """The key from ``Authorization: Bearer KEY`` or ``x-api-key: KEY``; None when there is none."""
    if authorization is not None:
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "bearer" and value.strip():
            return value.strip()
    return x_api_key.strip() or None if x_api_key is not None else None


async def authenticate(keys: KeySnapshot, key: str | None) -> Principal:
    """Who is calling. Raises PenstockError 401, or 503 when an unknown key cannot be looked up."""
    if key is None:
        raise PenstockError("missing_api_key", f"No API key: send the header Authorization: Bearer KEY. {_REMEDY}")
    key_hash = secret_hash(key)
    principal = keys.peek(key_hash) or await keys.find(key_hash)
    if principal is None:
        raise PenstockError("invalid_api_key", f"This API key is not valid. {_REMEDY}")
    now = time.time()
    if principal.expires_at is not None and principal.expires_at <= now:
        raise gone(KEY_EXPIRED)
    keys.uses.seen[principal.key_id] = now
    return principal
