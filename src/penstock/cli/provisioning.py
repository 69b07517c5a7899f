"""What addons:create and ai:models:create have in common: options after --, the request, the wait, the words."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import click

from penstock.cli import output
from penstock.cli.client import Platform, PlatformError, segment
from penstock.cli.options import app_option, as_option, confirm_option, confirmed
from penstock.cli.output import CliError, action, app_label

F = TypeVar("F", bound=Callable[..., Any])

_POLL_S = 5.0
_HEADERS = {"Accept-Expansion": "plan", "X-Heroku-Legacy-Provider-Messages": "true"}


class Order(NamedTuple):
    """What to provision: the plan's full name, the app, and the options that were given."""

    plan: str
    app: str
    config: tuple[str, ...]
    alias: str | None
    name: str | None
    confirm: str | None
    wait: bool


def order_options(f: F) -> F:
    """The options of both commands that provision; what follows a double dash is the service's own."""
    words = click.argument("config", nargs=-1, type=click.UNPROCESSED, metavar="[-- --OPTION=VALUE...]")
    name = click.option("--name", metavar="NAME", help="Name of the add-on.")
    wait = click.option("--wait", is_flag=True, help="Return when the add-on is ready.")
    return words(app_option()(as_option(name(wait(confirm_option(f))))))


def parse_config(words: tuple[str, ...]) -> dict[str, str]:
    """``--region=us``, ``--region us`` and ``--flag`` (which is "true") after the double dash. Raises UsageError."""
    config: dict[str, str] = {}
    key = ""
    for word in words:
        if word.startswith("--") and len(word) > 2:
            key, equals, item = word[2:].partition("=")
            config[key] = item if equals else "true"
            key = "" if equals else key
        elif key:
            config[key] = word
            key = ""
        else:
            raise click.UsageError(f"Unexpected argument: {word}")
    return config


def provision(platform: Platform, order: Order) -> None:
    """Create the add-on and say what happened, in the Heroku CLI's words. Raises PlatformError, CliError."""
    body: dict[str, Any] = {"config": parse_config(order.config), "plan": {"name": order.plan}}
    if order.alias:
        body["attachment"] = {"name": order.alias}
    if order.name:
        body["name"] = order.name

    def send(confirmation: str | None) -> Any:
        asked = {**body, "confirm": confirmation} if confirmation else body
        with action(f"Creating {order.plan} on {app_label(order.app)}") as running:
            made = platform.post(f"/apps/{segment(order.app)}/addons", asked, headers=_HEADERS)
            running.done = price_text(made.get("plan", {}).get("price")) or "done"
            return made

    addon = confirming(send, order.app, order.confirm)
    if addon.get("provision_message"):
        output.value(output.printable(addon["provision_message"]))
    if order.wait and addon["state"] == "provisioning":
        addon = _wait(platform, order.app, addon["name"])
    if addon["state"] == "deprovisioned":
        raise CliError(f"The add-on was unable to be created, with status {addon['state']}")
    if addon["state"] == "provisioning":
        output.value(f"{addon['name']} is being created in the background. The app will restart when complete...")
        output.value(f"Use penstock addons:info {addon['name']} to check creation progress")
        return
    variables = ", ".join(addon.get("config_vars") or [])
    output.value(f"Created {addon['name']} as {variables}" if variables else f"Created {addon['name']}")


def confirming(send: Callable[[str | None], Any], app: str, confirm: str | None) -> Any:
    """``send(confirm)``; when the server wants a confirmation, ask for the app's name and send again with it."""
    try:
        return send(confirm)
    except PlatformError as error:
        if error.error_id != "confirmation_required":
            raise
        confirmed(app, confirm, warning=error.message)
        return send(app)


def price_text(price: dict[str, Any] | None) -> str:
    """A plan's price in the Heroku CLI's words: metered, free, contract, or dollars by the hour and month."""
    if not price:
        return ""
    if price.get("contract"):
        return "contract"
    if price.get("metered"):
        return "metered"
    cents = price.get("cents") or 0
    if cents == 0:
        return "free"
    return f"~${cents / 100 / 720:.3f}/hour (max ${cents / 100:g}/{price.get('unit', 'month')})"


def state_text(state: str) -> str:
    """An add-on's state in the Heroku CLI's words."""
    words = {"provisioned": "created", "provisioning": "creating", "deprovisioned": "errored"}
    return words.get(state, state)


def _wait(platform: Platform, app: str, name: str) -> dict[str, Any]:
    with action(f"Waiting for {name}"):
        while True:
            addon: dict[str, Any] = platform.get(f"/apps/{segment(app)}/addons/{segment(name)}")
            if addon["state"] != "provisioning":
                return addon
            time.sleep(_POLL_S)
