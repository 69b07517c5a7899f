"""The engine's child process: loads one model and serves it on a Unix socket until its parent is gone.

Protocol: one JSON line (``Bootstrap``) on stdin, one JSON line (``Ready``) on stdout, then stdin stays open as the
lifeline. Native code may abort or crash here without harm to the gateway.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from penstock.engine.tether import die_with


class Bootstrap(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is told. ``context`` is tokens per slot; ``threads`` 0 means every usable CPU."""

    model: str
    socket: str
    key: str
    parent: int
    slots: int
    context: int
    batch: int
    threads: int = 0


class Ready(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the child says: listening after ``load_s`` seconds, or ``error`` in one line and exit status 1."""

    load_s: float = 0.0
    error: str | None = None


def main() -> None:
    """Run the child. Never returns."""
    # Signals sent to the whole group are for the supervisor: open answers drain before it closes our lifeline.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Native code may print to descriptor 1, which carries our one line: keep a private copy, send the rest to stderr.
    answer = os.dup(1)
    os.dup2(2, 1)
    line = sys.stdin.buffer.readline()
    if not line:
        os._exit(0)
    try:
        boot = msgspec.json.decode(line, type=Bootstrap)
    except msgspec.DecodeError as error:
        _say(answer, Ready(error=f"bad bootstrap: {error}"))
        os._exit(1)
    # Loading holds the GIL, so the end of stdin would be seen too late then.
    die_with(boot.parent)
    started = time.monotonic()
    try:
        _server = _load(boot)  # serves as long as it is held; its destructor may wait for ever
    except Exception as error:  # noqa: BLE001 - whatever the native engine raises becomes one line for the operator
        _say(answer, Ready(error=_one_line(error)))
        os._exit(1)
    Path(boot.socket).chmod(0o600)
    _say(answer, Ready(load_s=round(time.monotonic() - started, 3)))
    while os.read(0, 4096):
        pass
    # A regular exit with a request in flight aborts in native code (rc 134), so leave without destructors.
    with contextlib.suppress(OSError):
        Path(boot.socket).unlink()
    os._exit(0)


def _load(boot: Bootstrap) -> Any:
    import xllamacpp  # noqa: PLC0415 - tens of milliseconds, and a bad bootstrap needs none of it

    if not Path(boot.model).is_file():
        raise FileNotFoundError(f"no weights at {boot.model}")
    # The listener fails on a socket file that an earlier child left behind.
    Path(boot.socket).unlink(missing_ok=True)
    params = xllamacpp.CommonParams()
    params.model.path = boot.model
    params.n_parallel = boot.slots
    params.n_ctx = boot.slots * boot.context
    params.kv_unified = False
    params.n_batch = params.n_ubatch = boot.batch
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = boot.threads or len(os.sched_getaffinity(0))
    params.ctx_shift = False  # a full context ends the answer with "length"; nothing is dropped from its start
    params.fit_params = False  # never shrink the context to the memory at hand behind the operator's back
    params.cache_ram_mib = 0  # the default keeps up to 8 GiB of old prompts outside the slots (2026.10.11549)
    params.prefill_assistant = False  # a trailing assistant message is history, not a text to be continued
    params.hostnames = [boot.socket]
    params.api_keys = [boot.key]
    params.cors_origins = ""
    params.ui = False
    params.endpoint_slots = True
    params.verbosity = -1
    return xllamacpp.Server(params)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"the weights could not be loaded: {text[:500]}"


def _say(descriptor: int, ready: Ready) -> None:
    os.write(descriptor, msgspec.json.encode(ready) + b"\n")


if __name__ == "__main__":
    main()
