"""Weights from a model hub (``hf:OWNER/REPO/FILE.gguf``) through huggingface_hub, which reads its own settings
(HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, proxies)."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from penstock.engine.registry import Progress, PullError, checksum

_SOURCE = re.compile(r"hf:([\w.-]+/[\w.-]+)/((?:[\w.+-]+/)*[\w.+-]+\.gguf)(?:@([\w./-]+))?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubFile(NamedTuple):
    """One file of one repository at one revision (None is the default branch)."""

    repo: str
    file: str
    revision: str | None

    @property
    def default_id(self) -> str:
        """A model id made of the file's name."""
        stem = self.file.rpartition("/")[2].removesuffix(".gguf").lower()
        return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("._-")[:63] or "model"


def parse(source: str) -> HubFile:
    """``hf:OWNER/REPO/FILE.gguf`` with an optional ``@REVISION``. Raises PullError."""
    match = _SOURCE.fullmatch(source)
    if match is None or ".." in source:
        raise PullError(f"'{source[:200]}' is not of the form hf:OWNER/REPO/FILE.gguf[@REVISION]")
    return HubFile(match[1], match[2], match[3])


def fetch(wanted: HubFile, folder: Path, progress: Progress) -> tuple[Path, str]:
    """Download into ``folder``; the file and its SHA-256. Raises PullError.

    The client resumes after a broken connection, not after its own end (huggingface_hub 2.4: a new temporary name for
    every process).
    """
    from huggingface_hub import (  # noqa: PLC0415 - a third of a second to import
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
    )

    try:
        about = get_hf_file_metadata(hf_hub_url(wanted.repo, wanted.file, revision=wanted.revision))
        path = hf_hub_download(
            wanted.repo,
            wanted.file,
            revision=about.commit_hash or wanted.revision,
            local_dir=folder,
            tqdm_class=_bar(progress),
        )
    except Exception as error:  # the client raises a dozen kinds, each with the reason in its text
        raise PullError(_explained(wanted, error)) from error
    actual = checksum(Path(path), progress)
    # For a large file the hub's ETag is its SHA-256; for others it is a git hash, which says nothing about our bytes.
    if about.etag and _SHA256.fullmatch(about.etag) and about.etag != actual:
        raise PullError(f"{wanted.repo}/{wanted.file}: the SHA-256 differs from the hub's; pull it again")
    return Path(path), actual


def _bar(progress: Progress) -> Any:
    from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415 - slow to import

    class Reporting(tqdm):  # type: ignore[type-arg, misc, unused-ignore]
        """Draws nothing and reports to our callback."""

        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": False, "file": _Nowhere()})

        def update(self, n: float | None = 1) -> bool | None:
            drawn: bool | None = super().update(n)
            progress(int(self.n), int(self.total) if self.total else None, "download")
            return drawn

    return Reporting


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return None


def _explained(wanted: HubFile, error: Exception) -> str:
    kind, text = type(error).__name__, " ".join(str(error).split())[:300]
    where = f"{wanted.repo}/{wanted.file}"
    if "NotFound" in kind and "Local" not in kind:
        return f"{where}: the hub has no such repository, revision or file (or it is private: set HF_TOKEN)"
    if kind in ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout"):
        return f"{where}: the hub cannot be reached. Fetch it elsewhere and run: penstock models:add FILE.gguf --as ID"
    return f"{where}: {kind}: {text}"
