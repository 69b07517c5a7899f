"""The index of local models under HOME/weights: index.json, its lock, and atomic placing of files."""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from penstock.engine.gguf import read_header

MODEL_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_BLOCK = 1024 * 1024
_LOCK_POLL_S = 0.1

Progress = Callable[[int, int | None, str], None]
"""Called with bytes done, bytes in all (None when unknown) and the step: download, unpack, copy or verify."""


class WeightsError(Exception):
    """A local model cannot be had; the message is one line with the remedy."""


class PullError(WeightsError):
    """Weights could not be fetched."""


class LocalModel(msgspec.Struct, frozen=True, kw_only=True):
    """Weights on this machine. ``size`` is bytes, ``context_length`` the trained context in tokens."""

    id: str
    path: str
    size: int
    sha256: str
    architecture: str
    context_length: int
    source: str
    added_at: datetime


class _Index(msgspec.Struct, kw_only=True):
    version: int = 1
    models: dict[str, LocalModel] = {}


def no_progress(done: int, total: int | None, what: str) -> None:
    """The Progress that shows nothing."""


def check_id(model_id: str) -> str:
    """The id itself. Raises WeightsError unless it is 1-63 of a-z 0-9 . _ - beginning with a letter or digit."""
    if MODEL_ID.fullmatch(model_id) is None:
        raise WeightsError(f"'{model_id[:80]}' is no model id: use 1-63 of a-z 0-9 . _ -, first a letter or digit")
    return model_id


@contextlib.contextmanager
def locked(path: Path, *, aborted: threading.Event | None = None) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (made when missing). The kernel frees it when the process dies.

    Raises PullError when ``aborted`` is set while another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _try_lock(descriptor, wait=aborted is None):
            if aborted is not None and aborted.wait(_LOCK_POLL_S):
                raise PullError("the fetch of the weights was aborted")
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def checksum(path: Path, progress: Progress = no_progress, *, what: str = "verify") -> str:
    """SHA-256 of a file in hex."""
    total, done, digest = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            progress(done, total, what)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Registry:
    """The models of one ``weights`` folder. Paths are stored relative to it, so that the home can be moved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "index.json"

    def list(self) -> tuple[LocalModel, ...]:
        """Every model in the index whose file is there with its size, by id. Raises WeightsError on a bad index."""
        found = (self._placed(model) for _, model in sorted(self._read().models.items()))
        return tuple(model for model in found if model is not None)

    def find(self, model_id: str) -> LocalModel | None:
        """The model of that id, or None when it is not in the index or its file is gone or has another size."""
        model = self._read().models.get(model_id)
        return self._placed(model) if model is not None else None

    def place(self, model: LocalModel, file: Path) -> LocalModel:
        """Move ``file`` (on the same file system) to its final name and enter it; both steps are atomic and durable."""
        final = self.folder / model.path
        sync(file)
        file.replace(final)
        sync(self.folder)
        self.enter(model)
        return msgspec.structs.replace(model, path=str(final))

    def enter(self, model: LocalModel) -> None:
        """Write the index with this model in it."""
        with locked(self.folder / ".index.lock"):
            index = self._read()
            index.models[model.id] = model
            self._write(index)

    def remove(self, model_id: str) -> None:
        """Take the model out of the index, then remove its file. Raises WeightsError for an id that is not there."""
        with locked(self.folder / ".index.lock"):
            index = self._read()
            model = index.models.pop(model_id, None)
            if model is None:
                raise WeightsError(f"'{model_id[:80]}' is not here; penstock models:local lists what is")
            self._write(index)
            try:
                (self.folder / model.path).unlink(missing_ok=True)
            except OSError as error:
                raise WeightsError(f"{self.folder / model.path}: {error.strerror or error}") from error

    @contextlib.contextmanager
    def work(self, model_id: str, *, aborted: threading.Event | None = None) -> Iterator[Path]:
        """Hold the model's lock and lend an empty temporary folder; what a killed run left behind is removed first."""
        folder = self.folder / ".tmp" / model_id
        with locked(self.folder / ".locks" / f"{model_id}.lock", aborted=aborted):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _write(self, index: _Index) -> None:
        temporary = self.folder / ".index.tmp"
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(index), indent=2) + b"\n")
        sync(temporary)
        temporary.replace(self._file)
        sync(self.folder)

    def _read(self) -> _Index:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_Index)
        except FileNotFoundError:
            return _Index(models={})
        except (msgspec.DecodeError, OSError) as error:
            raise WeightsError(f"{self._file} cannot be read ({error}); remove it and pull the models again") from error

    def _placed(self, model: LocalModel) -> LocalModel | None:
        path = self.folder / model.path
        try:
            size = path.stat().st_size
        except OSError:
            return None
        return msgspec.structs.replace(model, path=str(path)) if size == model.size else None


def described(model_id: str, *, file: Path, sha256: str, source: str) -> LocalModel:
    """A registry entry for a verified GGUF file, named after its id. Raises BadWeights."""
    header = read_header(file)
    return LocalModel(
        id=model_id,
        path=f"{model_id}.gguf",
        size=file.stat().st_size,
        sha256=sha256,
        architecture=header.architecture,
        context_length=header.context_length,
        source=source,
        added_at=datetime.now(UTC),
    )
