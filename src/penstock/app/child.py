"""What each child runs, told on stdin, in a fork of the template or as ``python -m penstock.app.child``.

Ends with the supervisor: by SIGTERM with a drain, and by itself when stdin closes because the supervisor is gone.
"""

import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from penstock.app.boot import Boot, Serving
from penstock.app.home import HomeError
from penstock.app.logs import set_up_logging
from penstock.app.nursery.early import BLOCKED
from penstock.app.nursery.title import set_title
from penstock.app.serving.lifeline import Lifeline
from penstock.settings.tree import Settings
from penstock.store.errors import StoreError
from penstock.web.hub import HttpLimits
from penstock.web.server import Server

_log = logging.getLogger("penstock.app")
_ORPHAN_DRAIN_S = 2.0
_LEDGER_NICE = 10
# New objects at which cycles are looked for, and how often among older ones.
_COLLECTED = (10_000, 20, 50)
# malloc.h: M_MMAP_THRESHOLD, from which size on memory is mapped alone; M_TRIM_THRESHOLD, the most that is kept.
_KEPT = ((-3, 4 * 1024 * 1024), (-1, 16 * 1024 * 1024))


def main() -> int:
    """Serve until told to stop."""
    # Ctrl-C and a terminal that goes reach the whole group: the supervisor drains us, or reloads.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # A fork of the template was made with them blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)
    lifeline = Lifeline(0)
    line = lifeline.wait()
    if line is None:
        return 0
    boot = msgspec.json.decode(line, type=Boot)
    if boot.environment is not None:
        os.environ.clear()
        os.environ.update(boot.environment)
    set_title(boot.role)
    set_up_logging(boot.settings.log.level)
    if boot.role == "store":
        return _store(boot.settings)
    run = {"gateway": _gateway, "control": _control, "ledger": _ledger}[boot.role]
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run(boot, lifeline))
    except Exception as error:  # noqa: BLE001 - the supervisor prints this one line instead of a stack trace
        _log.debug("%s failed", boot.role, exc_info=error)
        _say({"error": f"{boot.role}: {error}"})
        return 1
    return 0


def _store(settings: Settings) -> int:
    """Prepare the store before anything serves."""
    from penstock.app.serving.prepare import prepare_store  # noqa: PLC0415 - the others do without it

    try:
        _say({"ready": True, "hello": prepare_store(settings)})
    except (StoreError, HomeError) as error:
        _say({"error": str(error)})
        return 1
    return 0


def _loop_factory() -> "type[asyncio.AbstractEventLoop] | None":
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.Loop


async def _gateway(boot: Boot, lifeline: Lifeline) -> None:
    from penstock.app.compose import GatewayParts  # noqa: PLC0415 - the control plane does without it
    from penstock.gateway.underway import DISCONNECTED  # noqa: PLC0415 - comes with the parts
    from penstock.ledger.progress import follow  # noqa: PLC0415 - comes with the parts

    parts = GatewayParts(boot)
    drain_s = boot.settings.serve.drain_s
    server = Server(parts.app, _listener(boot), limits=_limits(boot), drain_s=drain_s, reason=DISCONNECTED)
    tasks = [
        asyncio.create_task(parts.keys.follow()),
        asyncio.create_task(parts.keys.underway.expire()),
        asyncio.create_task(parts.keys.uses.follow()),
        asyncio.create_task(parts.leases.follow()),
        asyncio.create_task(parts.shared.follow()),
        asyncio.create_task(follow(parts.journal)),
        asyncio.create_task(parts.contents.follow()),
        asyncio.create_task(_sync_journal(parts.journal.sync, boot.settings.journal.fsync_s)),
    ]
    _tune_memory()
    try:
        await _until_stopped(server, lifeline, parts.apply)
        await parts.replay.drain(drain_s - (time.monotonic() - server.stopped_at))
    finally:
        for task in tasks:
            task.cancel()
        await parts.aclose()


def _tune_memory() -> None:
    """Of the collector: what was made at start lives as long as the worker and is kept out of collections; requests
    make few cycles, and looking for them as often as by default costs some per cent. Of the allocator: by default, the
    memory of every large body goes back to the kernel, to be cleared and mapped for the next (docs/performance.md)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTED)
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        for option, size in _KEPT:
            mallopt(option, size)


async def _control(boot: Boot, lifeline: Lifeline) -> None:
    from penstock.app.control import ControlParts  # noqa: PLC0415 - a gateway worker does without it
    from penstock.web.api import refusal  # noqa: PLC0415 - comes with the parts

    parts = ControlParts(boot)
    drain_s = boot.settings.serve.drain_s
    server = Server(parts.app, _listener(boot), limits=_limits(boot), drain_s=drain_s, refusal=refusal)
    try:
        await _until_stopped(server, lifeline, parts.apply)
    finally:
        parts.close()


async def _ledger(boot: Boot, lifeline: Lifeline) -> None:
    from penstock.app.ledger import LedgerParts  # noqa: PLC0415 - a gateway worker does without it

    # Answers come first: the ledger may lag, the journal keeps everything for it.
    os.nice(_LEDGER_NICE)
    if hasattr(os, "SCHED_BATCH"):
        # It never takes the CPU from a worker just because it has slept.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    # Nobody may take this process, which ends last, for one that answers.
    os.close(boot.listener)
    parts = LedgerParts(boot)
    try:
        await _until_stopped(parts, lifeline, parts.apply)
    finally:
        parts.close()


def _limits(boot: Boot) -> HttpLimits:
    gateway = boot.settings.gateway
    return HttpLimits(
        header_timeout_s=gateway.header_timeout_s,
        body_timeout_s=gateway.body_timeout_s,
        write_timeout_s=gateway.write_timeout_s,
        keep_alive_s=gateway.keep_alive_s,
        max_header_bytes=gateway.max_header_bytes,
    )


class _Runs(Protocol):
    """A server, or the ledger: runs until it is stopped and done."""

    async def run(self, ready: Callable[[], None]) -> None: ...

    def stop(self) -> None: ...


async def _until_stopped(server: _Runs, lifeline: Lifeline, apply: Callable[[Serving], None]) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, server.stop)

    def on_lifeline() -> None:
        for line in lifeline.lines():
            _say(_applied(apply, line))
        if lifeline.cut:
            loop.remove_reader(0)
            _log.warning("the supervisor is gone: stopping")
            server.stop()
            loop.call_later(_ORPHAN_DRAIN_S, os._exit, 1)

    def ready() -> None:
        _say({"ready": True})
        # Only now: the supervisor takes the first line that is said for the answer to the Boot.
        loop.add_reader(0, on_lifeline)

    await server.run(ready)


def _applied(apply: Callable[[Serving], None], line: bytes) -> dict[str, object]:
    try:
        apply(msgspec.json.decode(line, type=Serving))
    except Exception as error:  # noqa: BLE001 - the supervisor says it; this process goes on with what it had
        _log.debug("the new configuration cannot be applied", exc_info=error)
        return {"error": f"{type(error).__name__}: {error}"}
    return {"ready": True}


async def _sync_journal(sync: Callable[[], None], every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await asyncio.to_thread(sync)
        except OSError as error:
            _log.error("the journal cannot be forced to the disk: %s", error.strerror)


def _listener(boot: Boot) -> socket.socket:
    return socket.socket(fileno=boot.listener)


def _say(message: dict[str, object]) -> None:
    os.write(1, msgspec.json.encode(message) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
