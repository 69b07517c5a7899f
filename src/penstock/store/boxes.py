"""Boxes that anybody with a public key can close and only its private key opens: X25519, HKDF-SHA256, AES-256-GCM.

A closed box is a version byte, the public half of a key pair made for it alone, and the ciphertext with its tag. The
cipher's key comes from both public keys and their shared secret, so it is used once and its nonce may be constant.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from penstock.store.errors import StoreError

_VERSION = b"\x01"
_KEY_BYTES = 32
_NONCE = bytes(12)
_PURPOSE = b"penstock content box 1"


def new_pair() -> tuple[str, bytes]:
    """A private key, in hex, and its public key of 32 bytes."""
    private = X25519PrivateKey.generate()
    return private.private_bytes_raw().hex(), private.public_key().public_bytes_raw()


def close_box(public: bytes, content: bytes, *, bound_to: str) -> bytes:
    """The content in a box; ``bound_to`` is associated data, so that a box cannot be moved elsewhere."""
    once = X25519PrivateKey.generate()
    mine = once.public_key().public_bytes_raw()
    cipher = _cipher(once.exchange(X25519PublicKey.from_public_bytes(public)), mine, public)
    return _VERSION + mine + cipher.encrypt(_NONCE, content, bound_to.encode())


def open_box(private: str, box: bytes, *, bound_to: str) -> bytes:
    """The content again. Raises StoreError when the key is another one or the box was changed or moved."""
    key = X25519PrivateKey.from_private_bytes(bytes.fromhex(private))
    theirs, closed = box[1 : 1 + _KEY_BYTES], box[1 + _KEY_BYTES :]
    try:
        if box[:1] != _VERSION:
            raise ValueError(box[:1])
        shared = key.exchange(X25519PublicKey.from_public_bytes(theirs))
        return _cipher(shared, theirs, key.public_key().public_bytes_raw()).decrypt(_NONCE, closed, bound_to.encode())
    except (InvalidTag, ValueError) as error:
        raise StoreError("a kept prompt does not open: its key is another one, or it was changed") from error


def _cipher(shared: bytes, mine: bytes, public: bytes) -> AESGCM:
    derived = HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=mine + public, info=_PURPOSE).derive(shared)
    return AESGCM(derived)
