"""Starts the template before the supervisor's own imports, so that both import beside each other.

The template is a process that every child may be forked from (``template.py``), told what to fork over a socket.
"""

import contextlib
import os
import signal
import socket
import sys
from typing import NamedTuple

# A fork cannot be rid of the environment that its template was started with: nothing that may hold a secret.
_NAMES = ("PATH", "HOME", "TMPDIR", "LANG", "LANGUAGE", "TZ", "VIRTUAL_ENV", "OPENSSL_CONF", "OPENSSL_MODULES")
_PREFIXES = ("LC_", "LD_", "PYTHON", "SSL_CERT_", "MALLOC_")
# Blocked from the first instruction on: no moment at which ctrl-C ends it.
BLOCKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Started(NamedTuple):
    """A template: its process, and the supervisor's end of its socket."""

    pid: int
    channel: socket.socket


_early: list[Started] = []


def start_early() -> None:
    """Start a template for the supervisor that this process is about to become."""
    if started := start():
        _early.append(started)


def start() -> Started | None:
    """The template that was started early, or another; None where there can be none. It ends with this process."""
    if _early:
        return _early.pop()
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # -P keeps a folder named penstock in the working directory from being imported instead of ours.
    command = [sys.executable, "-P", "-m", "penstock.app.nursery.template"]
    # Its stdout is stderr: a reader of the supervisor's output must not wait for it.
    actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
    with theirs:
        try:
            pid = os.posix_spawn(sys.executable, command, _environment(), file_actions=actions, setsigmask=BLOCKED)
            os.close(os.pidfd_open(pid))
        except OSError:
            ours.close()
            return None
    return Started(pid, ours)


def end(started: Started) -> None:
    """End a template, which holds nothing that could be lost; its forks live on."""
    started.channel.close()
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(started.pid, signal.SIGKILL)
        os.waitpid(started.pid, 0)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in _NAMES or name.startswith(_PREFIXES)}
