"""``penstock serve``: the supervisor of gateway workers, the control plane and the embedded engine."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from penstock.app.banner import Hello, print_banner
from penstock.app.boot import Boot, Serving
from penstock.app.engines import Engines
from penstock.app.home import Home, HomeError
from penstock.app.listeners import PortError, bind, url_of
from penstock.app.logs import set_up_logging
from penstock.app.nursery.forks import Template
from penstock.app.nursery.processes import ChildFailed, ChildProcess
from penstock.app.nursery.title import set_title
from penstock.app.serving.plan import plan, serving
from penstock.app.serving.reload import Reloader
from penstock.domain.catalogue import Catalogue
from penstock.engine.drivers import EngineFailed
from penstock.engine.weights import WeightsError
from penstock.ledger.journal import JournalError
from penstock.providers.catalogue import CatalogueError
from penstock.settings.load import SettingsError, config_file, load_settings, located
from penstock.settings.tree import SecretsSettings, Settings
from penstock.store.errors import StoreError

_log = logging.getLogger("penstock.app")
_MARGIN_S = 3.0
_CONTROL = "control plane"
_LEDGER = "ledger"
_STARTUP_ERRORS = (
    SettingsError,
    HomeError,
    PortError,
    StoreError,
    WeightsError,
    EngineFailed,
    ChildFailed,
    JournalError,
)


def run(flags: Mapping[str, Any], config: Path | None = None) -> int:
    """Serve until SIGTERM or ctrl-C; the exit status. A start that fails prints one line and is status 1."""
    template = Template()
    try:
        set_title("supervisor")
        settings = load_settings(flags, config=config)
        set_up_logging(settings.log.level)
        reloader = Reloader(
            settings,
            load=lambda: load_settings(flags, config=config),
            file=lambda: config_file(flags, config=config),
        )
        return asyncio.run(Supervisor(settings, reloader, template).run())
    except CatalogueError as error:
        print(f"penstock: {located(str(error), error.at, config_file(flags, config=config))}", file=sys.stderr)
        return 1
    except _STARTUP_ERRORS as error:
        print(f"penstock: {error}", file=sys.stderr)
        return 1
    finally:
        template.close()


class Supervisor:
    """Owns the sockets and the children of one home."""

    def __init__(self, settings: Settings, reloader: Reloader, template: Template) -> None:
        self._settings = settings
        self._reloader = reloader
        self._template = template
        self._home = Home(settings.home)
        self._engines = Engines(settings)
        self._children: list[ChildProcess] = []
        self._listeners: list[socket.socket] = []
        self._serves = False
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Start everything, serve, drain. Raises one of the start-up errors."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reloader.ask)
        self._home.prepare()
        self._home.lock()
        try:
            starting = asyncio.create_task(self._start())
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                self._engines.abort()
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
            else:
                await starting
                reloading = asyncio.create_task(self._reloader.run(self._tell))
                await stopping
                reloading.cancel()
                await asyncio.gather(reloading, return_exceptions=True)
        finally:
            await self._drain()
            # Once drained, a second signal changes nothing, also after the loop has given up its handlers.
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        return 0

    async def _start(self) -> None:
        settings = self._settings
        # A contradiction in the operator's rows is told before anything is fetched or started.
        plan(settings)
        gateway = self._bind(settings.gateway.host, settings.gateway.port, what="gateway")
        control = self._bind(settings.control.host, settings.control.port, what="control")
        boot = Boot(
            role="gateway",
            # The data plane finds keys by their hash: it does without the master key.
            settings=msgspec.structs.replace(settings, secrets=SecretsSettings()),
            listener=gateway.fileno(),
            gateway_url=settings.gateway.public_url or url_of(gateway),
            control_url=url_of(control),
            engines=await self._engines.prepare(),
        )
        served = plan(settings, boot.engines)
        boot = msgspec.structs.replace(boot, serving=serving(settings, served))
        self._reloader.begin(served, boot.engines)
        # The engine loads while the store is prepared and the wings start: each takes about a second.
        async with _together() as group:
            group.create_task(self._engines.start())
            wings = group.create_task(self._start_wings(boot, control))
        self._announce(boot, served.catalogue, wings.result())

    async def _start_wings(self, boot: Boot, control: socket.socket) -> Hello | None:
        plain = msgspec.structs.replace(boot, serving=_without_upstreams(boot.serving))
        ledger_boot = msgspec.structs.replace(plain, role="ledger")
        control_boot = msgspec.structs.replace(
            plain, role="control", settings=self._settings, listener=control.fileno()
        )
        store_boot = msgspec.structs.replace(control_boot, role="store")
        count = self._settings.gateway.workers
        self._children = [
            *(self._child(boot, f"gateway worker {number}") for number in range(1, count + 1)),
            self._child(control_boot, _CONTROL),
            self._child(ledger_boot, _LEDGER),
        ]
        async with _together() as group:
            # All import while the store is prepared; the workers come last, for the template imports what they need.
            hello = group.create_task(self._child(store_boot, "store").run())
            for child in reversed(self._children):
                group.create_task(child.start(hello))
        return hello.result()

    def _child(self, boot: Boot, name: str) -> ChildProcess:
        return ChildProcess(boot, name=name, template=self._template)

    def _bind(self, host: str, port: int, *, what: str) -> socket.socket:
        listener = bind(host, port, what=what)
        self._listeners.append(listener)
        return listener

    async def _tell(self, new: Serving) -> list[str]:
        """Hand a new configuration to every child; what those say that cannot apply it."""
        plain = _without_upstreams(new)
        told = [child.tell(plain if child.name in (_CONTROL, _LEDGER) else new) for child in self._children]
        said = zip(self._children, await asyncio.gather(*told), strict=True)
        return [f"{child.name}: {refusal}" for child, refusal in said if refusal]

    def _announce(self, boot: Boot, catalogue: Catalogue, hello: Hello | None) -> None:
        self._serves = True
        gateway_url = url_of(self._listeners[0])
        ready = {
            "gateway": gateway_url,
            "control": boot.control_url,
            "inference_url": boot.gateway_url,
            "pid": os.getpid(),
            "models": [model.id for model in catalogue.served],
        }
        self._home.announce(ready, self._settings.serve.ready_file)
        print_banner(catalogue, boot, gateway_url=gateway_url, hello=hello)

    async def _drain(self) -> None:
        bound_s = self._settings.serve.drain_s
        self._home.withdraw(self._settings.serve.ready_file)
        for listener in self._listeners:
            listener.close()
        if self._serves:
            with contextlib.suppress(OSError):
                print(f"penstock: stopping; open answers may take up to {bound_s:.0f} s", file=sys.stderr)
        ends: list[BaseException | None] = []
        # The ledger last: then it has all that the workers wrote.
        for last in (False, True):
            drains = (child.drain(bound_s + _MARGIN_S) for child in self._children if (child.name == _LEDGER) is last)
            ends += await asyncio.gather(*drains, return_exceptions=True)
        ends += await asyncio.gather(self._engines.stop(), return_exceptions=True)
        for failure in filter(None, ends):
            _log.error("stopping: %s: %s", type(failure).__name__, failure)


def _without_upstreams(new: Serving) -> Serving:
    """For the control plane, which calls nobody and must hold no provider's secret."""
    return msgspec.structs.replace(new, upstreams=())


@contextlib.asynccontextmanager
async def _together() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose first failure is raised bare, after the other tasks have been cancelled and have ended."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
