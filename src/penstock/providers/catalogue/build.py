"""Builds the catalogue: the operator's models, the embedded ones, and the built-in ids with their stand-ins."""

import re
import tomllib
from collections.abc import Container, Iterable, Mapping
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from penstock.domain.catalogue import Catalogue, Model, Rate, Routing, Target, Timeouts
from penstock.domain.limits import Limits
from penstock.domain.money import rate_number
from penstock.domain.platform import STANDARD_PLAN
from penstock.providers.catalogue.credentials import in_row
from penstock.providers.catalogue.prices import Prices
from penstock.providers.catalogue.resolve import CatalogueError, Provider, resolve_providers, shown
from penstock.providers.spec import ProviderSpec
from penstock.settings.tree import ModelRow, Settings

EMBEDDED_CAPABILITIES = ("chat", "streaming", "tools", "json_schema", "json_object", "logprobs", "seed")
_MODEL_ID = re.compile(r"[A-Za-z0-9@][A-Za-z0-9._:/@+-]{0,127}")
# The inference profiles of AWS by the region they are called from (2026-11-23): {geo} of models that have a global one,
# {area} of the older ones, which have none.
_GEO = (("us-gov-", "us-gov"), ("us-", "us"), ("eu-", "eu"), ("", "global"))
_AREA = (("us-gov-", "us-gov"), ("eu-", "eu"), ("ap-", "apac"), ("", "us"))


class LocalModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the embedded engine: its id, the window of one slot in tokens, and its adapter's name."""

    id: str
    context_window: int
    provider: str


class _BuiltInTarget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    provider: str
    model: str
    context_window: int | None = None


class _BuiltIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    owner: str
    targets: tuple[_BuiltInTarget, ...]
    aliases: tuple[str, ...] = ()
    regions: tuple[str, ...] = ("us", "eu")
    input: tuple[str, ...] = ("text",)
    capabilities: tuple[str, ...] = ("chat", "streaming", "tools")
    max_output: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class _BuiltInFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: tuple[_BuiltIn, ...]


def build_catalogue(
    settings: Settings, local: Iterable[LocalModel], providers: Mapping[str, Provider] | None = None
) -> Catalogue:
    """The catalogue of this installation. Raises CatalogueError.

    An id of the operator's own replaces the built-in one. A target whose provider lacks its credential is left out; a
    built-in id without any target is served by the embedded model as a labelled stand-in in development, and by nobody
    in production.
    """
    providers = resolve_providers(settings) if providers is None else providers
    local = tuple(local)
    _check_rows(settings, providers)
    production = settings.serve.mode == "production"
    stand_in = next((model for model in local if model.id == settings.engine.model and not production), None)
    maker = _Maker(providers, stand_in)
    own = []
    for index, row in enumerate(settings.model):
        with in_row("model", index):
            own.append(maker.own(row))
    embedded = [_embedded(model) for model in local]
    taken = {name for model in (*own, *embedded) for name in (model.id, *model.aliases)}
    built_in = [maker.built_in(row, taken) for row in _built_in_rows() if row.id not in taken]
    return Catalogue([*own, *embedded, *built_in], default=settings.engine.model if local else None)


def specs(settings: Settings) -> tuple[ProviderSpec, ...]:
    """The providers of this installation's rows, resolved."""
    found = resolve_providers(settings)
    return tuple(found[row.name].spec for row in settings.provider)


def replaced_ids(row: ModelRow) -> list[str]:
    """The names of a row by which a built-in model was known."""
    known = {name for built_in in _built_in_rows() for name in (built_in.id, *built_in.aliases)}
    return [name for name in (row.id, *row.aliases) if name in known]


@cache
def _built_in_rows() -> tuple[_BuiltIn, ...]:
    text = files("penstock.providers.catalogue").joinpath("models.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _BuiltInFile).model


class _Maker:
    """Makes models of rows, with what is known of their targets."""

    def __init__(self, providers: Mapping[str, Provider], stand_in: LocalModel | None) -> None:
        self._providers = providers
        self._stand_in = stand_in
        self._prices = Prices()

    def own(self, row: ModelRow) -> Model:
        """A model of the operator's own."""
        rate = _rate(row)
        wanted = [(t.provider, t.model, t.weight, t.context_window or row.context_window) for t in row.targets]
        targets = self._targets(wanted)
        timeouts = Timeouts(
            first_token_s=row.first_token_timeout_s, idle_s=row.idle_timeout_s, total_s=row.total_timeout_s
        )
        model = Model(
            id=row.id,
            owner=row.owner,
            aliases=row.aliases,
            input=row.input,
            context_window=row.context_window,
            max_output=row.max_output,
            capabilities=row.capabilities,
            routing=Routing(
                strategy=row.strategy,
                max_attempts=row.max_attempts,
                hedge=row.hedge,
                hedge_share=row.hedge_share,
                timeouts=timeouts,
            ),
            rate=rate,
        )
        if not targets:
            model = self._without(model, [t.provider for t in row.targets])
            return self._stood_in(model) if row.stand_in else model
        return _served(model, targets)

    def built_in(self, row: _BuiltIn, taken: Container[str]) -> Model:
        """A built-in id, served by the real thing where a credential for it stands in the environment."""
        aliases = tuple(name for name in row.aliases if name not in taken)
        wanted = [(t.provider, self._profiled(t.provider, t.model), 1, t.context_window) for t in row.targets]
        targets = self._targets(wanted)
        limits = Limits(requests_per_minute=row.requests_per_minute, tokens_per_minute=row.tokens_per_minute)
        model = Model(id=row.id, owner=row.owner, aliases=aliases, regions=row.regions, plan_limits=limits)
        if not targets:
            return self._stood_in(self._without(model, [t.provider for t in row.targets]))
        real: dict[str, Any] = {name: getattr(row, name) for name in ("input", "capabilities", "max_output")}
        return _served(msgspec.structs.replace(model, **real), targets)

    def _targets(self, wanted: Iterable[tuple[str, str, int, int | None]]) -> tuple[Target, ...]:
        made = []
        for name, model, weight, window in wanted:
            provider = self._providers[name]
            if provider.missing is not None:
                continue
            known = self._prices.of(provider, model)
            made.append(
                Target(
                    provider=name,
                    model=model,
                    weight=weight,
                    context_window=window or known.context_window,
                    rate=known.rate,
                )
            )
        return tuple(made)

    def _without(self, model: Model, names: Iterable[str]) -> Model:
        """The model that nobody serves, with what to set for any of the providers to be called: ``A, or B and C``."""
        wanted = [provider for name in names if (provider := self._providers[name]).missing]
        missing = ", or ".join(dict.fromkeys(provider.missing or "" for provider in wanted))
        at_once = all(provider.source == "store" for provider in wanted)
        remedy = f"Set {missing}{'' if at_once else ', then restart'}."
        return msgspec.structs.replace(model, credential_env=missing or None, remedy=remedy if missing else None)

    def _profiled(self, provider: str, model: str) -> str:
        region = self._providers[provider].spec.region or ""
        for mark, areas in (("{geo}", _GEO), ("{area}", _AREA)):
            model = model.replace(mark, next(area for prefix, area in areas if region.startswith(prefix)))
        return model

    def _stood_in(self, model: Model) -> Model:
        stand_in = self._stand_in
        if stand_in is None:
            return model
        return msgspec.structs.replace(
            model,
            input=("text",),
            context_window=stand_in.context_window,
            max_output=stand_in.context_window,
            capabilities=EMBEDDED_CAPABILITIES,
            targets=(Target(provider=stand_in.provider, model=stand_in.id),),
            stand_in=stand_in.id,
        )


def _served(model: Model, targets: tuple[Target, ...]) -> Model:
    """The model with its targets: the widest window of them, and the price of the first that is known."""
    windows = [target.context_window for target in targets]
    window = model.context_window
    if window is None and None not in windows:
        window = max(filter(None, windows))
    rate = model.rate or next((target.rate for target in targets if target.rate is not None), None)
    return msgspec.structs.replace(model, targets=targets, context_window=window, rate=rate)


def _check_rows(settings: Settings, providers: Mapping[str, Provider]) -> None:
    names: dict[str, str] = {}
    for index, row in enumerate(settings.model):
        with in_row("model", index):
            _check_names(row, names)
            _check_targets(row, providers)


def _check_names(row: ModelRow, taken: dict[str, str]) -> None:
    for place, name in (("id", row.id), *(("aliases", alias) for alias in row.aliases)):
        if _MODEL_ID.fullmatch(name) is None:
            what = "id" if place == "id" else f"alias {shown(name)}"
            raise CatalogueError(
                f"[[model]] {shown(row.id)}: bad {what}; use 1-128 of A-Z a-z 0-9 . _ : / @ + -, "
                "first a letter, a digit or @",
                place,
            )
        if name == STANDARD_PLAN:
            raise CatalogueError(f"[[model]] '{row.id}': '{name}' means the default model; use another name", place)
        if name in taken:
            other = "in this row" if taken[name] == row.id else f"first by [[model]] '{taken[name]}'"
            raise CatalogueError(f"[[model]] '{row.id}': the name '{name}' is used twice, {other}", place)
        taken[name] = row.id


def _check_targets(row: ModelRow, providers: Mapping[str, Provider]) -> None:
    where = f"[[model]] '{row.id}'"
    if not row.targets:
        raise CatalogueError(f"{where}: targets is empty; name at least one provider and model", "targets")
    for index, target in enumerate(row.targets):
        if target.provider not in providers:
            known = ", ".join(sorted(providers, key=lambda name: (providers[name].built_in, name)))
            said = f"{where}: unknown provider {shown(target.provider)} (known: {known})"
            raise CatalogueError(said, "targets", index, "provider")
        if not target.model.strip():
            said = f"{where}: a target's model is empty; write the provider's own id"
            raise CatalogueError(said, "targets", index, "model")


def _rate(row: ModelRow) -> Rate | None:
    price = row.price
    if price is None:
        return None
    numbers: dict[str, Decimal] = {}
    for name in ("input", "output", "cached_input", "cache_write"):
        if (value := getattr(price, name)) is None:
            continue
        try:
            numbers[name] = rate_number(value)
        except ValueError as error:
            raise CatalogueError(f"[[model]] '{row.id}': price.{name}: {error}", "price") from None
    return Rate(currency=price.currency, **numbers)  # type: ignore[arg-type]


def _embedded(local: LocalModel) -> Model:
    return Model(
        id=local.id,
        owner="penstock",
        context_window=local.context_window,
        max_output=local.context_window,
        capabilities=EMBEDDED_CAPABILITIES,
        targets=(Target(provider=local.provider, model=local.id),),
    )
