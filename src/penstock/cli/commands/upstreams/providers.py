"""The commands on providers: which there are, whether their credentials are there, and whether they answer."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import click

from penstock.cli import output
from penstock.cli.commands.upstreams.planned import Planned, as_data, credential, planned, print_probes
from penstock.cli.options import json_option
from penstock.cli.output import CliError

_WITHIN_S = 5.0


@click.command("providers")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The file instead of penstock.toml.")
@click.option("-A", "--all", "all_", is_flag=True, help="Also the built-in ones that nothing here uses.")
@json_option
def list_providers(config: Path | None, all_: bool, json_: bool) -> None:
    """List the providers: where each is, where its credential comes from, and how its targets fare."""
    plan = planned(config)
    states = _states(plan)
    rows = []
    for provider in plan.plan.providers.values() if all_ else plan.providers():
        name = provider.spec.name
        targets = sorted({t.name for model in plan.plan.catalogue.served for t in model.targets if t.provider == name})
        row: dict[str, Any] = {
            "name": name,
            "kind": provider.spec.kind,
            "base_url": provider.spec.base_url,
            "credential": provider.source,
            "missing": provider.missing,
            "targets": [{"target": target, "state": states.get(target)} for target in targets],
        }
        rows.append((row, credential(provider)))
    if json_:
        output.as_json([row for row, _ in rows])
        return
    lines = [(row["name"], row["kind"], row["base_url"], found, _fare(row["targets"])) for row, found in rows]
    if not lines:
        output.value("No provider is configured. docs/providers.md says how; -A lists the built-in ones.")
        return
    output.table(("Provider", "Kind", "Base URL", "Credential", "Targets"), lines)


@click.command("providers:test")
@click.argument("name", metavar="NAME")
@click.option("--model", metavar="MODEL", help="The provider's own id of the model to try (default: its first target).")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The file instead of penstock.toml.")
@json_option
def test(name: str, model: str | None, config: Path | None, json_: bool) -> int:
    """Try a provider with small requests: whether it answers, and what the model can do."""
    from penstock.app.serving.probe import Wanted, probe  # noqa: PLC0415 - most of the gateway

    plan = planned(config)
    provider = plan.plan.providers.get(name)
    if provider is None:
        raise CliError(f"No provider is called {name!r}. See: penstock providers --all")
    if provider.missing is not None:
        raise CliError(f"{name} has no credential here: set {provider.missing}.")
    model = model or _first_model(plan, name)
    if model is None:
        raise CliError(f"No model is served by {name}; name one of its own with --model.", exit_code=2)
    (found,) = asyncio.run(probe([Wanted(provider, model)]))
    if json_:
        output.as_json(as_data(found))
    else:
        print_probes([found])
    return 0 if found.reachable else 1


def _first_model(plan: Planned, name: str) -> str | None:
    own = (target.model for row in plan.settings.model for target in row.targets if target.provider == name)
    served = (t.model for model in plan.plan.catalogue.served for t in model.targets if t.provider == name)
    return next(own, None) or next(served, None)


def _fare(targets: list[dict[str, Any]]) -> str:
    """How many targets there are, by the state that the server gives them: ``14 closed, 2 resting``."""
    counts = Counter(row["state"] for row in targets)
    return output.printable(", ".join(f"{count} {state}" if state else str(count) for state, count in counts.items()))


def _states(plan: Planned) -> dict[str, str]:
    """How the running server's targets fare, by name; empty when none runs or it does not say."""
    import httpx  # noqa: PLC0415 - slow to import

    from penstock.cli.whereabouts import ready_file  # noqa: PLC0415 - with it

    gateway = ready_file(plan.settings).get("gateway")
    if not gateway:
        return {}
    try:
        body = httpx.get(f"{gateway}/readyz", timeout=_WITHIN_S, trust_env=False).json()
        return {str(row["target"]): str(row["state"]) for row in body.get("targets", [])}
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        return {}
