"""Where a provider's secret is: in the environment, in a file, sealed in the store, or with the vendor's own tools."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from penstock.providers.profiles import built_in_providers
from penstock.providers.spec import Credential
from penstock.settings.tree import ProviderRow

# Gives the secret that is sealed in the store for a provider, by the provider's name; None when there is none.
Stored = Callable[[str], str | None]

_SOURCES = ("api_key_env", "api_key_file", "api_key_stored", "aws_profile")
# The names of AWS's own tools (2026-11-23).
_AWS_BEARER = "AWS_BEARER_TOKEN_BEDROCK"
_AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_MAX_BYTES = 64 * 1024


class CatalogueError(Exception):
    """The configured catalogue contradicts itself; the message is one line that names the row and the remedy. ``at`` is
    the place in the settings tree: ``("provider", 0, "base_url")``."""

    def __init__(self, said: str, *at: str | int) -> None:
        super().__init__(said)
        self.at = at


@contextmanager
def in_row(section: str, index: int) -> Iterator[None]:
    """What contradicts itself in here is in that row."""
    try:
        yield
    except CatalogueError as error:
        error.at = (section, index, *error.at)
        raise


class Found(NamedTuple):
    """A credential, or what has to be set for it. ``source`` says where it is looked for, never what it is."""

    source: str
    credential: Credential | None = None
    missing: str | None = None


def nothing_stored(name: str) -> str | None:
    """The store of an installation that keeps no provider's secret."""
    del name
    return None


def stored_by(name: str) -> str:
    """What puts the secret of a provider into the store."""
    return f"its key by penstock credentials:set {name} (no restart needed)"


def find_credential(
    row: ProviderRow, kind: str, names: tuple[str, ...], *, environ: Mapping[str, str], stored: Stored
) -> Found:
    """The secret of one provider; ``names`` are the variables that count when the row names no source. Raises
    CatalogueError for two sources or a file that cannot be read; a secret that is not there is only missing."""
    given = [name for name in _SOURCES if getattr(row, name)]
    if len(given) > 1:
        raise CatalogueError(f"[[provider]] '{row.name}': {' and '.join(given)} are both set; keep one", given[1])
    if row.aws_profile is not None:
        if kind != "bedrock":
            raise CatalogueError(f"[[provider]] '{row.name}': aws_profile is for the kind bedrock", "aws_profile")
        return Found(f"AWS profile {row.aws_profile}")
    if row.api_key_file is not None:
        return Found(f"file {row.api_key_file}", Credential(secret=_read_file(row.name, row.api_key_file)))
    if row.api_key_stored:
        secret = stored(row.name)
        missing = None if secret else stored_by(row.name)
        return Found("store", Credential(secret=secret) if secret else None, missing)
    if row.api_key_env is not None:
        return _from_environ((row.api_key_env,), environ)
    if kind == "bedrock":
        return _from_aws(environ)
    return _from_environ(names, environ) if names else Found("none needed")


def secret_variables(rows: Iterable[ProviderRow]) -> frozenset[str]:
    """The environment variables that may hold a provider's secret: no child process is handed them."""
    named = {row.api_key_env for row in rows if row.api_key_env}
    known = {name for profile in built_in_providers().values() for name in profile.api_key_env}
    return frozenset({*named, *known, *_AWS_KEYS, _AWS_BEARER})


def loose_file(path: str) -> str | None:
    """What is wrong with the mode of a key file that can be used all the same; None when nothing is."""
    mode = stat.S_IMODE(Path(path).stat().st_mode)
    return f"{path} can be read by others (mode {mode:04o}); chmod 600" if mode & 0o007 else None


def _from_environ(names: tuple[str, ...], environ: Mapping[str, str]) -> Found:
    found = next((name for name in names if environ.get(name, "").strip()), None)
    if found is None:
        return Found(f"env {' or '.join(names)}", missing=names[0])
    return Found(f"env {found}", Credential(secret=environ[found].strip()))


def _from_aws(environ: Mapping[str, str]) -> Found:
    if token := environ.get(_AWS_BEARER):
        return Found(f"env {_AWS_BEARER}", Credential(secret=token))
    key_id, secret, session = (environ.get(name) or None for name in _AWS_KEYS)
    both = " and ".join(_AWS_KEYS[:2])
    if key_id is None or secret is None:
        return Found(f"env {both}", missing=f"{both}, or {_AWS_BEARER}")
    return Found(f"env {both}", Credential(secret=secret, access_key_id=key_id, session_token=session))


def _read_file(name: str, path: str) -> str:
    where = f"[[provider]] '{name}': api_key_file {path}"
    try:
        with Path(path).open(encoding="utf-8") as file:
            # Whoever may write it could put in a key of theirs and be sent what our clients say.
            if os.fstat(file.fileno()).st_mode & 0o022:
                raise CatalogueError(f"{where} can be written by others; chmod 600", "api_key_file")
            secret = file.read(_MAX_BYTES).strip()
    except OSError as error:
        raise CatalogueError(f"{where} cannot be read: {error.strerror}", "api_key_file") from error
    except ValueError:  # of the bytes, or a NUL in the path
        raise CatalogueError(f"{where} is not text", "api_key_file") from None
    if not secret or not secret.isprintable():
        raise CatalogueError(f"{where} must hold the key on one line", "api_key_file")
    return secret
