"""A real control plane alone: ``python -m tests.cli.control_process HOME GATEWAY_URL [MODE]``; says its port first."""

import asyncio
import socket
import sys
from pathlib import Path

from penstock.control import api, bootstrap
from penstock.control.context import ControlContext
from penstock.providers.catalogue import LocalModel, build_catalogue
from penstock.settings.load import load_settings
from penstock.store.database import Database
from penstock.web.api import refusal
from penstock.web.hub import HttpLimits
from penstock.web.server import Server


def main(home: Path, gateway_url: str, mode: str = "development") -> None:
    """Serve over SQLite in ``home`` until killed."""
    settings = load_settings({"home": str(home), "serve.mode": mode}, {})
    db = Database.open(home / "penstock.db", home=home)
    bootstrap.ensure_operator(db, home, settings.control.operator_email)
    local = LocalModel(id=settings.engine.model, context_window=2048, provider="embedded")
    context = ControlContext(gateway_url=gateway_url, catalogue=build_catalogue(settings, (local,)), version="test")
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(api.build(db, context), listener, limits=HttpLimits(), drain_s=1, refusal=refusal)
    asyncio.run(server.run(lambda: print(listener.getsockname()[1], flush=True)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
