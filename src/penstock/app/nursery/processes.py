"""One supervised child process of the server: started with its boot line, watched, restarted with backoff, drained."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import msgspec

from penstock.app.banner import Hello
from penstock.app.boot import Boot, Serving
from penstock.app.nursery.forks import Forked, NoFork, Template
from penstock.providers.catalogue.credentials import secret_variables
from penstock.settings.load import SECRET_SETTINGS, env_name
from penstock.settings.tree import Settings

_log = logging.getLogger("penstock.app")
_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 5.0
_HEALTHY_S = 10.0
_START_TIMEOUT_S = _ANSWER_TIMEOUT_S = 60.0

_Process = Forked | asyncio.subprocess.Process


class ChildFailed(Exception):
    """A child did not become ready; the message is one line for the operator."""


class _Said(msgspec.Struct):
    ready: bool = False
    error: str | None = None
    hello: Hello | None = None


class ChildProcess:
    """A gateway worker, the control plane, the ledger or what prepares the store: forked from the template, or started
    afresh where there is none."""

    def __init__(self, boot: Boot, *, name: str, template: Template | None = None) -> None:
        self.name = name
        self._boot = boot
        self._template = template
        self._process: _Process | None = None
        # What it says and is told, over a socket that is its stdin and stdout.
        self._hears: asyncio.StreamReader | None = None
        self._tells: asyncio.StreamWriter | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._delay_s = _FIRST_DELAY_S
        # One conversation at a time: a start, or a new configuration. Answers that are still owed come first.
        self._talk = asyncio.Lock()
        self._owed = 0
        self.patience_s = _ANSWER_TIMEOUT_S

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self, once: Awaitable[object] | None = None) -> None:
        """Start, tell it what to do ``once`` that is done, and wait until it serves. Raises ChildFailed, and what
        ``once`` raises."""
        await self._spawn(once=once)
        self._watcher = asyncio.create_task(self._watch(), name=f"watch-{self.name}")

    async def run(self) -> Hello | None:
        """Start, and wait until it has said that it is done and ended: what it has made. Raises ChildFailed."""
        try:
            said = await self._spawn(within_s=None)
        finally:
            await self._end()
        return said.hello

    async def tell(self, serving: Serving) -> str | None:
        """Hand a new configuration over, also to every later start; why it is not applied, None when it is or the child
        is just being started again."""
        self._boot = msgspec.structs.replace(self._boot, serving=serving)
        async with self._talk:
            process = self._process
            if process is None or process.returncode is not None:
                return None
            try:
                said = await self._say(serving, within_s=self.patience_s)
            except (ConnectionError, TimeoutError, msgspec.DecodeError):
                return None if process.returncode is not None else "no answer"
            return None if said.ready else said.error

    async def drain(self, bound_s: float) -> None:
        """SIGTERM, wait for open answers up to the bound, then kill."""
        if self._watcher is not None:
            self._watcher.cancel()
            (failure,) = await asyncio.gather(self._watcher, return_exceptions=True)
            if isinstance(failure, Exception):
                _log.error("%s: its watch had failed (%s)", self.name, failure)
        process = self._process
        if process is None or process.returncode is not None:
            self._hang_up()
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(bound_s):
                await process.wait()
        except TimeoutError:
            _log.warning("%s did not end within %.0f s: killed", self.name, bound_s)
        await self._end()

    async def _spawn(
        self, *, once: Awaitable[object] | None = None, within_s: float | None = _START_TIMEOUT_S
    ) -> _Said:
        async with self._talk:
            self._hang_up()
            self._owed = 0
            try:
                process, ours = await self._begin()
            except OSError as error:
                raise ChildFailed(f"{self.name}: cannot be started ({error.strerror or error})") from error
            self._process = process
            self._hears, self._tells = await asyncio.open_connection(sock=ours)
            # A fork has the environment of its template until it is told its own.
            environment = self._environment() if isinstance(process, Forked) else None
            boot = msgspec.structs.replace(self._boot, environment=environment)
            if once is not None:
                await once
            try:
                said = await self._say(boot, within_s=within_s)
            except (TimeoutError, ConnectionError, msgspec.DecodeError):
                said = _Said(error=f"{self.name}: ended before it was ready")
            if not said.ready:
                await self._end()
                raise ChildFailed(said.error or f"{self.name}: did not start")
            return said

    async def _begin(self) -> tuple[_Process, socket.socket]:
        """A process, and our end of its stdin and stdout. Raises OSError."""
        if self._template is not None:
            with contextlib.suppress(NoFork):
                return await _talking(partial(self._template.fork, self._boot.role, self._boot.listener))
        return await _talking(self._start_afresh)

    async def _start_afresh(self, talk: socket.socket) -> _Process:
        # -P keeps a folder named penstock in the working directory from being imported instead of ours.
        command = (sys.executable, "-P", "-m", "penstock.app.child")
        end, env = talk.fileno(), self._environment()
        return await asyncio.create_subprocess_exec(
            *command, stdin=end, stdout=end, pass_fds=(self._boot.listener,), env=env
        )

    def _environment(self) -> dict[str, str]:
        return environment_without_secrets(self._boot.settings, self._boot.serving.secret_variables)

    async def _end(self) -> None:
        """Kill it if it runs, and let go of it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._tells is not None:
            self._tells.close()
        self._hears = self._tells = None

    async def _say(self, message: Boot | Serving, *, within_s: float | None) -> _Said:
        """Send one line, wait for the one that answers it, behind those that came too late for earlier ones."""
        assert self._tells is not None
        assert self._hears is not None
        self._owed += 1
        async with asyncio.timeout(within_s):
            self._tells.write(msgspec.json.encode(message) + b"\n")
            await self._tells.drain()
            while self._owed:
                line = await self._hears.readline()
                self._owed -= 1
            return msgspec.json.decode(line, type=_Said)

    async def _watch(self) -> None:
        while True:
            assert self._process is not None
            began = time.monotonic()
            code = await self._process.wait()
            if time.monotonic() - began >= _HEALTHY_S:
                self._delay_s = _FIRST_DELAY_S
            _log.warning("%s ended with status %s; next start in %.1f s", self.name, code, self._delay_s)
            while not await self._restarted():
                pass

    async def _restarted(self) -> bool:
        await asyncio.sleep(self._delay_s)
        self._delay_s = min(self._delay_s * 2, _MAX_DELAY_S)
        try:
            await self._spawn()
        except (ChildFailed, OSError) as error:
            _log.error("%s; next start in %.1f s", error, self._delay_s)
            return False
        return True


async def _talking(begin: Callable[[socket.socket], Awaitable[_Process]]) -> tuple[_Process, socket.socket]:
    """The process that is begun with one end of a pair of sockets, and the other end. A pair serves one attempt: of one
    that fails, a process may be left that has it."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            return await begin(theirs), ours
    except BaseException:
        ours.close()
        raise


def environment_without_secrets(settings: Settings, also: Iterable[str] = ()) -> dict[str, str]:
    """This process's environment without the variables that hold secrets: settings', providers', and those that a
    reload has named. What a child needs of them is told it through its pipe."""
    secrets = {env_name(path) for path in (*SECRET_SETTINGS, "database.url")} | secret_variables(settings.provider)
    secrets.update(also)
    return {name: value for name, value in os.environ.items() if name not in secrets}
