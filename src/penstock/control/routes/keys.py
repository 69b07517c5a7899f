"""Keys of an app: list, create, rotate, revoke. A secret is in one answer only, that of what made it."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from msgspec import Meta, Struct

from penstock.control import paging
from penstock.control.changes import Changes, KeyLimits
from penstock.control.context import ControlContext
from penstock.control.fields import Reference, Text, named, read, required
from penstock.control.guard import Guard, actor_of
from penstock.control.key_changes import KeyChanges
from penstock.control.names import check_alias, invalid
from penstock.control.plans import Plan, plan_of
from penstock.control.present import Id, Named, moment
from penstock.domain.access import Permission
from penstock.domain.platform import AddOn, ApiKey, App, Attachment
from penstock.store.nouns.keys import ApiKeySecret
from penstock.store.nouns.stores import Stores
from penstock.web.api import Doc, Reply, Request, Route

_LONGEST_LIFE_S = 10 * 365 * 86_400
_ONE = "/apps/{app}/keys/{key}"


class NewKey(Struct, frozen=True):
    """A key to make: on an attachment that the app has, one more; under a new name, the key of a new attachment of
    ``addon``, which may be left out where the app has one add-on."""

    attachment: Reference
    models: Annotated[list[Text], Meta(min_length=1, max_length=100)] | None = None
    expires_in: Annotated[int, Meta(ge=1, le=_LONGEST_LIFE_S)] | None = None
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None
    addon: Reference | None = None


class Rotation(Struct, frozen=True):
    """How many seconds the old key goes on; 0 ends it at once."""

    grace_s: Annotated[int, Meta(ge=0, le=7 * 86_400)] = 600


class Key(Struct, frozen=True, kw_only=True):
    """A key, without its secret. An ``extra`` one is not what the config vars show."""

    id: Id
    prefix: str
    attachment: Named
    app: Named
    extra: bool
    models: tuple[str, ...] | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class MadeKey(Key, frozen=True, kw_only=True):
    """A key that has just been made, with its secret."""

    secret: str


class KeyRoutes:
    """/apps/APP/keys."""

    def __init__(self, stores: Stores, context: ControlContext, changes: Changes) -> None:
        self._stores = stores
        self._context = context
        self._changes = KeyChanges(stores, changes)
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        found = Doc("key.list", "List the keys of an app, without secrets", list[Key], ranges=("id",))
        made = Doc("key.create", "Make a key; the answer has its secret", MadeKey, NewKey, 201, makes="key")
        turn = Doc("key.rotate", "Replace a key; the answer has the new one's secret", MadeKey, Rotation, 201)
        gone = Doc("key.revoke", "Revoke a key, or all keys of an attachment", list[Key], refusals=(422,))
        return [
            Route("GET", "/apps/{app}/keys", self.list_of_app, Permission.APP_READ, doc=found),
            Route("POST", "/apps/{app}/keys", self.create, Permission.APP_CHANGE, doc=made),
            Route("POST", f"{_ONE}/actions/rotate", self.rotate, Permission.APP_CHANGE, revokes=True, doc=turn),
            Route("DELETE", _ONE, self.revoke, Permission.APP_CHANGE, revokes=True, doc=gone),
        ]

    def list_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/keys."""
        app = self._guard.app(request, request.params["app"])
        page = paging.page_of(request)
        with self._stores.db.read():
            attachments = {item.id: item for item in self._stores.attachments.list(app_id=app.id)}
            keys = self._stores.keys.list_public(app_id=app.id, page=page)
        return paging.reply(request, page, keys, lambda key: _shown(key, attachments[key.attachment_id]))

    def create(self, request: Request) -> Reply:
        """POST /apps/APP/keys: on an attachment that the app has, one more key; else the add-on is attached under that
        name with the key in its config vars."""
        asked, by = read(request, NewKey), actor_of(request)
        app = self._guard.app(request, request.params["app"])
        name, wanted = required(named(asked.attachment), "attachment"), named(asked.addon)
        attachment = self._stores.attachments.find(name, app_id=app.id)
        alias = name if attachment else check_alias(name)
        attachment = attachment or self._stores.attachments.find(alias, app_id=app.id)
        if attachment is not None:
            addon = self._stores.addons.get(attachment.addon_id)
            if wanted not in (None, addon.id, addon.name):
                raise invalid(f"addon: {attachment.name} is attached to {addon.name}; leave addon out.")
            made = self._changes.create(app, attachment, self._limits(asked, addon), by=by)
        else:
            addon = self._guard.addon(request, wanted or self._only_addon(app).id)
            limits, plan = self._limits(asked, addon), plan_of(self._context.catalogue, addon.plan)
            made = self._changes.attach(app, addon, alias, plan=plan, limits=limits, by=by)
        return _made(*made)

    def rotate(self, request: Request) -> Reply:
        """POST /apps/APP/keys/KEY/actions/rotate; answers once every worker knows the old key's end."""
        app = self._guard.app(request, request.params["app"])
        grace = timedelta(seconds=read(request, Rotation).grace_s)
        return _made(*self._changes.rotate(app, request.params["key"], grace=grace, by=actor_of(request)))

    def revoke(self, request: Request) -> Reply:
        """DELETE /apps/APP/keys/KEY: those that were revoked, in an array."""
        app = self._guard.app(request, request.params["app"])
        keys, attachment = self._changes.revoke(app, request.params["key"], by=actor_of(request))
        return Reply(200, [_shown(key, attachment) for key in keys])

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

    def _limits(self, asked: NewKey, addon: AddOn) -> KeyLimits:
        models = None
        if asked.models is not None:
            models = self._models(asked.models, plan_of(self._context.catalogue, addon.plan))
        return KeyLimits(models=models, expires_at=_expiry(asked))

    def _models(self, names: list[str], plan: Plan) -> tuple[str, ...]:
        """The ids, each once. Raises ApiError."""
        found: dict[str, None] = {}
        for at, name in enumerate(names):
            model = self._context.catalogue.find(name)
            if model is None:
                raise invalid(f"models[{at}]: {name[:100]!r} is not a model; penstock ai:models:list lists them.")
            if plan.is_model_plan and model is not plan.model:
                raise invalid(f"models[{at}]: the plan {plan.name} does not have {model.id}.")
            found[model.id] = None
        return tuple(found)


def _expiry(asked: NewKey) -> datetime | None:
    """When the key expires. Raises ApiError."""
    now = datetime.now(UTC)
    if asked.expires_at is None:
        return None if asked.expires_in is None else now + timedelta(seconds=asked.expires_in)
    if asked.expires_in is not None:
        raise invalid("expires_at and expires_in exclude each other; send one.")
    if not now < asked.expires_at <= now + timedelta(seconds=_LONGEST_LIFE_S):
        raise invalid("expires_at must lie in the future, at most 10 years ahead.")
    return asked.expires_at.astimezone(UTC)


def _made(made: ApiKeySecret, attachment: Attachment) -> Reply:
    return Reply(201, MadeKey(**_fields(made.key, attachment), secret=made.secret))


def _shown(key: ApiKey, attachment: Attachment) -> Key:
    return Key(**_fields(key, attachment))


def _fields(key: ApiKey, attachment: Attachment) -> dict[str, Any]:
    return {
        "id": key.id,
        "prefix": key.prefix,
        "attachment": Named(attachment.id, attachment.name),
        "app": Named(attachment.app_id, attachment.app_name),
        "extra": key.extra,
        "models": key.models,
        "created_at": moment(key.created_at),
        "expires_at": None if key.expires_at is None else moment(key.expires_at),
        "last_used_at": None if key.last_used_at is None else moment(key.last_used_at),
    }
