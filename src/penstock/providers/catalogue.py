"""Builds the catalogue: the operator's models, the embedded ones, and the built-in ids with their stand-ins."""

import re
import tomllib
from collections.abc import Collection, Container, Iterable
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from urllib.parse import urlsplit

import msgspec

from penstock.domain.catalogue import Catalogue, Model, Rate, Routing, Target, Timeouts
from penstock.providers.spec import ProviderSpec
from penstock.providers.transport import TransportLimits
from penstock.settings.tree import ModelRow, ProviderRow, Settings, UpstreamSettings

EMBEDDED_CAPABILITIES = ("chat", "streaming", "tools", "json_schema", "json_object", "logprobs", "seed")
_MODEL_ID = re.compile(r"[A-Za-z0-9@][A-Za-z0-9._:/@+-]{0,127}")
# No user information, query or fragment: the path of a call is put behind it.
_BASE_URL = re.compile(r"https?://[^\s/?#@\\]+(/[^\s?#\\]*)?", re.IGNORECASE)
_SHOWN = 80


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
    return Catalogue([*own, *embedded, *built_in], default=settings.engine.model if local else None)


def specs(settings: Settings) -> tuple[ProviderSpec, ...]:
    """The providers of this installation, resolved."""
    return tuple(_spec(row, settings.upstream) for row in settings.provider)


def limits_of(upstream: UpstreamSettings, row: ProviderRow | None = None) -> TransportLimits:
    """The bounds on calls: a provider's own where it has them, else those of all."""
    names = [field.name for field in msgspec.structs.fields(TransportLimits)]
    own = {name: value for name in names if (value := getattr(row, name, None)) is not None}
    return TransportLimits(**{name: getattr(upstream, name) for name in names if hasattr(upstream, name)} | own)


def _spec(row: ProviderRow, upstream: UpstreamSettings) -> ProviderSpec:
    return ProviderSpec(
        name=row.name,
        kind=row.kind or "openai",
        base_url=row.base_url or "",
        limits=limits_of(upstream, row),
        auth=row.auth,
        region=row.region,
        aws_profile=row.aws_profile,
        api_version=row.api_version,
        headers=tuple(row.headers.items()),
        proxy=row.proxy,
        ca_file=row.ca_file,
        max_concurrent=row.max_concurrent,
        max_queue=row.max_queue,
        queue_timeout_s=row.queue_timeout_s,
    )


def _built_in_rows() -> tuple[_BuiltIn, ...]:
    text = files("penstock.providers").joinpath("models.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _BuiltInFile).model


def _check_rows(settings: Settings) -> None:
    providers: set[str] = set()
    for provider in settings.provider:
        _check_provider(provider, providers)
        providers.add(provider.name)
    names: set[str] = set()
    for row in settings.model:
        for name in (row.id, *row.aliases):
            if _MODEL_ID.fullmatch(name) is None:
                what = "id" if name == row.id else f"alias {_shown(name)}"
                raise CatalogueError(
                    f"[[model]] {_shown(row.id)}: bad {what}; use 1-128 of A-Z a-z 0-9 . _ : / @ + -, "
                    "first a letter, a digit or @"
                )
            if name in names:
                raise CatalogueError(f"[[model]] '{row.id}': the name '{name}' is used twice")
            names.add(name)
        _check_targets(row, providers)


def _check_provider(row: ProviderRow, taken: Container[str]) -> None:
    if not row.name.strip() or not row.name.isprintable():
        raise CatalogueError(f"[[provider]] {_shown(row.name)}: bad name; use a word of your own")
    if row.name in taken:
        raise CatalogueError(f"[[provider]] '{row.name}': the name is used twice; give each provider its own")
    if row.base_url is not None and not _is_base_url(row.base_url):
        # The address is not repeated: it may carry a password.
        raise CatalogueError(f"[[provider]] '{row.name}': base_url must be http(s)://host[:port][/path]")


def _check_targets(row: ModelRow, providers: Collection[str]) -> None:
    if not row.targets:
        raise CatalogueError(f"[[model]] '{row.id}': targets is empty; name at least one provider and model")
    for target in row.targets:
        if target.provider not in providers:
            known = ", ".join(sorted(providers)) or "none is configured"
            raise CatalogueError(f"[[model]] '{row.id}': unknown provider {_shown(target.provider)} (known: {known})")
        if not target.model.strip():
            raise CatalogueError(f"[[model]] '{row.id}': a target's model is empty; write the provider's own id")


def _is_base_url(text: str) -> bool:
    if _BASE_URL.fullmatch(text) is None:
        return False
    try:
        url = urlsplit(text)
        return bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def _own(row: ModelRow) -> Model:
    timeouts = Timeouts(first_token_s=row.first_token_timeout_s, idle_s=row.idle_timeout_s, total_s=row.total_timeout_s)
    return Model(
        id=row.id,
        owner=row.owner,
        aliases=row.aliases,
        input=row.input,
        context_window=row.context_window,
        max_output=row.max_output,
        capabilities=row.capabilities,
        targets=tuple(
            Target(
                provider=target.provider,
                model=target.model,
                weight=target.weight,
                context_window=target.context_window or row.context_window,
            )
            for target in row.targets
        ),
        routing=Routing(
            strategy=row.strategy,
            max_attempts=row.max_attempts,
            hedge=row.hedge,
            hedge_share=row.hedge_share,
            timeouts=timeouts,
        ),
        rate=_rate(row),
    )


def _rate(row: ModelRow) -> Rate | None:
    price = row.price
    if price is None:
        return None
    try:
        numbers = [
            None if value is None else Decimal(str(value))
            for value in (price.input, price.output, price.cached_input, price.cache_write)
        ]
    except InvalidOperation:
        raise CatalogueError(f"[[model]] '{row.id}': a price is not a number; write 3 or \"0.25\"") from None
    if any(number is not None and not (number.is_finite() and number >= 0) for number in numbers):
        raise CatalogueError(f"[[model]] '{row.id}': a price is negative or not finite")
    entry, output, cached, write = numbers
    assert entry is not None
    assert output is not None
    return Rate(input=entry, output=output, cached_input=cached, cache_write=write, currency=price.currency)


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
