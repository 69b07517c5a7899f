"""Finds the running server: the control plane's address and the token, in the documented order."""

import ipaddress
import json
import os
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from penstock.cli.output import CliError
from penstock.settings.load import load_settings
from penstock.settings.private import write_private
from penstock.settings.tree import ControlSettings, Settings

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104 - what a listener may be bound to

# Where a token of save_login comes from.
SAVED_LOGIN = "the saved login"


class Token(NamedTuple):
    """A bearer token and where it came from, for messages. Never printed but by auth:token."""

    secret: str
    source: str


class Whereabouts(NamedTuple):
    """Where the control plane is, and the token for it: None when there is none for this address. ``guessed`` where
    nothing names the address."""

    control: str
    token: Token | None
    settings: Settings
    guessed: bool


def find(control_url: str | None = None) -> Whereabouts:
    """Address: flag, PENSTOCK_CONTROL_URL or the file, the running server's ready file, the last saved login, the
    server's host and port.

    Token: PENSTOCK_CONTROL_TOKEN or the file, HEROKU_API_KEY, the saved login for the address, the local operator's.
    """
    settings = load_settings()
    ready = ready_file(settings)
    known = control_url or settings.control.url or ready.get("control") or _last_login(settings)
    control = (known or _own(settings.control)).rstrip("/")
    if urlsplit(control).scheme not in ("http", "https") or not urlsplit(control).hostname:
        raise CliError(f"The control plane's address {control} is not an http:// or https:// URL.", exit_code=2)
    return Whereabouts(control, _token(settings, control, ready), settings, guessed=not known)


def _is_here(control: str, ready: dict[str, Any]) -> bool:
    return is_loopback(control) or control == str(ready.get("control", "")).rstrip("/")


def _own(listener: ControlSettings) -> str:
    return f"http://{_ANY_ADDRESS.get(listener.host, listener.host)}:{listener.port}"


def is_loopback(url: str) -> bool:
    """Whether the address is this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def save_login(settings: Settings, control: str, secret: str | None) -> None:
    """Remember the token for one control plane in HOME/tokens/logins.json (0600); None forgets it."""
    path = _logins_path(settings)
    logins = _read_object(path)
    logins.pop(control, None)
    if secret is not None:
        logins[control] = secret
    write_private(path, json.dumps(logins))


def _last_login(settings: Settings) -> str | None:
    return next(reversed(_read_object(_logins_path(settings))), None)


def _token(settings: Settings, control: str, ready: dict[str, Any]) -> Token | None:
    if settings.control.token:
        return Token(settings.control.token, "PENSTOCK_CONTROL_TOKEN")
    if key := os.environ.get("HEROKU_API_KEY"):
        return Token(key, "HEROKU_API_KEY")
    if saved := _read_object(_logins_path(settings)).get(control):
        return Token(str(saved), SAVED_LOGIN)
    path = Path(settings.home) / "tokens" / "operator"
    # The operator's token opens everything here: it goes to this machine or to the server that wrote it, nowhere else.
    if not _is_here(control, ready):
        return None
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CliError(f"The operator token {path} cannot be read: {error.strerror}.") from error
    return Token(secret, str(path)) if secret else None


def ready_file(settings: Settings) -> dict[str, Any]:
    """The running server's ready file (HOME/run/ready.json); empty when none runs."""
    return _read_object(Path(settings.home) / "run" / "ready.json")


def _logins_path(settings: Settings) -> Path:
    return Path(settings.home) / "tokens" / "logins.json"


def _read_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
