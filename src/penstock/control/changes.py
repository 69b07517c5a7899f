"""The changes of many steps, each one transaction: what the routes and the first start do to apps and add-ons."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from penstock.control.guard import Guard
from penstock.control.lifted import record_lifted
from penstock.control.names import (
    check_alias,
    clashing,
    first_free_alias,
    free_name,
    invalid,
    random_addon_name,
    random_app_name,
)
from penstock.control.plans import Plan
from penstock.control.present import config_var_names
from penstock.control.trail import Subject, masked, record
from penstock.domain.access import Permission
from penstock.domain.ids import new_id
from penstock.domain.limits import Scope
from penstock.domain.platform import Actor, AddOn, App, Attachment
from penstock.store.errors import NameTakenError
from penstock.store.nouns.stores import Stores
from penstock.web.api import ApiError

# Heroku's own bound on the size of the config vars of one app, and ours on how many they are.
CONFIG_BYTES = 64 * 1024
CONFIG_VARS = 1_000


class AddOnOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to provision. ``alias`` and ``name`` are None when the user leaves the choice to us."""

    plan: Plan
    alias: str | None = None
    name: str | None = None
    config: dict[str, str] = {}


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a key may do less than its plan: the models by id, and until when; None is no such limit."""

    models: tuple[str, ...] | None = None
    expires_at: datetime | None = None


class Changes:
    """Every change is one transaction with its audit event, its release and, where keys come or go, the bump of the key
    revision. All raise NotFoundError when an object went away meanwhile."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._guard = Guard(stores)

    def create_app(self, name: str | None, *, by: Actor, region: str = "us", stack: str = "heroku-24") -> App:
        """A new app; a random name when none is given. Raises NameTakenError."""
        stores, now = self._stores, datetime.now(UTC)
        with stores.db.write():
            self._guard.begin(by, Permission.APPS_CREATE)
            chosen = name or free_name(random_app_name, taken=lambda name: stores.apps.find(name) is not None)
            app = App(
                id=new_id(),
                name=chosen,
                owner_email=by.email,
                owner_id=by.id,
                region=region,
                stack=stack,
                created_at=now,
                updated_at=now,
            )
            stores.apps.add(app)
            record(stores, by, "app.create", subject=_app(app), after={"name": app.name, "region": region})
            stores.releases.add(app.id, description="Initial release", user_email=by.email)
        return app

    def rename_app(self, app: App, name: str, *, by: Actor) -> App:
        """The app under its new name. Raises NameTakenError."""
        stores = self._stores
        with stores.db.write():
            self._guard.begin(by, Permission.APP_SHARE, app.id)
            stores.apps.update(app.id, updated_at=datetime.now(UTC), name=name)
            stores.keys.touch(app.id)
            renamed = stores.apps.get(app.id)
            record(stores, by, "app.update", subject=_app(renamed), before={"name": app.name}, after={"name": name})
            return renamed

    def destroy_app(self, app: App, *, by: Actor) -> None:
        """Removes the app, its add-ons (also where other apps use them) and everything that is attached to it."""
        stores = self._stores
        with stores.db.write():
            self._guard.begin(by, Permission.APP_DESTROY, app.id)
            for addon in stores.addons.list(app_id=app.id):
                self._remove_addon(addon, by=by)
            for attachment in stores.attachments.list(app_id=app.id):
                self._remove_attachment(attachment, by=by)
            stores.config_vars.remove(app.id)
            stores.releases.remove(app.id)
            stores.collaborators.remove(app.id)
            stores.policies.remove(app.id)
            stores.contents.shorten(app.id, None)
            record_lifted(stores, by, Scope.APP, app.id, app.name, app)
            stores.apps.remove(app.id)
            before = {"name": app.name, "owner": app.owner_email, "region": app.region}
            record(stores, by, "app.destroy", subject=_app(app), before=before)

    def provision(self, app: App, order: AddOnOrder, *, by: Actor) -> tuple[AddOn, Attachment]:
        """A new add-on on an app, attached to it with a key. Raises NameTakenError, ApiError for the alias."""
        stores, now = self._stores, datetime.now(UTC)
        with stores.db.write():
            self._guard.begin(by, Permission.APP_CHANGE, app.id)
            taken = stores.addons.find
            addon = AddOn(
                id=new_id(),
                name=order.name or free_name(random_addon_name, taken=lambda name: taken(name) is not None),
                app_id=app.id,
                app_name=app.name,
                plan=order.plan.slug,
                state="provisioned",
                config=order.config,
                created_at=now,
                updated_at=now,
            )
            stores.addons.add(addon)
            after = {"name": addon.name, "plan": addon.plan_name, "config": masked(addon.config)}
            record(stores, by, "addon.create", subject=Subject(addon.id, addon.name, app), after=after)
            return addon, self._attach(addon, app, plan=order.plan, alias=order.alias, by=by)

    def attach(
        self, addon: AddOn, app: App, *, plan: Plan, alias: str | None, by: Actor, limits: KeyLimits | None = None
    ) -> Attachment:
        """The add-on under one more name, with its own key. Raises ApiError for the alias."""
        stores = self._stores
        with stores.db.write():
            self._guard.begin(by, Permission.APP_CHANGE, app.id, addon.app_id)
            return self._attach(stores.addons.get(addon.id), app, plan=plan, alias=alias, by=by, limits=limits)

    def detach(self, attachment: Attachment, *, by: Actor) -> None:
        """Removes the attachment and its config vars, and revokes its key; for those of either app."""
        stores, apps = self._stores, (attachment.app_id, attachment.owner_app_id)
        with stores.db.write():
            self._guard.begin(by, Permission.APP_CHANGE, *apps, one_is_enough=True)
            self._remove_attachment(attachment, by=by)
            description = f"Detach {attachment.name} ({attachment.addon_name})"
            stores.releases.add(attachment.app_id, description=description, user_email=by.email)

    def deprovision(self, addon: AddOn, *, confirmed: bool, by: Actor) -> None:
        """Removes the add-on and all its attachments. Raises ApiError confirmation_required when other apps use it."""
        stores = self._stores
        with stores.db.write():
            self._guard.begin(by, Permission.APP_CHANGE, addon.app_id)
            attached = stores.attachments.list(addon_id=addon.id)
            others = sorted({attachment.app_name for attachment in attached if attachment.app_id != addon.app_id})
            if others and not confirmed:
                raise ApiError(
                    422,
                    "confirmation_required",
                    f"{addon.name} is also attached to {', '.join(others)}. To destroy it there too, use --force.",
                )
            self._remove_addon(addon, by=by)

    def patch_vars(self, app: App, values: dict[str, str | None], *, by: Actor) -> None:
        """Sets and, for None, unsets a user's config vars. Raises ApiError for a var that an attachment owns."""
        stores = self._stores
        with stores.db.write():
            self._guard.begin(by, Permission.APP_CHANGE, app.id)
            owned = {
                name for attachment in stores.attachments.list(app_id=app.id) for name in config_var_names(attachment)
            }
            for name in sorted(owned & values.keys()):
                raise invalid(f"Cannot overwrite attachment values {name}.")
            before = stores.config_vars.list(app.id)
            gone = [name for name, value in values.items() if value is None and name in before]
            changed = {name: value for name, value in values.items() if value is not None and before.get(name) != value}
            left = (before | changed).keys() - gone
            if sum(len(f"{k}{v}".encode()) for k, v in (before | changed).items() if k in left) > CONFIG_BYTES:
                raise invalid(f"The config vars of an app can have {CONFIG_BYTES // 1024} kB together.")
            if len(left) > max(CONFIG_VARS, len(before)):
                raise invalid(f"An app can have {CONFIG_VARS:,} config vars; unset some first.")
            if gone:
                stores.config_vars.remove(app.id, *gone)
            stores.config_vars.put(app.id, changed)
            for verb, names in (("Set", list(changed)), ("Remove", gone)):
                if names:
                    description = f"{verb} {', '.join(names)} config vars"
                    stores.releases.add(app.id, description=description, user_email=by.email)
            if changed or gone:
                was = masked(before.keys() & {*changed, *gone})
                record(stores, by, "config.update", subject=_app(app), before=was, after=masked(changed))

    def _attach(
        self, addon: AddOn, app: App, *, plan: Plan, alias: str | None, by: Actor, limits: KeyLimits | None = None
    ) -> Attachment:
        stores, now = self._stores, datetime.now(UTC)
        attachment = Attachment(
            id=new_id(),
            name=self._alias(app, plan, alias),
            addon_id=addon.id,
            addon_name=addon.name,
            app_id=app.id,
            app_name=app.name,
            owner_app_id=addon.app_id,
            owner_app_name=addon.app_name,
            plan=addon.plan,
            created_at=now,
            updated_at=now,
        )
        stores.attachments.add(attachment)
        limits = limits or KeyLimits()
        key = stores.keys.add(attachment.id, models=limits.models, expires_at=limits.expires_at).key
        after = {"name": attachment.name, "app": app.name, "addon": addon.name, "key": key.prefix}
        self._tell_both(by, "attachment.create", attachment, after=after)
        description = f"Attach {attachment.name} ({addon.name})"
        stores.releases.add(app.id, description=description, user_email=by.email)
        return attachment

    def _alias(self, app: App, plan: Plan, wanted: str | None) -> str:
        used = {attachment.name for attachment in self._stores.attachments.list(app_id=app.id)}
        variables = self._stores.config_vars.list(app.id)

        def clash(alias: str) -> str | None:
            return clashing(alias, variables, model_plan=plan.is_model_plan)

        if wanted is None:
            return first_free_alias(plan.alias, taken=lambda alias: alias in used or clash(alias) is not None)
        alias = check_alias(wanted)
        if alias in used:
            raise NameTakenError("attachment", alias)
        if name := clash(alias):
            raise invalid(
                f"The config var {name} is already set on {app.name}: unset it, or attach under another name."
            )
        return alias

    def _remove_addon(self, addon: AddOn, *, by: Actor) -> None:
        stores = self._stores
        for attachment in stores.attachments.list(addon_id=addon.id):
            self._remove_attachment(attachment, by=by)
            description = f"Detach {attachment.name} ({addon.name})"
            stores.releases.add(attachment.app_id, description=description, user_email=by.email)
        app = stores.apps.get(addon.app_id)
        record_lifted(stores, by, Scope.ADDON, addon.id, addon.name, app)
        before = {"name": addon.name, "plan": addon.plan_name}
        record(stores, by, "addon.destroy", subject=Subject(addon.id, addon.name, app), before=before)
        stores.addons.remove(addon.id)

    def _remove_attachment(self, attachment: Attachment, *, by: Actor) -> None:
        stores = self._stores
        app, keys = stores.apps.get(attachment.app_id), stores.keys.list_public(attachment_id=attachment.id)
        for key in keys:
            record_lifted(stores, by, Scope.KEY, key.id, key.prefix, app)
        record_lifted(stores, by, Scope.ATTACHMENT, attachment.id, attachment.name, app)
        before = {
            "name": attachment.name,
            "app": attachment.app_name,
            "addon": attachment.addon_name,
            "keys": [key.prefix for key in keys],
        }
        self._tell_both(by, "attachment.destroy", attachment, before=before)
        stores.keys.remove(attachment.id)
        stores.attachments.remove(attachment.id)

    def _tell_both(self, by: Actor, action: str, attachment: Attachment, **told: dict[str, Any]) -> None:
        """In the trail of the app that is attached to, and of the one whose add-on it is."""
        for app_id in dict.fromkeys((attachment.app_id, attachment.owner_app_id)):
            subject = Subject(attachment.id, attachment.name, self._stores.apps.get(app_id))
            record(self._stores, by, action, subject=subject, **told)


def _app(app: App) -> Subject:
    return Subject(app.id, app.name, app)
