"""The child of the driver ``llamacpp``: loads one model and serves it on a Unix socket until its parent is gone."""

import contextlib
import os
from pathlib import Path
from typing import Any

from penstock.engine.bootstrap import Birth, Bootstrap


def main() -> None:
    """Run the child. Never returns."""
    birth = Birth()
    _server = birth.load(_load)  # serves as long as it is held; its destructor may wait for ever
    birth.listens()
    while os.read(0, 4096):
        pass
    # A regular exit with a request in flight aborts in native code (rc 134), so leave without destructors.
    with contextlib.suppress(OSError):
        Path(birth.boot.socket).unlink()
    os._exit(0)


def _load(boot: Bootstrap) -> Any:
    import xllamacpp  # noqa: PLC0415 - tens of milliseconds, and a bad bootstrap needs none of it

    params = xllamacpp.CommonParams()
    params.model.path = boot.model
    params.n_parallel = boot.slots
    params.n_ctx = boot.slots * boot.context
    params.kv_unified = False
    params.n_batch = params.n_ubatch = boot.batch
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = boot.thread_count
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


if __name__ == "__main__":
    main()
