"""Ties a process to the one that started it: ``python -m penstock.engine.tether PARENT COMMAND...`` runs a command so.

The kernel ends it when the parent ends, however that ends (Linux; elsewhere the parent has to do it).
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have this process killed when the parent's starting thread ends; end at once when the parent is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def tethered(command: list[str]) -> list[str]:
    """The command that runs ``command`` tied to this process."""
    # -P keeps a folder named penstock in the working directory from being imported instead of ours.
    return [sys.executable, "-P", "-m", "penstock.engine.tether", str(os.getpid()), *command]


def main() -> None:
    """Become the command. Never returns."""
    die_with(int(sys.argv[1]))
    try:
        os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the point of this module
    except OSError as error:
        sys.exit(f"{sys.argv[2]}: {error.strerror}")


if __name__ == "__main__":
    main()
