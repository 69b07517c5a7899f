"""Runs one engine child: starts it, watches it, restarts it with backoff, stops it. One instance per local model."""

import asyncio
import contextlib
import logging
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from penstock.engine.bootstrap import Ready
from penstock.engine.drivers import LLAMACPP, Driver, EngineFailed, EngineSpec

LOGGER = logging.getLogger("penstock.engine")
FIRST_DELAY_S = 0.1
MAX_DELAY_S = 10.0
HEALTHY_S = 30.0
LOAD_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 3.0
# The kernel's bound on a Unix socket's path is 108 bytes with its NUL (unix(7)).
_MAX_SOCKET_PATH = 104


def new_key() -> str:
    """A random key for one engine child: 256 bits, URL-safe."""
    return secrets.token_urlsafe(32)


def socket_path(run_folder: Path, model_id: str) -> Path:
    """A free path for the child's socket under ``run_folder``; in a new private folder when that would be too long."""
    folder = run_folder.absolute()
    name = f"engine-{secrets.token_hex(4)}.sock"
    if len(os.fsencode(folder / name)) > _MAX_SOCKET_PATH:
        folder = Path(tempfile.mkdtemp(prefix="penstock-", dir="/tmp"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    LOGGER.debug("engine %s listens in %s", model_id, folder)
    return folder / name


class EngineProcess:
    """The supervised child of one spec. Belongs to one event loop, whose thread must live as long as the child.

    ``environ`` is the child's environment (None: this process's own). ``on_change`` is called with this object
    whenever ``ready`` changes.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        driver: Driver = LLAMACPP,
        environ: Mapping[str, str] | None = None,
        on_change: Callable[["EngineProcess"], None] | None = None,
    ) -> None:
        self.spec = spec
        self.ready = False
        self.restarts = 0
        self.last_error: str | None = None
        self._driver = driver
        self._environ = environ
        self._on_change = on_change
        self._child: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._delay_s = FIRST_DELAY_S

    @property
    def pid(self) -> int | None:
        """The running child's process id."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    async def start(self) -> None:
        """Start the child and wait until it listens. Raises EngineFailed when the first start fails."""
        try:
            await self._spawn()
        except BaseException:
            await self._end_child()
            raise
        self._watcher = asyncio.get_running_loop().create_task(self._watch(), name=f"engine-{self.spec.model_id}")

    async def stop(self) -> None:
        """End the child: close its stdin, wait ``STOP_TIMEOUT_S``, then kill. Safe to call twice."""
        if self._watcher is not None:
            self._watcher.cancel()
            (failure,) = await asyncio.gather(self._watcher, return_exceptions=True)
            if isinstance(failure, Exception):
                LOGGER.error("engine %s: its watch had failed (%s)", self.spec.model_id, failure)
            self._watcher = None
        self._set_ready(False)
        await self._end_child()

    async def _spawn(self) -> None:
        # -P keeps a folder named penstock in the working directory from being imported instead of ours.
        command = (sys.executable, "-P", "-m", self._driver.module)
        pipe = asyncio.subprocess.PIPE
        child = self._child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=self._environ)
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                child.stdin.write(self._driver.bootstrap(self.spec) + b"\n")
                await child.stdin.drain()
                line = await child.stdout.readline()
        except TimeoutError:
            raise EngineFailed(f"the engine did not load {self.spec.model_id} within {LOAD_TIMEOUT_S:.0f} s") from None
        except ConnectionError:
            line = b""
        try:
            said = msgspec.json.decode(line, type=Ready)
        except msgspec.DecodeError:
            raise EngineFailed(f"the engine child for {self.spec.model_id} ended while loading") from None
        if said.error is not None:
            raise EngineFailed(f"{self.spec.model_id}: {said.error}")
        ready = (self.spec.model_id, self._driver.name, said.load_s, child.pid)
        LOGGER.info("engine %s by %s ready in %.1f s (pid %d)", *ready)
        self.last_error = None
        self._set_ready(True)

    async def _watch(self) -> None:
        while True:
            assert self._child is not None
            began = time.monotonic()
            code = await self._child.wait()
            was_ready = self.ready
            self._set_ready(False)
            if was_ready:
                self.last_error = f"the engine child ended with status {code}"
                if time.monotonic() - began >= HEALTHY_S:
                    self._delay_s = FIRST_DELAY_S
            LOGGER.warning("engine %s: %s; next start in %.1f s", self.spec.model_id, self.last_error, self._delay_s)
            await asyncio.sleep(self._delay_s)
            self._delay_s = min(self._delay_s * 2, MAX_DELAY_S)
            self.restarts += 1
            try:
                await self._spawn()
            except (EngineFailed, OSError) as error:
                self.last_error = str(error)
                await self._end_child()

    async def _end_child(self) -> None:
        child = self._child
        if child is None:
            return
        if child.stdin is not None:
            child.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await child.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        _unlink(self.spec.socket_path)

    def _set_ready(self, ready: bool) -> None:
        if ready == self.ready:
            return
        self.ready = ready
        if self._on_change is not None:
            self._on_change(self)


def _unlink(path: str) -> None:
    Path(path).unlink(missing_ok=True)
