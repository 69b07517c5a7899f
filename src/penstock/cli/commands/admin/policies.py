"""The commands on how an app is treated: in queues, by the cache, and whether its prompts are kept."""

from collections.abc import Callable
from typing import Any

import click

from penstock.cli import output
from penstock.cli.client import Platform, segment
from penstock.cli.durations import duration_text
from penstock.cli.options import app_option, confirm_option, confirmed, json_option, with_platform
from penstock.cli.output import action, app_label

_OFF = "off"


def number_or_off(most: int) -> Callable[[str], int | str]:
    """The type of an option that is a whole number of so many at most, or ``off``; it raises BadParameter."""

    def parse(text: str) -> int | str:
        if text == _OFF:
            return text
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
            raise click.BadParameter(f"{text!r} is neither a number from 1 to {most} nor off.")
        return int(text)

    return parse


@click.command("policy")
@app_option()
@json_option
@with_platform
def show(platform: Platform, app: str, json_: bool) -> None:
    """Show how an app is treated in queues, whether its answers are cached, and for how long its prompts are kept."""
    policy = platform.get(_path(app))
    if json_:
        output.as_json(policy)
        return
    output.header(policy["app"]["name"])
    _print(policy)


@click.command("policy:set")
@app_option()
@click.option("--weight", type=click.IntRange(1, 100), metavar="N", help="Share in queues beside other apps, 1 to 100.")
@click.option(
    "--reserve", "reserve_percent", type=click.IntRange(0, 100), metavar="PERCENT",
    help="Share of each provider's slots that no other app takes; 0 for none.",
)  # fmt: skip
@click.option(
    "--cache-ttl", "cache_ttl_s", type=number_or_off(365 * 86_400), metavar="SECONDS|off",
    help="Answer repeated deterministic requests out of the cache for so long.",
)  # fmt: skip
@click.option(
    "--keep-content", "content_days", type=number_or_off(3650), metavar="DAYS|off",
    help="Keep prompts and answers, encrypted, for so many days; off deletes what is kept.",
)  # fmt: skip
@confirm_option
@with_platform
def change(platform: Platform, /, app: str, confirm: str | None, **fields: Any) -> None:
    """Change how an app is treated. What is not given stays as it is; weight and reserve need a manager of limits."""
    body = {name: None if value == _OFF else value for name, value in fields.items() if value is not None}
    if not body:
        raise click.UsageError("Give at least one of --weight, --reserve, --cache-ttl, --keep-content.")
    kept = platform.get(_path(app))["content_days"] if "content_days" in body else None
    if kept is not None and (body["content_days"] is None or body["content_days"] < kept):
        ends = "at once" if body["content_days"] is None else f"after {_days(body['content_days'])} instead of {kept}"
        confirmed(app, confirm, warning=f"This deletes prompts and answers that are kept of {app_label(app)}, {ends}.")
    with action(f"Changing the policy of {app_label(app)}"):
        policy = platform.put(_path(app), body)
    _print(policy)


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _path(app: str) -> str:
    return f"/apps/{segment(app)}/policy"


def _print(policy: dict[str, Any]) -> None:
    ttl, days = policy["cache_ttl_s"], policy["content_days"]
    output.fields(
        {
            "Weight": policy["weight"],
            "Reserve": f"{policy['reserve_percent']} %" if policy["reserve_percent"] else "none",
            "Cache": f"for {duration_text(ttl)}" if ttl else _OFF,
            "Keep content": f"for {_days(days)}" if days else _OFF,
        }
    )
