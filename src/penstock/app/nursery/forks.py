"""The supervisor's side of the template: asks it for forks, and is their parent."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
from collections.abc import Callable

from penstock.app.nursery import early

_log = logging.getLogger("penstock.app")
_PR_SET_CHILD_SUBREAPER = 36
# On the slowest machine it has imported everything by then.
_PATIENCE_S = 30.0


class NoFork(Exception):
    """The template cannot be used, or could not fork."""


class Forked:
    """A process that the template has forked and this one has adopted; the part of asyncio's Process that we use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        self._descriptor = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._descriptor, self._reap)

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError when it has ended."""
        if self.returncode is not None:
            raise ProcessLookupError
        # Not another process of that id: until it is reaped, the id is its own.
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Raises ProcessLookupError when it has ended."""
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """The exit status once it has ended, negative for a signal."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()


class Template:
    """Forks children as long as its process lives; after that, ``fork`` refuses."""

    def __init__(self, start: Callable[[], early.Started | None] = early.start) -> None:
        self._started = start()
        self._turn = asyncio.Lock()
        if self._started is not None:
            self._started.channel.setblocking(False)
            # A fork is left an orphan at once: it becomes ours.
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    async def fork(self, role: str, listener: int, talk: socket.socket) -> Forked:
        """A child that has ``talk`` as its stdin and stdout, and the listener at the same number. Raises NoFork."""
        asking = asyncio.ensure_future(self._ask(f"{role} {listener}", talk, listener))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            # Whoever gives up a start must not leave a child behind that nobody knows.
            with contextlib.suppress(NoFork):
                forked = await asking
                forked.kill()
                await forked.wait()
            raise

    def close(self) -> None:
        """End the template's process."""
        if self._started is not None:
            early.end(self._started)
            self._started = None

    async def _ask(self, request: str, talk: socket.socket, listener: int) -> Forked:
        if self._started is None:
            raise NoFork("no template")
        channel = self._started.channel
        try:
            socket.send_fds(channel, [request.encode()], [talk.fileno(), listener])
            # Many may ask at once; they are answered in turn.
            async with asyncio.timeout(_PATIENCE_S), self._turn:
                answer = await asyncio.get_running_loop().sock_recv(channel, 64)
        except OSError as error:
            # A time-out is one of them.
            self._give_up(str(error) or type(error).__name__)
            raise NoFork("the template is gone") from error
        if not answer:
            self._give_up("it has ended")
            raise NoFork("the template is gone")
        pid = int(answer)
        if pid < 0:
            raise NoFork(os.strerror(-pid))
        return Forked(pid)

    def _give_up(self, reason: str) -> None:
        if self._started is None:
            return
        _log.warning("the template of the children is gone (%s): they are started afresh from now on", reason)
        self.close()
