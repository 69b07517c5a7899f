"""Builds the catalogue: the operator's models, the embedded ones, and the built-in ids with their stand-ins."""

import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files

import msgspec

from penstock.domain.catalogue import Catalogue, Model, Target
from penstock.settings.tree import ModelRow, Settings

EMBEDDED_CAPABILITIES = ("chat", "streaming", "tools", "json_schema", "json_object", "logprobs", "seed")


class CatalogueError(Exception):
    """The configured catalogue contradicts itself; the message names the row and the remedy."""


class LocalModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the embedded engine: its id, the window of one slot in tokens, and its adapter's name."""

    id: str
    context_window: int
    provider: str


class _BuiltIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    owner: str
    aliases: tuple[str, ...] = ()
    regions: tuple[str, ...] = ("us", "eu")


class _BuiltInFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: tuple[_BuiltIn, ...]


def build_catalogue(settings: Settings, local: Iterable[LocalModel]) -> Catalogue:
    """The catalogue of this installation. Raises CatalogueError.

    An id of the operator's own replaces the built-in one. A built-in id has no provider of its own yet, so it is
    served by the embedded model as a labelled stand-in in development, and by nobody in production.
    """
    local = tuple(local)
    _check_rows(settings)
    own = [_own(row) for row in settings.model]
    embedded = [_embedded(model) for model in local]
    taken = {name for model in (*own, *embedded) for name in (model.id, *model.aliases)}
    stand_in = next((model for model in local if model.id == settings.engine.model), None)
    if settings.serve.mode == "production":
        stand_in = None
    built_in = [_built_in(row, stand_in) for row in _built_in_rows() if row.id not in taken]
    return Catalogue([*own, *embedded, *built_in])


def _built_in_rows() -> tuple[_BuiltIn, ...]:
    text = files("penstock.providers").joinpath("models.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _BuiltInFile).model


def _check_rows(settings: Settings) -> None:
    providers: Mapping[str, object] = {row.name: row for row in settings.provider}
    names: set[str] = set()
    for row in settings.model:
        for name in (row.id, *row.aliases):
            if name in names:
                raise CatalogueError(f"[[model]] '{row.id}': the name '{name}' is used twice")
            names.add(name)
        for target in row.targets:
            if target.provider not in providers:
                known = ", ".join(providers) or "none is configured"
                raise CatalogueError(f"[[model]] '{row.id}': unknown provider '{target.provider}' (known: {known})")


def _own(row: ModelRow) -> Model:
    return Model(
        id=row.id,
        owner=row.owner,
        aliases=row.aliases,
        context_window=row.context_window,
        max_output=row.max_output,
        capabilities=row.capabilities,
        targets=tuple(Target(provider=target.provider, model=target.model) for target in row.targets),
    )


def _embedded(local: LocalModel) -> Model:
    return Model(
        id=local.id,
        owner="penstock",
        context_window=local.context_window,
        max_output=local.context_window,
        capabilities=EMBEDDED_CAPABILITIES,
        targets=(Target(provider=local.provider, model=local.id),),
    )


def _built_in(row: _BuiltIn, stand_in: LocalModel | None) -> Model:
    if stand_in is None:
        return Model(id=row.id, owner=row.owner, aliases=row.aliases, regions=row.regions)
    return Model(
        id=row.id,
        owner=row.owner,
        aliases=row.aliases,
        regions=row.regions,
        context_window=stand_in.context_window,
        max_output=stand_in.context_window,
        capabilities=EMBEDDED_CAPABILITIES,
        targets=(Target(provider=stand_in.provider, model=stand_in.id),),
        stand_in=stand_in.id,
    )
