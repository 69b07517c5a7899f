"""Compiles the modules that every request runs through, and puts them with the rest of the package into a folder.

``python scripts/native.py build/native``; whoever has that folder first on PYTHONPATH runs the compiled gateway. The
source stays as it is, and is what runs everywhere else. Needs a C compiler and the headers of this Python.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mypyc.build import mypycify
from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent.parent
# By room. Structs of these modules inherit from domain.value.Value, for the keywords of a class are lost; what is
# decoded, or needs other keywords, is defined elsewhere (tests/house/test_native.py).
MODULES = {
    "domain": ("answer", "chain", "ids", "money"),
    "gateway": (
        "admit", "authenticate", "dispatch", "endpoints", "pipeline", "ranges", "reply", "route", "snapshot",
        "underway", "wire",
    ),
    "gateway/limits": ("bounds", "governor", "headers"),
    "gateway/routing": ("attempt", "board", "breaker", "spent", "window"),
    "ledger": ("bundle", "journal", "leases", "slices"),
    "providers": ("accounts", "connection", "sse", "stream", "transport"),
    "providers/openai": ("adapter", "azure", "events", "members", "messages", "request", "usage"),
    "providers/outbound": ("endings",),
    "providers/translation": ("dialect", "fields"),
    "web": ("exchange", "heads", "http1", "hub"),
}  # fmt: skip
MARK = "compiled.txt"


def sources() -> list[Path]:
    """The modules that are compiled, below the root."""
    return [Path("src/penstock", room, f"{name}.py") for room, names in MODULES.items() for name in names]


class _Parallel(build_ext):  # type: ignore[misc]
    """Compiles the files of an extension beside each other."""

    def build_extension(self, ext: Any) -> None:
        one = self.compiler.compile

        def compile_all(files: Sequence[str], **how: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [made for some in pool.map(lambda file: one([file], **how), files) for made in some]

        self.compiler.compile = compile_all
        super().build_extension(ext)


def build(folder: Path, *, opt_level: str) -> None:
    """The package in ``folder``, anew. Raises SystemExit where it cannot be compiled."""
    shutil.rmtree(folder, ignore_errors=True)
    work = folder / "work"
    shutil.copytree(ROOT / "src", work / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "scripts" / "native.ini", work)
    os.chdir(work)
    files = [str(path) for path in sources()]
    extensions = mypycify(
        ["--config-file", "native.ini", *files],
        opt_level=opt_level,
        debug_level="0",
        multi_file=True,
        group_name="penstock",
    )
    setup(
        name="penstock-native",
        ext_modules=extensions,
        cmdclass={"build_ext": _Parallel},
        script_args=["--quiet", "build_ext", "--build-lib", "src"],
    )
    for made in Path("src").iterdir():
        made.rename(folder / made.name)
    os.chdir(ROOT)
    shutil.rmtree(work)
    (folder / "penstock" / MARK).write_text("\n".join(files) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python scripts/native.py", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to, anew")
    parser.add_argument("--opt-level", choices=("0", "1", "2", "3"), default="2", help="how well, and how slowly")
    asked = parser.parse_args()
    build(asked.folder.resolve(), opt_level=asked.opt_level)
    return 0


if __name__ == "__main__":
    sys.exit(main())
