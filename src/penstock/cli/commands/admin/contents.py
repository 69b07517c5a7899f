"""The command that reads what is kept of an app's prompts and answers."""

from typing import Any
from urllib.parse import urlencode

import click

from penstock.cli import output
from penstock.cli.client import Platform, segment
from penstock.cli.options import app_option, filled, json_option, with_platform


@click.command("contents")
@app_option()
@click.option("--request", type=filled, metavar="ID", help="Only this request, by the x-request-id of its answer.")
@click.option("--since", type=filled, metavar="TIME", help="24h, 7d, or an ISO 8601 time such as 2026-01-31T12:00:00Z.")
@json_option
@with_platform
def show(platform: Platform, app: str, request: str | None, since: str | None, json_: bool) -> None:
    """Read the prompts and answers that are kept of an app, oldest first. The audit log tells who did."""
    chosen = {name: item for name, item in {"request": request, "since": since}.items() if item}
    path = f"/apps/{segment(app)}/contents"
    found = platform.get_all(f"{path}?{urlencode(chosen)}" if chosen else path)
    found.sort(key=lambda one: (one["at"], one["request_id"]))
    if json_:
        output.as_json(found)
        return
    if not found:
        output.value("Nothing is kept.")
        if not chosen:
            output.note(f"Keep prompts and answers with: penstock policy:set -a {app} --keep-content DAYS")
        return
    for one in found:
        _print(one)


def _print(one: dict[str, Any]) -> None:
    output.header(f"{one['request_id']}  {one['at']}  {one['model']}  {one['outcome']}")
    for name in ("request", "answer"):
        cut = " (cut)" if one[f"{name}_cut"] else ""
        output.value(f"{name.title()}{cut}: {output.printable(one[name])}")
    output.value()
