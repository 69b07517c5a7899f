"""The commands on what can be had: the add-on services and their plans."""

from typing import Any

import click

from penstock.cli import output
from penstock.cli.client import Platform, segment
from penstock.cli.options import json_option, with_platform
from penstock.cli.provisioning import price_text

_SDK = {"Accept": "application/vnd.heroku+json; version=3.sdk"}


@click.command("addons:plans")
@click.argument("service")
@json_option
@with_platform
def plans(platform: Platform, service: str, json_: bool) -> None:
    """List the plans of an add-on service such as heroku-inference."""
    found = platform.get_all(f"/addon-services/{segment(service)}/plans", headers=_SDK)
    if json_:
        output.as_json(found)
        return
    rows = [(one["name"], one.get("human_name") or "", price_text(one.get("price")), _mark(one)) for one in found]
    output.table(("Slug", "Name", "Price", ""), rows)


@click.command("addons:services")
@json_option
@with_platform
def services(platform: Platform, json_: bool) -> None:
    """List the add-on services."""
    found = platform.get_all("/addon-services")
    if json_:
        output.as_json(found)
        return
    output.table(("Slug", "Name", "State"), [(one["name"], one["human_name"], one["state"]) for one in found])
    output.value("\nSee plans with penstock addons:plans SERVICE")


def _mark(plan: dict[str, Any]) -> str:
    return "default" if plan.get("default") else ""
