"""Secrets at rest: AES-256-GCM under the master key, bound to where the secret belongs."""

import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from penstock.store.errors import StoreError

_VERSION = b"\x01"
_NONCE_BYTES = 12
_KEY_BYTES = 32


class Sealer:
    """Seals text under one 32-byte master key. The sealed form is a version byte, a random nonce, the ciphertext."""

    def __init__(self, master_key: bytes) -> None:
        self._cipher = AESGCM(master_key)

    def seal(self, text: str, *, bound_to: str) -> bytes:
        """The sealed form; ``bound_to`` is associated data, so that a sealed value cannot be moved elsewhere."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, text.encode(), bound_to.encode())

    def unseal(self, sealed: bytes, *, bound_to: str) -> str:
        """The text again. Raises StoreError when the master key is another one or the value was changed or moved."""
        nonce = sealed[1 : 1 + _NONCE_BYTES]
        try:
            if sealed[:1] != _VERSION:
                raise InvalidTag
            return self._cipher.decrypt(nonce, sealed[1 + _NONCE_BYTES :], bound_to.encode()).decode()
        except (InvalidTag, ValueError):
            raise StoreError(
                "a sealed secret does not open: master.key is not the one this database was made with; restore it"
            ) from None


def read_master_key(path: Path) -> bytes:
    """The 32 bytes of a master key file (64 hex digits). Raises StoreError, FileNotFoundError."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(1024)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise StoreError(f"{path}: others may read it (mode {mode:04o}); run chmod 600")
    try:
        key = bytes.fromhex(content.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise StoreError(f"{path}: not a master key (64 hex digits); restore it from a backup")
    return key


def create_master_key(path: Path) -> bytes:
    """A new master key at ``path``, mode 0600, unless another process is first: then that one. Raises StoreError."""
    try:
        write_private_once(path, secrets.token_bytes(_KEY_BYTES).hex() + "\n")
    except OSError as error:
        raise StoreError(f"{path}: cannot be created: {error.strerror}") from error
    return read_master_key(path)


def write_private_once(path: Path, text: str) -> bool:
    """Creates ``path`` with ``text``, mode 0600, whole or not at all; False when it exists already. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, never replaces what another process wrote first.
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    _sync_folder(path.parent)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
