"""One supervised child process of the server: started with its boot line, watched, restarted with backoff, drained."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable

import msgspec

from penstock.app.boot import Boot, Serving
from penstock.providers.catalogue.credentials import secret_variables
from penstock.settings.load import SECRET_SETTINGS, env_name
from penstock.settings.tree import Settings

_log = logging.getLogger("penstock.app")
_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 5.0
_HEALTHY_S = 10.0
_START_TIMEOUT_S = _ANSWER_TIMEOUT_S = 60.0


class ChildFailed(Exception):
    """A child did not become ready; the message is one line for the operator."""


class _Said(msgspec.Struct):
    ready: bool = False
    error: str | None = None


class ChildProcess:
    """A gateway worker or the control plane."""

    def __init__(self, boot: Boot, *, name: str) -> None:
        self.name = name
        self._boot = boot
        self._process: asyncio.subprocess.Process | None = None
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

    async def start(self) -> None:
        """Start and wait until it serves. Raises ChildFailed."""
        await self._spawn()
        self._watcher = asyncio.create_task(self._watch(), name=f"watch-{self.name}")

    async def tell(self, serving: Serving) -> str | None:
        """Hand a new configuration over, also to every later start; why it is not applied, None when it is or the child
        is just being started again."""
        self._boot = msgspec.structs.replace(self._boot, serving=serving)
        async with self._talk:
            process = self._process
            if process is None or process.returncode is not None:
                return None
            try:
                said = await self._say(process, serving, within_s=self.patience_s)
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
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(bound_s):
                await process.wait()
        except TimeoutError:
            _log.warning("%s did not end within %.0f s: killed", self.name, bound_s)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _spawn(self) -> None:
        async with self._talk:
            await self._spawn_now()

    async def _spawn_now(self) -> None:
        pipe = asyncio.subprocess.PIPE
        # -P keeps a folder named penstock in the working directory from being imported instead of ours.
        command = (sys.executable, "-P", "-m", "penstock.app.child")
        env = environment_without_secrets(self._boot.settings, self._boot.serving.secret_variables)
        self._owed = 0
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, pass_fds=(self._boot.listener,), env=env
            )
        except OSError as error:
            raise ChildFailed(f"{self.name}: cannot be started ({error.strerror or error})") from error
        try:
            said = await self._say(process, self._boot, within_s=_START_TIMEOUT_S)
        except (TimeoutError, ConnectionError, msgspec.DecodeError):
            said = _Said(error=f"{self.name}: ended before it was ready")
        if not said.ready:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise ChildFailed(said.error or f"{self.name}: did not start")

    async def _say(self, process: asyncio.subprocess.Process, message: Boot | Serving, *, within_s: float) -> _Said:
        """Send one line, wait for the one that answers it, behind those that came too late for earlier ones."""
        assert process.stdin is not None
        assert process.stdout is not None
        self._owed += 1
        async with asyncio.timeout(within_s):
            process.stdin.write(msgspec.json.encode(message) + b"\n")
            await process.stdin.drain()
            while self._owed:
                line = await process.stdout.readline()
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


def environment_without_secrets(settings: Settings, also: Iterable[str] = ()) -> dict[str, str]:
    """This process's environment without the variables that hold secrets: settings', providers', and those that a
    reload has named. What a child needs of them is told it through its pipe."""
    secrets = {env_name(path) for path in (*SECRET_SETTINGS, "database.url")} | secret_variables(settings.provider)
    secrets.update(also)
    return {name: value for name, value in os.environ.items() if name not in secrets}
