"""The models command: the catalogue, what answers for each id, and what it costs."""

from pathlib import Path

import click

from penstock.cli import output
from penstock.cli.commands.upstreams.planned import as_data, planned, price, served_by, tokens
from penstock.cli.options import json_option


@click.command("models")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The file instead of penstock.toml.")
@json_option
def list_catalogue(config: Path | None, json_: bool) -> None:
    """List the catalogue as this environment and file give it: who serves each id, its window and its price."""
    plan = planned(config).plan
    models = plan.catalogue.models
    if json_:
        rows = [
            {
                "id": model.id,
                "served_by": [target.name for target in model.targets],
                "stand_in": model.stand_in,
                "context_window": model.context_window,
                "max_output": model.max_output,
                "price": as_data(model.rate),
                "capabilities": list(model.capabilities),
                "aliases": list(model.aliases),
                "set": model.credential_env,
            }
            for model in models
        ]
        output.as_json(rows)
        return
    lines = [
        (
            model.id,
            served_by(model, plan.providers),
            tokens(model.context_window),
            price(model.rate),
            ", ".join(model.aliases),
        )
        for model in models
    ]
    output.table(("Model", "Served by", "Window", "Price in / out", "Aliases"), lines)
