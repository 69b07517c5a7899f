"""The template of the children: ``python -m penstock.app.nursery.template``, its socket on stdin.

Imports what several children need, ahead of every request, and forks a child for each: what four processes would
import is imported once, and its memory is shared. It has one thread and no event loop, opens nothing and knows no
secret. A fork is no child of its own but the supervisor's, which adopts orphans. Ends with the supervisor, by the end
of its socket.
"""

import contextlib
import gc
import os
import select
import socket
import sys
from importlib import import_module

from penstock.app.nursery.title import set_title

_CHILD = "penstock.app.child"
# Every child needs these, and every worker the others: one import serves them all.
_SHARED = (_CHILD, "penstock.app.serving.prepare")
_WORKERS = ("penstock.app.compose", "uvloop")
# Who is alone with what it needs imports that itself, beside the template and before it is told anything.
_OWN = {"control": ("penstock.app.control", "uvloop"), "ledger": ("penstock.app.ledger", "uvloop")}


def main() -> int:
    """Fork whenever asked to; the exit status, here and in every fork."""
    set_title("template")
    # Nothing that is imported goes again, and no fork shall look through it.
    gc.disable()
    channel = socket.socket(fileno=0)
    ahead = [*_SHARED, *_WORKERS]
    while True:
        while ahead and not select.select([channel], [], [], 0)[0]:
            _import(ahead.pop(0))
        message, descriptors, _, _ = socket.recv_fds(channel, 64, 2)
        if not message:
            return 0
        role, listener = message.decode().split()
        for module in (*_SHARED, *(_WORKERS if role == "gateway" else ())):
            _import(module)
        gc.freeze()
        try:
            pid = _fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            channel.detach()
            return _become(role, int(listener), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(str(pid).encode())


def _import(module: str) -> None:
    # Not on every platform, or broken: the child that needs it says so.
    with contextlib.suppress(ImportError):
        import_module(module)


def _fork() -> int:
    """0 in the fork, an orphan, and its id in the template. Raises OSError."""
    reading, writing = os.pipe()
    try:
        between = os.fork()
        if between == 0:
            try:
                pid = os.fork()
            except OSError as error:
                pid = -(error.errno or 1)
            if pid:
                os.write(writing, str(pid).encode())
                os._exit(0)
            return 0
        told = int(os.read(reading, 32) or -1)
        # Only when it has ended is the fork the supervisor's own child.
        os.waitpid(between, 0)
    finally:
        os.close(reading)
        os.close(writing)
    if told < 0:
        raise OSError(-told, os.strerror(-told))
    return told


def _become(role: str, number: int, talk: int, listener: int) -> int:
    """Be a child as one that was started afresh: its pipe is stdin and stdout, its listener has the number that it will
    be told."""
    os.dup2(talk, 0)
    os.dup2(talk, 1)
    os.close(talk)
    if listener != number:
        os.dup2(listener, number)
        os.close(listener)
    for module in _OWN.get(role, ()):
        _import(module)
    gc.enable()
    status: int = import_module(_CHILD).main()
    return status


if __name__ == "__main__":
    sys.exit(main())
