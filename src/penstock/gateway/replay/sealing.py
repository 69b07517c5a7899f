"""How answers look in the store: pieces, encrypted under what only the asking client knows."""

import os

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES = 12


class Head(msgspec.Struct, frozen=True):
    """Status and headers of an answer."""

    status: int
    headers: list[tuple[bytes, bytes]]


class Piece(msgspec.Struct, frozen=True):
    """Frames of an answer in a row; the first piece, and the whole, have the head."""

    frames: list[bytes]
    head: Head | None = None

    def after(self, count: int) -> "Piece":
        """The same without the first frames."""
        return Piece(self.frames[count:], self.head)


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Piece)


class Cipher:
    """AES-256-GCM under a key that HKDF-SHA256 derives from a secret, one per ``info``."""

    def __init__(self, secret: bytes, *, info: bytes) -> None:
        self._cipher = AESGCM(HKDF(SHA256(), 32, None, info).derive(secret))

    def seal(self, data: bytes, *, place: bytes) -> bytes:
        """A random nonce and the ciphertext; opens at the same ``place`` only."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, place)

    def open(self, sealed: bytes, *, place: bytes) -> bytes:
        """The bytes again. Raises cryptography.exceptions.InvalidTag."""
        return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place)

    def seal_piece(self, piece: Piece, *, place: bytes) -> bytes:
        """A piece, sealed."""
        return self.seal(_encode(piece), place=place)

    def open_piece(self, sealed: bytes, *, place: bytes) -> Piece:
        """The piece again. Raises cryptography.exceptions.InvalidTag."""
        return _decoder.decode(self.open(sealed, place=place))


def place_of(attempt: int, number: int | None = None) -> bytes:
    """Where a piece belongs: a chunk of an attempt, or its whole answer."""
    return b"%d/whole" % attempt if number is None else b"%d/%d" % (attempt, number)
