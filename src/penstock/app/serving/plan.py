"""What settings and environment make of the catalogue: the models, and the providers that they need."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from penstock.app.boot import EngineAddress, Serving, Upstream
from penstock.app.serving.defaults import check_defaults
from penstock.app.serving.stored import stored_secrets
from penstock.domain.catalogue import Catalogue
from penstock.engine.weights import Weights
from penstock.providers.catalogue import CatalogueError, LocalModel, Provider, build_catalogue, resolve_providers
from penstock.providers.catalogue.credentials import secret_variables
from penstock.providers.images import ImageFetcher
from penstock.providers.registry import make_adapter, make_transport
from penstock.providers.spec import Bound
from penstock.providers.transport import trusted
from penstock.settings.tree import Settings


class Plan(NamedTuple):
    """A catalogue, and every provider that a target of it may name."""

    catalogue: Catalogue
    providers: Mapping[str, Provider]

    def needed(self) -> list[Provider]:
        """The providers that a served model calls."""
        named = {target.provider for model in self.catalogue.served for target in model.targets}
        return [provider for name, provider in self.providers.items() if name in named]


def plan(
    settings: Settings, engines: Iterable[EngineAddress] = (), *, environ: Mapping[str, str] | None = None
) -> Plan:
    """What is to be served. Raises CatalogueError, StoreError."""
    providers = resolve_providers(settings, os.environ if environ is None else environ, stored=stored_secrets(settings))
    local = [
        LocalModel(id=engine.model_id, context_window=engine.context, provider=engine.provider) for engine in engines
    ]
    made = Plan(build_catalogue(settings, local, providers), providers)
    check_defaults(settings, made.catalogue)
    rows = {row.name: number for number, row in enumerate(settings.provider)}
    for name in {**rows, **dict.fromkeys(provider.spec.name for provider in made.needed())}:
        try:
            _check_connection(providers[name])
        except ValueError as error:
            at = ("provider", rows[name]) if name in rows else ()
            raise CatalogueError(f"[[provider]] '{name}': {error}", *at) from error
    return made


def _check_connection(provider: Provider) -> None:
    """Also what nothing uses yet: it is wrong already. Raises ValueError."""
    spec = provider.spec
    if spec.ca_file is not None:
        trusted(spec.ca_file)
    if spec.base_url:
        make_transport(spec)


def check_adapters(settings: Settings, made: Plan) -> None:
    """Make the adapter of every row and of all that is called, as the gateway will. Raises CatalogueError."""
    rows = {row.name: number for number, row in enumerate(settings.provider)}
    for name in {**rows, **dict.fromkeys(provider.spec.name for provider in made.needed())}:
        one = made.providers[name]
        if not one.spec.base_url:
            continue
        try:
            make_adapter(Bound(one.spec, one.credential, make_transport(one.spec), ImageFetcher()))
        except Exception as error:  # a kind's own library raises what it likes
            at = ("provider", rows[name]) if name in rows else ()
            raise CatalogueError(str(error) or repr(error), *at) from error


def serving(settings: Settings, made: Plan) -> Serving:
    """The plan as gateway workers are told it."""
    default = made.catalogue.default
    return Serving(
        models=made.catalogue.models,
        default=default.id if default else None,
        upstreams=tuple(Upstream(spec=one.spec, credential=one.credential) for one in made.needed()),
        bounds=settings.upstream,
        limits=settings.limits,
        limit_defaults=settings.limit,
        budget_defaults=settings.budget,
        secret_variables=tuple(sorted(secret_variables(settings.provider))),
    )


def expected_engines(settings: Settings) -> tuple[EngineAddress, ...]:
    """The engines of a server with these settings, by the weights that are here now. Raises WeightsError."""
    engine = settings.engine
    if not engine.enabled:
        return ()
    windows = {model.id: model.context_length or engine.context for model in Weights(Path(settings.home)).list()}
    windows.setdefault(engine.model, engine.context)
    return tuple(
        EngineAddress(model_id=name, base="", key="", context=min(window, engine.context), slots=engine.slots)
        for name, window in windows.items()
    )
