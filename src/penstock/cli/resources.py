"""Finds what a person means by a resource's name: an add-on or an attachment, by name, alias, id or service."""

from typing import Any, NamedTuple

from penstock.cli.client import Platform, PlatformError, segment
from penstock.cli.output import CliError

SERVICE = "heroku-inference"
_SDK = {"Accept": "application/vnd.heroku+json; version=3.sdk", "Accept-Expansion": "addon_service,plan"}
MISSES = ("add_on", "add_on attachment")


class Resource(NamedTuple):
    """One model resource as an app sees it: the add-on and the attachment whose name prefixes the config vars."""

    addon: dict[str, Any]
    attachment: dict[str, Any]


class Access(NamedTuple):
    """How to call a model resource: address, key, and the model of a model plan (None on the standard plan)."""

    url: str
    key: str
    model: str | None


def find_addon(platform: Platform, name: str, app: str | None) -> dict[str, Any]:
    """The one add-on that ``name`` means, looked up on ``app`` first. Raises PlatformError, CliError."""
    try:
        found = _resolve_addons(platform, name, app)
    except PlatformError as error:
        if app is None or error.resource != "add_on":
            raise
        found = _resolve_addons(platform, name, None)
    return _only(found, name)


def find_resource(platform: Platform, name: str | None, app: str | None) -> Resource:
    """The model resource by add-on name or attachment alias; ``None`` means the app's only one.

    Raises PlatformError when nothing has the name, CliError when several do or it is no model resource.
    """
    wanted = name or SERVICE
    addons = _tried(platform, "addons", {"addon": wanted, "app": app})
    attachments = _tried(platform, "addon-attachments", {"addon_attachment": wanted, "app": app})
    if isinstance(addons, PlatformError) and isinstance(attachments, PlatformError):
        raise addons
    if isinstance(attachments, list) and attachments:
        attachment = _only(attachments, wanted)
        owner, addon_id = attachment["addon"]["app"]["name"], attachment["addon"]["id"]
        addon = platform.get(f"/apps/{segment(owner)}/addons/{segment(addon_id)}")
    else:
        addon = _only(addons if isinstance(addons, list) else [], wanted)
        attachment = _attachment_of(platform, addon, app)
    if addon["addon_service"]["name"] != SERVICE:
        raise CliError(f"{addon['name']} is no model resource but one of {addon['addon_service']['name']}.")
    return Resource(addon, attachment)


def access(platform: Platform, resource: Resource) -> Access:
    """The config vars of the attachment's app that belong to the resource. Raises CliError when they are gone."""
    app, prefix = resource.attachment["app"]["name"], resource.attachment["name"]
    found = platform.get(f"/apps/{segment(app)}/config-vars")
    url, key = found.get(f"{prefix}_URL"), found.get(f"{prefix}_KEY")
    if url and not key:
        raise CliError(f"{prefix} has no key; make one with: penstock keys:create -a {app} --as {prefix}")
    if not url or not key:
        raise CliError(f"{app} has no {prefix}_URL; attach the model resource again.")
    plan = str(resource.addon["plan"]["name"]).partition(":")[2]
    model = found.get(f"{prefix}_MODEL_ID") or (plan if plan != "standard" else None)
    return Access(url.rstrip("/"), key, model)


def _resolve_addons(platform: Platform, name: str, app: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = platform.post("/actions/addons/resolve", {"addon": name, "app": app}, headers=_SDK)
    return found


def _tried(platform: Platform, kind: str, body: dict[str, Any]) -> list[dict[str, Any]] | PlatformError:
    try:
        found: list[dict[str, Any]] = platform.post(f"/actions/{kind}/resolve", body, headers=_SDK)
    except PlatformError as error:
        if error.status == 404 and error.resource in MISSES:
            return error
        raise
    return found


def _attachment_of(platform: Platform, addon: dict[str, Any], app: str | None) -> dict[str, Any]:
    attachments = platform.get_all(f"/addons/{segment(addon['id'])}/addon-attachments")
    for wanted in (app, addon["app"]["name"]):
        for attachment in attachments:
            if attachment["app"]["name"] == wanted:
                return dict(attachment)
    raise CliError(f"{addon['name']} is not attached to any app.")


def _only(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    if not found:
        raise CliError(f"Couldn't find {name}.", error_id="not_found")
    if len(found) > 1:
        names = ", ".join(sorted({str(one["name"]) for one in found}))
        raise CliError(
            f"Ambiguous identifier; multiple matches for {name}: {names}. Name one of them.",
            error_id="multiple_matches",
        )
    return found[0]
