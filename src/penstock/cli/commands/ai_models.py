"""The commands on model resources: list what there is, provision, show and destroy."""

from typing import Any

import click

from penstock.cli import output, provisioning, resources
from penstock.cli.client import Platform, segment
from penstock.cli.commands import addons
from penstock.cli.options import app_option, confirm_option, json_option, packed, with_platform

_NOBODY = "nobody (not served: a call is refused)"


@click.command("ai:models:list")
@json_option
@with_platform
def list_models(platform: Platform, json_: bool) -> None:
    """List the models that can be provisioned."""
    models = sorted(platform.get_all("/available-models"), key=lambda one: str(one["model_id"]))
    if json_:
        output.as_json(models)
        return
    rows = [(one["model_id"], ", ".join(one.get("type", [])), ", ".join(one.get("regions", []))) for one in models]
    output.table(("Model", "Type", "Supported regions"), rows)
    output.value("\nProvision one with: penstock ai:models:create MODEL -a APP")


@click.command("ai:models:create")
@click.argument("plan", metavar="MODEL")
@provisioning.order_options
@with_platform
@packed(provisioning.Order)
def create(platform: Platform, order: provisioning.Order) -> None:
    """Provision MODEL for an app: sets its URL, KEY and MODEL_ID config vars."""
    plan = order.plan if ":" in order.plan else f"{resources.SERVICE}:{order.plan}"
    provisioning.provision(platform, order._replace(plan=plan))
    output.value(f"Use penstock ai:models:info -a {order.app} to view the model resource.")


@click.command("ai:models:info")
@click.argument("model_resource", required=False)
@app_option()
@json_option
@with_platform
def info(platform: Platform, model_resource: str | None, app: str, json_: bool) -> None:
    """Show one model resource, by name or alias, or all that the app has."""
    found = [resources.find_resource(platform, model_resource, app)] if model_resource else _all_of(platform, app)
    shown = [_status(resource) for resource in found]
    if json_:
        output.as_json(shown)
        return
    if not shown:
        output.value(f"{app} has no model resources. Provision one with: penstock ai:models:create MODEL -a {app}")
    stand_ins = _stand_ins(platform) if shown else {}
    for one in shown:
        output.header(str(one["model_id"]))
        output.fields(
            {
                "Base Model ID": one["model_id"],
                "Model Alias": one["model_alias"],
                "Model Resource ID": one["model_resource_id"],
                "Ready": one["ready"],
                **_answers(str(one["model_id"]), stand_ins),
            }
        )
        output.value()


@click.command("ai:models:destroy")
@click.argument("model_resource")
@app_option()
@click.option("-f", "--force", is_flag=True, help="Also when it is attached to other apps.")
@confirm_option
@with_platform
def destroy(platform: Platform, model_resource: str, app: str, force: bool, confirm: str | None) -> None:
    """Destroy a model resource; when the command returns, all its keys are refused everywhere."""
    found = resources.find_resource(platform, model_resource, app)
    addons.remove(platform, found.addon, app=app, confirm=confirm, force=force)


def _stand_ins(platform: Platform) -> dict[str, str | None]:
    """Every model of the plans, with who answers in its place: a model, nobody, or None where it does so itself."""
    plans = platform.get_all(f"/addon-services/{resources.SERVICE}/plans")
    served = {one["model_id"] for one in platform.get_all("/available-models")}
    models = [one["model"] for one in plans if one.get("model")]
    return {str(one["id"]): one.get("stand_in") if one["id"] in served else _NOBODY for one in models}


def _answers(model: str, stand_ins: dict[str, str | None]) -> dict[str, Any]:
    if model != "standard":
        other = stand_ins.get(model, _NOBODY)
        return {"Answered by": other if other in (None, _NOBODY) else f"{other} (a stand-in)"}
    marked = [one + _mark(other) for one, other in sorted(stand_ins.items())]
    return {"Models": marked or ["see penstock ai:models:list"]}


def _mark(other: str | None) -> str:
    if other == _NOBODY:
        return " (not served)"
    return f" (answered by {other}, a stand-in)" if other else ""


def _all_of(platform: Platform, app: str) -> list[resources.Resource]:
    attachments = platform.get_all(f"/apps/{segment(app)}/addon-attachments")
    found = []
    for attachment in attachments:
        owner, addon_id = attachment["addon"]["app"]["name"], attachment["addon"]["id"]
        addon = platform.get(f"/apps/{segment(owner)}/addons/{segment(addon_id)}")
        if addon["addon_service"]["name"] == resources.SERVICE:
            found.append(resources.Resource(addon, attachment))
    return found


def _status(resource: resources.Resource) -> dict[str, Any]:
    return {
        "model_id": str(resource.addon["plan"]["name"]).partition(":")[2],
        "model_alias": resource.attachment["name"],
        "model_resource_id": resource.addon["name"],
        "ready": "Yes" if resource.addon["state"] == "provisioned" else "No",
    }
