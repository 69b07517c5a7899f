"""What Penstock writes into its home is private to the user, whatever the umask lets others do."""

import os
import secrets
from pathlib import Path


def private_folder(path: Path) -> Path:
    """The folder itself. Those missing on the way are made, each with mode 0700; what is there stays as it is. Raises
    OSError."""
    for folder in (*reversed(path.parents), path):
        folder.mkdir(mode=0o700, exist_ok=True)
    return path


def create_private(path: Path, text: str) -> None:
    """A new file with mode 0600, on the disk when this returns. Raises OSError, also for a link that stands there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_private(path: Path, text: str) -> None:
    """Puts ``text`` at ``path`` with mode 0600, whole or not at all. Raises OSError."""
    draft = private_folder(path.parent) / f".{path.name}.{secrets.token_hex(8)}"
    try:
        create_private(draft, text)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
