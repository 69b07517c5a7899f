"""The built-in providers: what an operator need not write about a known server (providers.toml)."""

import tomllib
from functools import cache
from importlib.resources import files

import msgspec

from penstock.providers.spec import Quirks


class BuiltInProvider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A provider by the name that a row's ``profile`` (or its own name) gives.

    ``base_url`` is None where each operator has an address of their own, and ``{region}`` in it stands for the row's
    region; ``api_key_env`` are the variables that may hold the key, the first that is set counts, none: it needs none.
    """

    name: str
    kind: str
    docs_url: str
    base_url: str | None = None
    api_key_env: tuple[str, ...] = ()
    quirks: Quirks = Quirks()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    provider: tuple[BuiltInProvider, ...]


@cache
def built_in_providers() -> dict[str, BuiltInProvider]:
    """The built-in providers by name, in the file's order."""
    text = files("penstock.providers").joinpath("providers.toml").read_text(encoding="utf-8")
    return {row.name: row for row in msgspec.convert(tomllib.loads(text), _File).provider}
