"""Prefixed identifiers and API keys; whatever is secret comes from the operating system's random source."""

import base64
import hashlib
import random
import re
import secrets
import uuid

KEY_PREFIX = "inf-"
_SECRETS = re.compile(r"\b(inf-|pst-)[A-Za-z0-9_-]{20,}")


def new_id() -> str:
    """A UUID for a Platform API object, as the Heroku CLI expects."""
    return str(uuid.uuid4())


def new_api_key() -> str:
    """A data plane key: ``inf-`` and 256 random bits in URL-safe base64 (43 characters)."""
    return KEY_PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()


def new_operator_token() -> str:
    """A control plane token: ``pst-`` and 256 random bits."""
    return "pst-" + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> bytes:
    """SHA-256 of a 256-bit random secret. No salt or stretching: there is nothing to guess (32 bytes)."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def without_secrets(text: str) -> str:
    """Text of a client's with every key and operator token in it masked, for messages that quote it."""
    return _SECRETS.sub(r"\1[masked]", text)


def new_completion_id(at_ns: int) -> str:
    """Heroku's form (heroku-wire.md 2.1): ``chatcmpl-``, 16 hex digits of Unix nanoseconds, 5 random hex digits."""
    # Unique, not secret: the operating system's random source would cost a system call per request.
    digits = ((at_ns << 20) | random.getrandbits(20)).to_bytes(11, "big").hex()
    return "chatcmpl-" + digits[1:]
