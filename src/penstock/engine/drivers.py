"""Drivers of the embedded engine: which module runs as the child, and the bootstrap line that it takes.

A driver's child speaks the listener's dialect that providers/embedded calls. A further driver is a further row here.
"""

import importlib.util
import os
from typing import NamedTuple

import msgspec

from penstock.engine.bootstrap import Bootstrap


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
    batch: int = 128
    threads: int = 0


class Driver(NamedTuple):
    """A child module, the package that it needs, and the extra of Penstock that brings it (None: always there)."""

    name: str
    module: str
    package: str
    extra: str | None = None

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return importlib.util.find_spec(self.package) is not None

    def bootstrap(self, spec: EngineSpec) -> bytes:
        """The line that the child takes, without the newline."""
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


LLAMACPP = Driver("llamacpp", "penstock.engine.child", "xllamacpp")
OPENVINO = Driver("openvino", "penstock.engine.openvino.child", "openvino_genai", "openvino")
DRIVERS = {driver.name: driver for driver in (LLAMACPP, OPENVINO)}


class EngineFailed(Exception):
    """The engine could not be started; the message is one line for the operator."""


def chosen(name: str) -> Driver:
    """The driver of that name; ``auto`` is always llamacpp (docs/engine.md says why).

    Raises EngineFailed when its package is not installed.
    """
    driver = LLAMACPP if name == "auto" else DRIVERS[name]
    if not driver.installed:
        extra = f": install penstock[{driver.extra}]" if driver.extra else ""
        raise EngineFailed(f"engine.driver is '{name}', yet the package {driver.package} is not installed{extra}")
    return driver
