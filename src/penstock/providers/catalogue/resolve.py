"""The providers: the operator's rows over the built-in ones, each with its secret found, or with what is missing."""

import os
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import msgspec

from penstock.providers.catalogue.credentials import (
    CatalogueError,
    Found,
    Stored,
    find_credential,
    in_row,
    nothing_stored,
)
from penstock.providers.profiles import BuiltInProvider, built_in_providers
from penstock.providers.registry import KINDS
from penstock.providers.spec import Credential, ProviderSpec, Quirks
from penstock.providers.transport import TransportLimits
from penstock.settings.tree import ProviderRow, Settings, UpstreamSettings

__all__ = ["CatalogueError", "Provider", "limits_of", "resolve_providers", "shown"]

# No user information, query or fragment: the path of a call is put behind it.
_BASE_URL = re.compile(r"https?://[^\s/?#@\\]+(/[^\s?#\\]*)?", re.IGNORECASE)
_SHOWN = 80
# As AWS's own tools read it.
_REGION_ENV = ("AWS_REGION", "AWS_DEFAULT_REGION")
_REGION = re.compile(r"[a-z0-9-]{1,32}")
_ENDPOINT_ENV = "AZURE_OPENAI_ENDPOINT"
# RFC 9110 5.1 and 5.5; the transport sets those of the framing itself.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OWN_HEADERS = ("host", "content-length", "transfer-encoding", "connection", "accept-encoding")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """One provider as this installation can use it.

    ``source`` says where its secret is looked for; ``missing`` is what has to be set before it can be called, None when
    nothing is. ``profile`` is the built-in provider it rests on.
    """

    spec: ProviderSpec
    source: str
    credential: Credential | None = None
    missing: str | None = None
    profile: str | None = None
    built_in: bool = False


def resolve_providers(
    settings: Settings, environ: Mapping[str, str] | None = None, *, stored: Stored = nothing_stored
) -> dict[str, Provider]:
    """Every provider that a target may name: the rows, then the built-in ones. Raises CatalogueError."""
    environ = os.environ if environ is None else environ
    found: dict[str, Provider] = {}
    for index, row in enumerate(settings.provider):
        with in_row("provider", index):
            _check(row, [*found])
            found[row.name] = _resolved(row, settings.upstream, environ, stored=stored)
    for name in built_in_providers():
        if name not in found:
            own = _resolved(ProviderRow(name=name), settings.upstream, environ, stored=stored)
            found[name] = msgspec.structs.replace(own, built_in=True)
    return found


def limits_of(upstream: UpstreamSettings, row: ProviderRow | None = None) -> TransportLimits:
    """The bounds on calls: a provider's own where it has them, else those of all."""
    names = [field.name for field in msgspec.structs.fields(TransportLimits)]
    own = {name: value for name in names if (value := getattr(row, name, None)) is not None}
    return TransportLimits(**{name: getattr(upstream, name) for name in names if hasattr(upstream, name)} | own)


def shown(text: str) -> str:
    """A name of the file as a message quotes it."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def _check(row: ProviderRow, taken: Sequence[str]) -> None:
    if not row.name.strip() or not row.name.isprintable():
        raise CatalogueError(f"[[provider]] {shown(row.name)}: bad name; use a word of your own", "name")
    where = f"[[provider]] '{row.name}'"
    if row.name in taken:
        rows = f"{taken.index(row.name) + 1} and {len(taken) + 1}"
        raise CatalogueError(f"{where}: the name is used twice, by the rows {rows}; give each its own", "name")
    if row.api_key_env is not None and not _is_env_name(row.api_key_env):
        # Nor is this repeated: it may be the key itself, and clients are told what is not set.
        raise CatalogueError(
            f"{where}: api_key_env must be the name of an environment variable such as LAB_API_KEY, not the key",
            "api_key_env",
        )
    if row.base_url is not None and not _is_base_url(row.base_url):
        # The address is not repeated: it may carry a password.
        raise CatalogueError(f"{where}: base_url must be http(s)://host[:port][/path]", "base_url")
    for name, value in row.headers.items():
        if _HEADER_NAME.fullmatch(name) is None or name.lower() in _OWN_HEADERS:
            raise CatalogueError(f"{where}: {shown(name)} is no header that a row can set", "headers")
        if _HEADER_VALUE.fullmatch(value) is None:
            raise CatalogueError(f"{where}: the header {shown(name)} holds a line break or no Latin-1", "headers")
    if row.kind is not None and row.kind not in KINDS:
        raise CatalogueError(f"{where}: unknown kind {shown(row.kind)} (known: {', '.join(sorted(KINDS))})", "kind")
    if row.profile is not None and row.profile not in built_in_providers():
        known = ", ".join(sorted(built_in_providers()))
        raise CatalogueError(f"{where}: unknown profile {shown(row.profile)} (known: {known})", "profile")


def _resolved(row: ProviderRow, upstream: UpstreamSettings, environ: Mapping[str, str], *, stored: Stored) -> Provider:
    profile = _profile_of(row)
    kind = row.kind or (profile.kind if profile else "openai")
    region = _region(row, environ) if kind == "bedrock" else row.region
    names = profile.api_key_env if profile else ()
    found = find_credential(row, kind, names, environ=environ, stored=stored)
    if found.credential is not None and not found.credential.fits_headers():
        found = Found(found.source, missing=f"{found.source}: the key that is there has characters that no key has")
    base_url = _base_url(row, kind, profile, region=region, environ=environ)
    if base_url is None:
        if kind != "azure":
            raise CatalogueError(f"[[provider]] '{row.name}': base_url is missing")
        found = Found(found.source, missing=" and ".join(filter(None, (_ENDPOINT_ENV, found.missing))))
    spec = ProviderSpec(
        name=row.name,
        kind=kind,
        base_url=base_url or "",
        quirks=profile.quirks if profile else Quirks(),
        limits=limits_of(upstream, row),
        auth=row.auth,
        region=region,
        aws_profile=row.aws_profile,
        library_provider=row.library_provider,
        api_version=row.api_version,
        headers=tuple(row.headers.items()),
        proxy=row.proxy,
        ca_file=row.ca_file,
        max_concurrent=row.max_concurrent,
        max_queue=row.max_queue,
        queue_timeout_s=row.queue_timeout_s,
    )
    return Provider(
        spec=spec,
        source=found.source,
        credential=found.credential,
        missing=found.missing,
        profile=profile.name if profile else None,
    )


def _profile_of(row: ProviderRow) -> BuiltInProvider | None:
    """The built-in provider that a row rests on: the one that it names, that has its name, or that is all its kind."""
    profiles = built_in_providers()
    if row.profile is not None:
        profile = profiles[row.profile]
        if row.kind not in (None, profile.kind):
            raise CatalogueError(
                f"[[provider]] '{row.name}': the profile {profile.name} is of the kind {profile.kind}, not {row.kind}",
                "kind",
            )
        return profile
    own = profiles.get(row.name) or (profiles.get(row.kind) if row.kind and row.base_url is None else None)
    return own if own is not None and row.kind in (None, own.kind) else None


def _base_url(
    row: ProviderRow, kind: str, profile: BuiltInProvider | None, *, region: str | None, environ: Mapping[str, str]
) -> str | None:
    if row.base_url is not None:
        return row.base_url
    if kind == "azure":
        endpoint = environ.get(_ENDPOINT_ENV, "").strip()
        return endpoint if _is_base_url(endpoint) else None
    if profile is None or profile.base_url is None:
        return None
    return profile.base_url.replace("{region}", region or "")


def _region(row: ProviderRow, environ: Mapping[str, str]) -> str:
    region = row.region or next((environ[name] for name in _REGION_ENV if environ.get(name)), "us-east-1")
    if _REGION.fullmatch(region) is None:
        source = "region" if row.region else " or ".join(_REGION_ENV)
        raise CatalogueError(f"[[provider]] '{row.name}': {source} {shown(region)} is no AWS region", "region")
    return region


def _is_env_name(text: str) -> bool:
    """Whether this names a variable, and is no key by its look: keys are long, and of both cases or without words."""
    mixed = text not in (text.upper(), text.lower())
    is_key = len(text) >= 20 and (mixed or ("_" not in text and len(text) >= 32))
    return _ENV_NAME.fullmatch(text) is not None and not is_key


def _is_base_url(text: str) -> bool:
    if _BASE_URL.fullmatch(text) is None:
        return False
    try:
        url = urlsplit(text)
        return bool(url.hostname) and url.port != 0
    except ValueError:
        return False
