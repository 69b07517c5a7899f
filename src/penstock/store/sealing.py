"""Secrets at rest: AES-256-GCM under the master key, bound to where the secret belongs."""

import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from penstock.settings.private import create_private, private_folder
from penstock.store.errors import StoreError

# Version 1 does not say under which key it was sealed: each is tried.
_VERSION_1 = b"\x01"
_VERSION_2 = b"\x02"
_ID_BYTES = 8
_NONCE_BYTES = 12
_KEY_BYTES = 32
_FILE_BYTES = 64 * 1024


@dataclass(frozen=True, repr=False)
class MasterKeys:
    """Where the master keys are: one a line in a file, or ``given`` by the settings. The first seals, each opens."""

    path: Path | None = None
    given: tuple[bytes, ...] = ()

    def read(self) -> tuple[bytes, ...]:
        """The keys of 32 bytes. Raises StoreError."""
        if self.path is None:
            return self.given
        try:
            return read_master_keys(self.path)
        except FileNotFoundError:
            raise StoreError(f"{self.path} is missing; restore it") from None


class Sealer:
    """Seals text under the first of the master keys that ``read`` gives, and opens what any of them has sealed.

    The sealed form is a version byte, the id of the key, a random nonce, the ciphertext.
    """

    def __init__(self, read: Callable[[], Sequence[bytes]]) -> None:
        self._read = read
        self._ciphers: dict[bytes, AESGCM] = {}
        self._learn()

    def head(self) -> bytes:
        """With what everything begins that is sealed under the current key. Raises StoreError."""
        return _VERSION_2 + self._learn()

    def seal(self, text: str, *, bound_to: str) -> bytes:
        """The sealed form; ``bound_to`` is associated data, so that a sealed value cannot be moved elsewhere. Raises
        StoreError when the key cannot be read, which is done anew each time: another process may have rotated it."""
        return self.seal_all({bound_to: text})[bound_to]

    def seal_all(self, texts: Mapping[str, str]) -> dict[str, bytes]:
        """The sealed forms of ``texts``, both by what each is bound to; the key is read once. Raises StoreError."""
        head = self.head()
        cipher, sealed = self._ciphers[head[1:]], {}
        for bound_to, text in texts.items():
            nonce = secrets.token_bytes(_NONCE_BYTES)
            sealed[bound_to] = head + nonce + cipher.encrypt(nonce, text.encode(), bound_to.encode())
        return sealed

    def unseal(self, sealed: bytes, *, bound_to: str) -> str:
        """The text again. Raises StoreError when the master key is another one or the value was changed or moved."""
        text = self._open(sealed, bound_to)
        if text is None:
            self._learn()
            text = self._open(sealed, bound_to)
        if text is None:
            raise StoreError(
                "a sealed secret does not open: the master key (master.key, or what the secrets settings give) is not "
                "the one this database was made with; restore it"
            )
        return text

    def _learn(self) -> bytes:
        # What was known stays: a read that began before a rotation ended may hold values under the old key.
        keys = self._read()
        for key in keys:
            self._ciphers.setdefault(_id(key), AESGCM(key))
        return _id(keys[0])

    def _open(self, sealed: bytes, bound_to: str) -> str | None:
        version, rest = sealed[:1], sealed[1:]
        ciphers = [*self._ciphers.values()] if version == _VERSION_1 else []
        if version == _VERSION_2 and (named := self._ciphers.get(rest[:_ID_BYTES])):
            ciphers, rest = [named], rest[_ID_BYTES:]
        for cipher in ciphers:
            try:
                return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], bound_to.encode()).decode()
            except (InvalidTag, ValueError):
                continue
        return None


def parse_master_key(text: str, what: str) -> bytes:
    """The 32 bytes that 64 hex digits spell. Raises StoreError, which names ``what`` and never shows the text."""
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise StoreError(f"{what}: not a master key (64 hex digits); restore it from a backup")
    return key


def read_master_keys(path: Path) -> tuple[bytes, ...]:
    """The keys of a master key file, one a line, the current one first. Raises StoreError, FileNotFoundError."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_FILE_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise StoreError(f"{path}: others may read it (mode {mode:04o}); run chmod 600")
    lines = content.decode("ascii", "replace").split() or [""]
    return tuple(parse_master_key(line, str(path)) for line in lines)


def new_master_key() -> bytes:
    """32 random bytes."""
    return secrets.token_bytes(_KEY_BYTES)


def create_master_key(path: Path) -> None:
    """A new master key at ``path``, mode 0600, unless another process is first. Raises StoreError."""
    try:
        write_private_once(path, new_master_key().hex() + "\n")
    except OSError as error:
        raise StoreError(f"{path}: cannot be created: {error.strerror}") from error


def replace_master_keys(path: Path, keys: Sequence[bytes]) -> None:
    """Rewrites a master key file whole or not at all, and on the disk when it returns; the caller has it locked.
    Raises StoreError."""
    file = path.resolve()
    # One name, so that what a killed rotation left behind is not kept beside the file for ever.
    draft = file.with_name(f".{file.name}.rotating")
    try:
        draft.unlink(missing_ok=True)
        create_private(draft, "".join(f"{key.hex()}\n" for key in keys))
        draft.replace(file)
        sync_folder(file.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}; the secrets are as they were") from error


@contextmanager
def rotating(path: Path) -> Iterator[None]:
    """Keeps a second rotation of the same file out. Raises StoreError."""
    try:
        folder = os.open(path.resolve().parent, os.O_RDONLY)
    except OSError as error:
        raise StoreError(f"{path.parent}: cannot be read: {error.strerror}") from error
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(f"{path}: another secrets:rotate is running; wait for it") from None
        yield
    finally:
        os.close(folder)


def write_private_once(path: Path, text: str) -> bool:
    """Creates ``path`` with ``text``, mode 0600, whole or not at all; False when it exists already. Raises OSError."""
    private_folder(path.parent)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        create_private(draft, text)
        # A link, unlike a rename, never replaces what another process wrote first.
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Forces a folder's entries to the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _id(key: bytes) -> bytes:
    return hashlib.sha256(b"penstock master key\0" + key).digest()[:_ID_BYTES]
