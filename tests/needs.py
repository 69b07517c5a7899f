"""What a test needs from the machine: missing on a user's machine it skips with a reason, under CI it fails."""

import os
import shutil

import pytest


def require(present: object, reason: str) -> None:
    """Go on when ``present`` is true. Else skip, or fail where PENSTOCK_REQUIRE_ALL=1 promises that all is there."""
    if present:
        return
    if os.environ.get("PENSTOCK_REQUIRE_ALL") == "1":
        pytest.fail(f"PENSTOCK_REQUIRE_ALL=1, yet {reason}", pytrace=False)
    pytest.skip(reason)


def require_program(name: str) -> str:
    """The path of a program on PATH."""
    path = shutil.which(name)
    require(path, f"{name} is not installed")
    assert path is not None
    return path
