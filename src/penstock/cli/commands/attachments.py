"""The commands that attach add-ons to apps and detach them, under both of their names."""

import click

from penstock.cli import provisioning, resources
from penstock.cli.client import Platform, segment
from penstock.cli.options import app_option, as_option, confirm_option, with_platform
from penstock.cli.output import action, app_label


@click.command("addons:attach")
@click.argument("addon")
@app_option()
@as_option
@confirm_option
@with_platform
def attach(platform: Platform, addon: str, app: str, alias: str | None, confirm: str | None) -> None:
    """Attach an existing add-on to an app; the attachment gets a key of its own."""
    found = platform.get(f"/addons/{segment(addon)}")
    _attach(platform, found["name"], app=app, alias=alias, confirm=confirm)


@click.command("addons:detach")
@click.argument("attachment")
@app_option()
@with_platform
def detach(platform: Platform, attachment: str, app: str) -> None:
    """Detach an add-on from an app by the attachment's name; its key is refused everywhere when the command returns."""
    _detach(platform, attachment, app)


@click.command("ai:models:attach")
@click.argument("model_resource")
@click.option("-s", "--source-app", required=True, metavar="APP", help="The app that has the model resource.")
@click.option("-t", "--target-app", required=True, metavar="APP", help="The app to attach it to.")
@as_option
@confirm_option
@with_platform
def model_attach(
    platform: Platform, model_resource: str, source_app: str, target_app: str, alias: str | None, confirm: str | None
) -> None:
    """Attach a model resource of one app to another app."""
    found = resources.find_resource(platform, model_resource, source_app)
    _attach(platform, found.addon["name"], app=target_app, alias=alias, confirm=confirm)


@click.command("ai:models:detach")
@click.argument("model_resource")
@app_option()
@with_platform
def model_detach(platform: Platform, model_resource: str, app: str) -> None:
    """Detach a model resource from an app; the key is refused everywhere when the command returns."""
    found = resources.find_resource(platform, model_resource, app)
    _detach(platform, found.attachment["name"], app)


def _attach(platform: Platform, addon: str, *, app: str, alias: str | None, confirm: str | None) -> None:
    body = {"addon": {"name": addon}, "app": {"name": app}, **({"name": alias} if alias else {})}

    def send(confirmation: str | None) -> str:
        asked = {**body, "confirm": confirmation} if confirmation else body
        with action(f"Attaching {addon}{f' as {alias}' if alias else ''} to {app_label(app)}"):
            return str(platform.post("/addon-attachments", asked)["name"])

    name = provisioning.confirming(send, app, confirm)
    with action(f"Setting {name} config vars and restarting {app_label(app)}") as running:
        running.done = f"done, {platform.last_release(app)}"


def _detach(platform: Platform, attachment: str, app: str) -> None:
    found = platform.get(f"/apps/{segment(app)}/addon-attachments/{segment(attachment)}")
    name = found["name"]
    with action(f"Detaching {name} to {found['addon']['name']} from {app_label(app)}"):
        platform.delete(f"/addon-attachments/{segment(found['id'])}")
    with action(f"Unsetting {name} config vars and restarting {app_label(app)}") as running:
        running.done = f"done, {platform.last_release(app)}"
