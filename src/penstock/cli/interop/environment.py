"""What the real Heroku CLI has to find in its environment to talk with this installation and with nothing else."""

import json
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from penstock.cli.interop.authority import Authority
from penstock.cli.interop.proxy import Proxy
from penstock.cli.output import CliError
from penstock.cli.whereabouts import Whereabouts, is_loopback, ready_file
from penstock.settings.private import write_private

INFERENCE_HOSTS = ("us.inference.heroku.com", "eu.inference.heroku.com", "inference.heroku.com")
CLI_VAR = "PENSTOCK_HEROKU_CLI"
# Another proxy of the user's would win over ours for some of the CLI's libraries.
_UNWANTED = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "ALL_PROXY", "HEROKU_HEADERS")


def find_cli(given: str | None) -> str:
    """The real CLI's path: ``--cli`` or PENSTOCK_HEROKU_CLI, else ``heroku`` on PATH. Raises CliError."""
    wanted = given or "heroku"
    path = shutil.which(wanted)
    if path is None:
        raise CliError(
            f"The Heroku CLI ({wanted}) was not found. Install it with: npm install --global heroku\n"
            f"or say where it is: --cli PATH, or {CLI_VAR}."
        )
    return path


def proxy_of(where: Whereabouts) -> tuple[Proxy, Authority]:
    """A proxy to the gateway that belongs to the control plane, and the authority behind its certificates."""
    authority = Authority(folder(where))
    ready, gateway = ready_file(where.settings), where.settings.gateway
    if ready.get("control") != where.control:
        ready = {}
    listener = f"http://{gateway.host}:{gateway.port}"
    target = ready.get("gateway") or gateway.public_url or (listener if is_loopback(where.control) else None)
    # The plugin takes all that follows https:// in INFERENCE_URL for the name of a host (heroku-wire.md 4.6).
    urls = (target, gateway.public_url, ready.get("inference_url"))
    names = {url.rstrip("/").removeprefix("https://") for url in urls if url} | set(INFERENCE_HOSTS if target else ())
    return Proxy(target or listener, frozenset(names), authority), authority


def redirection(where: Whereabouts, proxy: str, certificate: Path) -> dict[str, str]:
    """The variables that lead the CLI here, all but those of ``credentials``."""
    return {
        "HEROKU_HOST": where.control if _is_known(where) else f"{where.control}/127.0.0.1",
        "HEROKU_LOGIN_HOST": where.control,
        "HEROKU_PARTICLEBOARD_URL": where.control,
        "HEROKU_INFERENCE_HOST": INFERENCE_HOSTS[0],
        "HEROKU_SKIP_NEW_VERSION_CHECK": "true",
        "HEROKU_DISABLE_AUTOUPDATE": "true",
        "DISABLE_TELEMETRY": "true",
        "HTTPS_PROXY": proxy,
        "NO_PROXY": urlsplit(where.control).hostname or "",
        "NODE_EXTRA_CA_CERTS": str(certificate),
        "SSL_CERT_FILE": str(certificate),
        "GIT_CONFIG_GLOBAL": str(_git_config(where)),
    }


def credentials(where: Whereabouts) -> dict[str, str]:
    """The variables that carry the token. Raises CliError where there is none."""
    if where.token is None:
        raise CliError(f"No token for {where.control}. Log in with: penstock auth:login")
    header = {"HEROKU_HEADERS": json.dumps({"authorization": f"Bearer {where.token.secret}"})}
    return {"HEROKU_API_KEY": where.token.secret} | ({} if _is_known(where) else header)


def child_environment(variables: dict[str, str]) -> dict[str, str]:
    """This process's environment with the variables, without other proxies and our own settings."""
    kept = {name: item for name, item in os.environ.items() if not name.startswith("PENSTOCK_")}
    return {name: item for name, item in kept.items() if name not in _UNWANTED} | variables


def folder(where: Whereabouts) -> Path:
    """PENSTOCK_HOME/interop."""
    return Path(where.settings.home) / "interop"


def proxy_file(where: Whereabouts) -> Path:
    """Where a running ``penstock heroku:proxy`` says its address."""
    return Path(where.settings.home) / "run" / "heroku-proxy.json"


def _is_known(where: Whereabouts) -> bool:
    # CLI 11.10.0 accepts a HEROKU_HOST that contains 127.0.0.1 anywhere; it sends its token to these two only.
    return urlsplit(where.control).hostname in ("127.0.0.1", "localhost")


def _git_config(where: Whereabouts) -> Path:
    """A global git configuration for the CLI to write its credential helper into; the user's own is included."""
    path = folder(where) / "gitconfig"
    if not path.exists():
        given = os.environ.get("GIT_CONFIG_GLOBAL")
        own = ["~/.config/git/config", "~/.gitconfig"] if given in (None, str(path)) else [given]
        write_private(path, "[include]\n" + "".join(f"\tpath = {name}\n" for name in own))
    return path
