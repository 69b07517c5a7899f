"""The serve command: turns its options into settings and hands over to the supervisor."""

import os
from pathlib import Path
from typing import Any

import click

from penstock.settings.load import SECRET_SETTINGS, env_name, load_settings
from penstock.settings.tree import ControlSettings

_FLAGS = {
    "host": "gateway.host",
    "port": "gateway.port",
    "control_host": "control.host",
    "control_port": "control.port",
    "workers": "gateway.workers",
    "home": "home",
    "mode": "serve.mode",
    "drain": "serve.drain_s",
    "ready_file": "serve.ready_file",
}


@click.command("serve")
@click.option("--host", metavar="HOST", help="The gateway's address to listen on (default 127.0.0.1).")
@click.option("--port", metavar="PORT", help="The gateway's port (default 8400); 0 picks free ports for everything.")
@click.option("--control-host", metavar="HOST", help="The control plane's address to listen on (default 127.0.0.1).")
@click.option("--control-port", metavar="PORT", help="The control plane's port (default 8401); 0 picks a free one.")
@click.option("--workers", metavar="N", help="Gateway worker processes (default 1).")
@click.option("--home", metavar="DIR", help="The folder of database, journal, weights and tokens.")
@click.option("--mode", metavar="MODE", help="development (stand-ins) or production.")
@click.option("--drain", metavar="SECONDS", help="How long open answers may take after SIGTERM (default 30).")
@click.option("--ready-file", metavar="FILE", help="Also write the ready line (JSON) to this file.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The file instead of penstock.toml.")
@click.option("--set", "pairs", multiple=True, metavar="SECTION.KEY=VALUE", help="Any other setting; repeatable.")
def serve(config: Path | None, pairs: tuple[str, ...], **options: str | None) -> int:
    """Run the gateway, the control plane and the embedded model until SIGTERM or ctrl-C."""
    flags: dict[str, Any] = {_FLAGS[name]: item for name, item in options.items() if item is not None}
    flags |= parse_pairs(pairs)
    everything_free = flags.get("gateway.port") == "0" and "control.port" not in flags
    if everything_free and _control_port_is_default(flags, config):
        flags["control.port"] = "0"
    from penstock.app.serve import run  # noqa: PLC0415 - the whole server; options are checked before it loads

    return run(flags, config)


def parse_pairs(pairs: tuple[str, ...]) -> dict[str, str]:
    """``("engine.slots=8",)`` as ``{"engine.slots": "8"}``. Raises UsageError; a secret must not stand in argv."""
    flags: dict[str, str] = {}
    for pair in pairs:
        path, equals, item = pair.partition("=")
        path = path.strip()
        if not equals or not path:
            raise click.UsageError(f"--set {pair}: write section.key=value")
        if path in SECRET_SETTINGS or (path == "database.url" and ("@" in item or "password=" in item)):
            raise click.UsageError(f"--set {path}: a secret must not stand in argv; set {env_name(path)} instead")
        flags[path] = item
    return flags


def _control_port_is_default(flags: dict[str, Any], config: Path | None) -> bool:
    loaded = load_settings(flags, config=config)
    return not os.environ.get("PENSTOCK_CONTROL_PORT") and loaded.control.port == ControlSettings().port
