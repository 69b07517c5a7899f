"""Keys of an app: list, create, rotate, revoke. A secret is in one answer only, that of what made it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from penstock.control.changes import Changes, KeyLimits
from penstock.control.context import ControlContext
from penstock.control.fields import body_of, reference, required
from penstock.control.guard import Guard, actor_of
from penstock.control.key_changes import KeyChanges
from penstock.control.names import check_alias, invalid
from penstock.control.plans import Plan, plan_of
from penstock.control.present import Json, moment
from penstock.domain.access import Permission
from penstock.domain.platform import AddOn, ApiKey, App, Attachment
from penstock.store.nouns.stores import Stores
from penstock.web.api import Reply, Request, Route

_DEFAULT_GRACE_S = 600
_LONGEST_GRACE_S = 7 * 86_400
_LONGEST_LIFE_S = 10 * 365 * 86_400
_MOST_MODELS = 100


class KeyRoutes:
    """/apps/APP/keys."""

    def __init__(self, stores: Stores, context: ControlContext, changes: Changes) -> None:
        self._stores = stores
        self._context = context
        self._changes = KeyChanges(stores, changes)
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        key = "/apps/{app}/keys/{key}"
        return [
            Route("GET", "/apps/{app}/keys", self.list_of_app, Permission.APP_READ),
            Route("POST", "/apps/{app}/keys", self.create, Permission.APP_CHANGE),
            Route("POST", f"{key}/actions/rotate", self.rotate, Permission.APP_CHANGE, revokes=True),
            Route("DELETE", key, self.revoke, Permission.APP_CHANGE, revokes=True),
        ]

    def list_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/keys, without secrets, oldest first."""
        app = self._guard.app(request, request.params["app"])
        with self._stores.db.read():
            attachments = {item.id: item for item in self._stores.attachments.list(app_id=app.id)}
            keys = self._stores.keys.list_public(app_id=app.id)
        return Reply(200, [_present(key, attachments[key.attachment_id]) for key in keys])

    def create(self, request: Request) -> Reply:
        """POST /apps/APP/keys: on an attachment that the app has, one more key; else the add-on is attached under that
        name with the key in its config vars."""
        body, by = body_of(request), actor_of(request)
        app = self._guard.app(request, request.params["app"])
        name = required(reference(body, "attachment"), "attachment")
        found = self._stores.attachments.find(name, app_id=app.id)
        alias = name if found else check_alias(name)
        attachment = found or self._stores.attachments.find(alias, app_id=app.id)
        if attachment is not None:
            addon = self._stores.addons.get(attachment.addon_id)
            wanted = reference(body, "addon")
            if wanted not in (None, addon.id, addon.name):
                raise invalid(f"addon: {attachment.name} is attached to {addon.name}; leave addon out.")
            made, attachment = self._changes.create(app, attachment, self._limits(body, addon), by=by)
        else:
            addon = self._guard.addon(request, reference(body, "addon") or self._only_addon(app).id)
            limits, plan = self._limits(body, addon), plan_of(self._context.catalogue, addon.plan)
            made, attachment = self._changes.attach(app, addon, alias, plan=plan, limits=limits, by=by)
        return Reply(201, _present(made.key, attachment) | {"secret": made.secret})

    def rotate(self, request: Request) -> Reply:
        """POST /apps/APP/keys/KEY/actions/rotate with ``grace_s``; answers once every worker knows its end."""
        app = self._guard.app(request, request.params["app"])
        grace_s = _whole_number(body_of(request), "grace_s", most=_LONGEST_GRACE_S)
        grace = timedelta(seconds=_DEFAULT_GRACE_S if grace_s is None else grace_s)
        made, attachment = self._changes.rotate(app, request.params["key"], grace=grace, by=actor_of(request))
        return Reply(201, _present(made.key, attachment) | {"secret": made.secret})

    def revoke(self, request: Request) -> Reply:
        """DELETE /apps/APP/keys/KEY: those that were revoked, in an array."""
        app = self._guard.app(request, request.params["app"])
        keys, attachment = self._changes.revoke(app, request.params["key"], by=actor_of(request))
        return Reply(200, [_present(key, attachment) for key in keys])

    def _only_addon(self, app: App) -> AddOn:
        stores = self._stores
        usable = {
            item.id: item for item in (*stores.addons.list(app_id=app.id), *stores.addons.list(attached_to=app.id))
        }
        if not usable:
            raise invalid(f"addon: {app.name} has none to attach; make one with addons:create.")
        if len(usable) > 1:
            names = ", ".join(sorted(item.name for item in usable.values()))
            raise invalid(f"addon is required, because {app.name} has several: {names[:400]}.")
        return next(iter(usable.values()))

    def _limits(self, body: dict[str, Any], addon: AddOn) -> KeyLimits:
        models = self._models(body, plan_of(self._context.catalogue, addon.plan))
        return KeyLimits(models=models, expires_at=_expiry(body))

    def _models(self, body: dict[str, Any], plan: Plan) -> tuple[str, ...] | None:
        names = body.get("models")
        if names is None:
            return None
        if not isinstance(names, list) or not 0 < len(names) <= _MOST_MODELS:
            raise invalid(f"models must be a list of 1 to {_MOST_MODELS} model ids.")
        found: dict[str, None] = {}
        for at, name in enumerate(names):
            model = self._context.catalogue.find(name) if isinstance(name, str) else None
            if model is None:
                raise invalid(f"models[{at}]: {str(name)[:100]!r} is not a model; penstock ai:models:list lists them.")
            if plan.is_model_plan and model is not plan.model:
                raise invalid(f"models[{at}]: the plan {plan.name} does not have {model.id}.")
            found[model.id] = None
        return tuple(found)


def _expiry(body: dict[str, Any]) -> datetime | None:
    """When the key expires, from ``expires_in`` or ``expires_at``. Raises ApiError."""
    now = datetime.now(UTC)
    seconds = _whole_number(body, "expires_in", least=1, most=_LONGEST_LIFE_S)
    text = body.get("expires_at")
    if text is None:
        return None if seconds is None else now + timedelta(seconds=seconds)
    if seconds is not None:
        raise invalid("expires_at and expires_in exclude each other; send one.")
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
        at = at and (at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC))
    except (ValueError, OverflowError):
        at = None
    if at is None:
        raise invalid("expires_at must be a time in ISO 8601, such as 2030-12-31T00:00:00Z.")
    if not now < at <= now + timedelta(seconds=_LONGEST_LIFE_S):
        raise invalid("expires_at must lie in the future, at most 10 years ahead.")
    return at


def _whole_number(body: dict[str, Any], name: str, *, least: int = 0, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise invalid(f"{name} must be a whole number of seconds from {least} to {most}.")
    return value


def _present(key: ApiKey, attachment: Attachment) -> Json:
    """A key, without its secret."""
    return {
        "id": key.id,
        "prefix": key.prefix,
        "attachment": {"id": attachment.id, "name": attachment.name},
        "app": {"id": attachment.app_id, "name": attachment.app_name},
        "extra": key.extra,
        "models": None if key.models is None else list(key.models),
        "created_at": moment(key.created_at),
        "expires_at": None if key.expires_at is None else moment(key.expires_at),
        "last_used_at": None if key.last_used_at is None else moment(key.last_used_at),
    }
