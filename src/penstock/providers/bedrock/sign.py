"""Signs calls with AWS Signature Version 4, byte for byte as botocore does (held by a property test).

Our own, because botocore's signer takes more time than the rest of the gateway's work on a call (bench/signing.py).
"""

import hashlib
import hmac
import time
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

SERVICE = "bedrock"  # the signing name in the service model, 2026-11
_TERMINATOR = "aws4_request"
_quoted = lru_cache(maxsize=256)(quote)


class Keys(NamedTuple):
    """What signs a call. The token goes with temporary keys."""

    access_key_id: str
    secret: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return "Keys(********)"


class Signer:
    """Signs the POSTs to one host. ``base_path`` stands before the path of every call; ``host`` is the Host header."""

    __slots__ = ("_base_path", "_day", "_derived", "_host", "_keys", "_region")

    def __init__(self, *, region: str, host: str, base_path: str = "") -> None:
        self._region = region
        self._host = host
        self._base_path = base_path
        self._keys: Keys | None = None
        self._day = ""
        self._derived = b""

    def headers(self, keys: Keys, path: str, body: bytes, *, now: float | None = None) -> tuple[tuple[str, str], ...]:
        """The content type, the date, the signature and, for temporary keys, the token. ``path`` is as it is sent,
        already percent-encoded; ``now`` is a Unix time."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        token = keys.session_token
        signed = "content-type;host;x-amz-date" + (";x-amz-security-token" if token else "")
        # All services but S3 sign the path encoded once more.
        request = (
            f"POST\n{_quoted(self._base_path + path, '/~')}\n\n"
            f"content-type:application/json\nhost:{self._host}\nx-amz-date:{stamp}\n"
            f"{f'x-amz-security-token:{token}{chr(10)}' if token else ''}"
            f"\n{signed}\n{hashlib.sha256(body).hexdigest()}"
        )
        scope = f"{stamp[:8]}/{self._region}/{SERVICE}/{_TERMINATOR}"
        digest = hashlib.sha256(request.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
        signature = hmac.digest(self._key(keys, stamp[:8]), to_sign.encode(), "sha256").hex()
        credential = f"AWS4-HMAC-SHA256 Credential={keys.access_key_id}/{scope}"
        headers = (
            ("content-type", "application/json"),
            ("x-amz-date", stamp),
            ("authorization", f"{credential}, SignedHeaders={signed}, Signature={signature}"),
        )
        return (*headers, ("x-amz-security-token", token)) if token else headers

    def _key(self, keys: Keys, day: str) -> bytes:
        """The signing key, which is the same all day."""
        if self._day != day or self._keys != keys:
            key = f"AWS4{keys.secret}".encode()
            for part in (day, self._region, SERVICE, _TERMINATOR):
                key = hmac.digest(key, part.encode(), "sha256")
            self._keys, self._day, self._derived = keys, day, key
        return self._derived
