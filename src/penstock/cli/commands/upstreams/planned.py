"""The catalogue as a server with the settings of here would serve it, for the commands that show or try it."""

from collections.abc import Container, Iterable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from penstock.cli import output
from penstock.cli.output import CliError
from penstock.domain.catalogue import Model, Rate, Target
from penstock.settings.load import config_file, load_settings, located
from penstock.settings.tree import Settings

if TYPE_CHECKING:
    from penstock.app.serving.plan import Plan
    from penstock.app.serving.probe import Probe, Wanted
    from penstock.providers.catalogue import Provider


class Planned(NamedTuple):
    """The settings, and what they make of the catalogue."""

    settings: Settings
    plan: "Plan"

    def providers(self) -> list["Provider"]:
        """Those of the operator's rows, and the built-in ones that can be called or that a row names."""
        named = {target.provider for row in self.settings.model for target in row.targets}
        needed = {provider.spec.name for provider in self.plan.needed()} | named
        found = self.plan.providers.values()
        ready = (one for one in found if one.missing is None and one.source != "none needed")
        chosen = {one.spec.name for one in found if not one.built_in} | needed | {one.spec.name for one in ready}
        return [one for one in found if one.spec.name in chosen]

    def wanted(self, model: Model) -> list["Wanted"]:
        """The upstream targets of a model, those without a credential among them; none of the embedded engine."""
        from penstock.app.serving.probe import Wanted  # noqa: PLC0415 - most of the gateway, not for the command line

        row = next((row for row in self.settings.model if row.id == model.id), None)
        targets = [(t.provider, t.model) for t in (row.targets if row else model.targets)]
        providers = self.plan.providers
        return [Wanted(providers[name], upstream) for name, upstream in targets if name in providers]


def planned(config: Path | None = None, *, adapters: bool = False) -> Planned:
    """What this environment and file give; with ``adapters``, whether their code can be loaded too. Raises
    SettingsError; CliError for a catalogue that contradicts itself."""
    from penstock.app.serving.plan import check_adapters, expected_engines, plan  # noqa: PLC0415 - as above
    from penstock.engine.weights import WeightsError  # noqa: PLC0415
    from penstock.providers.catalogue import CatalogueError  # noqa: PLC0415
    from penstock.store.errors import StoreError  # noqa: PLC0415

    settings = load_settings(config=config)
    try:
        made = plan(settings, expected_engines(settings))
        if adapters:
            check_adapters(settings, made)
        return Planned(settings, made)
    except CatalogueError as error:
        raise CliError(located(str(error), error.at, config_file(config=config))) from error
    except (WeightsError, StoreError) as error:
        raise CliError(str(error)) from error


def price(rate: Rate | None) -> str:
    """What a million tokens cost, in and out: ``3 / 15 USD``."""
    return "" if rate is None else f"{_number(rate.input)} / {_number(rate.output)} {rate.currency}"


def tokens(count: int | None) -> str:
    """A number of tokens."""
    return "" if count is None else f"{count:,}"


def served_by(model: Model, providers: Container[str]) -> str:
    """What answers for a model."""
    if model.stand_in is not None:
        return f"{model.stand_in} (stand-in)"
    names = [target.name if target.provider in providers else "embedded" for target in model.targets]
    return ", ".join(names) or (f"nobody: set {model.credential_env}" if model.credential_env else "nobody")


def credential(provider: "Provider") -> str:
    """Where a provider's secret is, and whether it is there; never what it is."""
    if provider.missing is not None:
        return f"not set: {provider.missing}"
    return provider.source


def target_of(model: Model, wanted: "Wanted") -> Target | None:
    """The served target of that name."""
    return next((target for target in model.targets if target.name == wanted.name), None)


def print_probes(probes: Iterable["Probe"]) -> None:
    """The capability table, and below it why something is not a yes."""
    from penstock.app.serving.probe import CAPABILITIES, UNKNOWN  # noqa: PLC0415 - as above

    rows, notes = [], []
    for one in probes:
        cells = [one.capabilities.get(name, UNKNOWN) for name in CAPABILITIES]
        rows.append((one.target, "yes" if one.reachable else "NO", *cells))
        notes += [f"{one.target}: {reason}" for reason in one.reasons]
    output.table(("Target", "Answers", *CAPABILITIES), rows)
    for note in notes:
        output.value(output.printable(f"  {note}"))


def as_data(value: Any) -> Any:
    """A struct as JSON knows it."""
    return msgspec.to_builtins(value)


def _number(value: Decimal) -> str:
    return f"{value.normalize():f}"
