"""The check command: whether the configuration is sound, and with --live whether what it names works."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli import output
from penstock.cli.commands.upstreams import planned as shown
from penstock.cli.commands.upstreams.written import refuse_existing, write_rows
from penstock.cli.options import json_option
from penstock.cli.output import CliError
from penstock.domain.catalogue import Model

if TYPE_CHECKING:
    from penstock.app.serving.probe import Probe, Wanted


@click.command("check")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The file instead of penstock.toml.")
@click.option("--live", is_flag=True, help="Try every target with small requests, and find out what it can do.")
@click.option("--write", type=click.Path(path_type=Path), metavar="FILE", help="Write rows with what --live found.")
@json_option
def check(config: Path | None, live: bool, write: Path | None, json_: bool) -> int:
    """Validate the configuration and show what it serves; 1 when something is wrong with it, or unreachable."""
    if write is not None and not live:
        raise CliError("--write needs --live: it writes down what that found.", exit_code=2)
    if write is not None:
        refuse_existing(write)
    plan = shown.planned(config, adapters=True)
    pairs = [(model, wanted) for model in plan.plan.catalogue.models for wanted in plan.wanted(model)]
    warnings = [*_loose(plan), *_missing(plan), *_replaced(plan)]
    for warning in warnings:
        output.warn(warning)
    probes = asyncio.run(_probe([wanted for _, wanted in pairs])) if live else {}
    if json_:
        rows = [_row(model, wanted) for model, wanted in pairs]
        output.as_json({"targets": rows, "probes": shown.as_data(list(probes.values())), "warnings": warnings})
    else:
        _print(plan, pairs)
        if live:
            output.value()
            shown.print_probes(probes.values())
    if write is not None:
        for note in write_rows(write, plan.settings, plan.plan.catalogue, probes):
            output.warn(f"{write}: {note}")
    return 0 if all(one.reachable for one in probes.values()) else 1


async def _probe(targets: list["Wanted"]) -> dict[str, "Probe"]:
    from penstock.app.serving.probe import probe  # noqa: PLC0415 - most of the gateway

    once = {wanted.name: wanted for wanted in targets}
    return {one.target: one for one in await probe(once.values())}


def _loose(plan: shown.Planned) -> Iterator[str]:
    from penstock.providers.catalogue.credentials import loose_file  # noqa: PLC0415 - with the plan

    for row in plan.settings.provider:
        if row.api_key_file and (said := loose_file(row.api_key_file)):
            yield f"[[provider]] '{row.name}': {said}"


def _missing(plan: shown.Planned) -> Iterator[str]:
    for row in plan.settings.provider:
        if missing := plan.plan.providers[row.name].missing:
            yield f"[[provider]] '{row.name}': not set: {missing}; nothing is served by it"


def _replaced(plan: shown.Planned) -> Iterator[str]:
    from penstock.providers.catalogue import replaced_ids  # noqa: PLC0415 - with the plan

    for row in plan.settings.model:
        if names := replaced_ids(row):
            yield f"[[model]] '{row.id}' replaces what is built in as {', '.join(names)}"


def _row(model: Model, wanted: "Wanted") -> dict[str, Any]:
    target = shown.target_of(model, wanted)
    return {
        "model": model.id,
        "target": wanted.name,
        "context_window": target.context_window if target else None,
        "price": shown.as_data(target.rate) if target else None,
        "credential": wanted.provider.source,
        "missing": wanted.provider.missing,
    }


def _print(plan: shown.Planned, pairs: list[tuple[Model, "Wanted"]]) -> None:
    rows = []
    for model, wanted in pairs:
        target = shown.target_of(model, wanted)
        window, rate = (target.context_window, target.rate) if target else (None, None)
        row = (model.id, wanted.name, shown.tokens(window), shown.price(rate), shown.credential(wanted.provider))
        rows.append(row)
    if rows:
        output.table(("Model", "Target", "Window", "Price in / out", "Credential"), rows)
    models = plan.plan.catalogue.models
    stand_ins = sum(model.stand_in is not None for model in models)
    nobody = sum(not model.targets for model in models)
    output.value(f"\nThe configuration is sound. Models served: {len(models) - stand_ins - nobody}")
    if stand_ins:
        output.value(f"Answered by the embedded model as a stand-in: {stand_ins} (penstock models shows which)")
    if nobody:
        output.value(f"Without a credential, answering 503: {nobody} (penstock models shows which)")
