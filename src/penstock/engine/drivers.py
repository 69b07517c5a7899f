"""Drivers of the embedded engine: which module runs as the child, and the bootstrap line that it takes.

A driver's child speaks the listener's dialect that providers/embedded calls. A second driver is a second row here.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from penstock.engine.child import Bootstrap


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One engine to run: the weights' path, where it listens, its key and its size.

    ``context`` is tokens per slot; the child reserves ``slots`` times that. ``threads`` 0 means every usable CPU.
    """

    model_id: str
    model_path: str
    socket_path: str
    key: str
    slots: int = 4
    context: int = 8192
    batch: int = 256
    threads: int = 0


class Driver(NamedTuple):
    """A child module and how a spec becomes its bootstrap line (without the newline)."""

    name: str
    module: str
    bootstrap: Callable[[EngineSpec], bytes]


def _native_bootstrap(spec: EngineSpec) -> bytes:
    boot = Bootstrap(
        model=spec.model_path,
        socket=spec.socket_path,
        key=spec.key,
        parent=os.getpid(),
        slots=spec.slots,
        context=spec.context,
        batch=spec.batch,
        threads=spec.threads,
    )
    return msgspec.json.encode(boot)


NATIVE = Driver("native", "penstock.engine.child", _native_bootstrap)
