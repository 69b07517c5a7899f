"""The changes of many steps, each one transaction: what the routes and the first start do to apps and add-ons."""

from datetime import UTC, datetime

import msgspec

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
from penstock.domain.ids import new_id
from penstock.domain.platform import AddOn, App, Attachment
from penstock.store.errors import NameTakenError
from penstock.store.nouns.stores import Stores
from penstock.web.api import ApiError

# Heroku's own bound on the config vars of one app.
CONFIG_BYTES = 64 * 1024


class AddOnOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to provision. ``alias`` and ``name`` are None when the user leaves the choice to us."""

    plan: Plan
    alias: str | None = None
    name: str | None = None
    config: dict[str, str] = {}


class Changes:
    """Every change records a release and, where keys come or go, bumps the key revision in the same transaction.

    ``by`` is the operator's email. All raise NotFoundError when an object went away meanwhile.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def create_app(self, name: str | None, *, by: str, region: str = "us", stack: str = "heroku-24") -> App:
        """A new app; a random name when none is given. Raises NameTakenError."""
        stores, now = self._stores, datetime.now(UTC)
        with stores.db.write():
            chosen = name or free_name(random_app_name, taken=lambda name: stores.apps.find(name) is not None)
            app = App(
                id=new_id(), name=chosen, owner_email=by, region=region, stack=stack, created_at=now, updated_at=now
            )
            stores.apps.add(app)
            stores.releases.add(app.id, description="Initial release", user_email=by)
        return app

    def rename_app(self, app: App, name: str) -> App:
        """The app under its new name. Raises NameTakenError."""
        stores = self._stores
        with stores.db.write():
            stores.apps.update(app.id, updated_at=datetime.now(UTC), name=name)
            stores.keys.touch(app.id)
            return stores.apps.get(app.id)

    def destroy_app(self, app: App, *, by: str) -> None:
        """Removes the app, its add-ons (also where other apps use them) and everything that is attached to it."""
        stores = self._stores
        with stores.db.write():
            stores.apps.update(app.id, updated_at=datetime.now(UTC))
            for addon in stores.addons.list(app_id=app.id):
                self._remove_addon(addon, by=by)
            for attachment in stores.attachments.list(app_id=app.id):
                self._remove_attachment(attachment)
            stores.config_vars.remove(app.id)
            stores.releases.remove(app.id)
            stores.apps.remove(app.id)

    def provision(self, app: App, order: AddOnOrder, *, by: str) -> tuple[AddOn, Attachment]:
        """A new add-on on an app, attached to it with a key. Raises NameTakenError, ApiError for the alias."""
        stores, now = self._stores, datetime.now(UTC)
        with stores.db.write():
            stores.apps.update(app.id, updated_at=now)
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
            return addon, self._attach(addon, app, plan=order.plan, alias=order.alias, by=by)

    def attach(self, addon: AddOn, app: App, *, plan: Plan, alias: str | None, by: str) -> Attachment:
        """The add-on under one more name, with its own key. Raises ApiError for the alias."""
        stores = self._stores
        with stores.db.write():
            stores.apps.update(app.id, updated_at=datetime.now(UTC))
            return self._attach(stores.addons.get(addon.id), app, plan=plan, alias=alias, by=by)

    def detach(self, attachment: Attachment, *, by: str) -> None:
        """Removes the attachment and its config vars, and revokes its key."""
        stores = self._stores
        with stores.db.write():
            stores.apps.update(attachment.app_id, updated_at=datetime.now(UTC))
            self._remove_attachment(attachment)
            description = f"Detach {attachment.name} ({attachment.addon_name})"
            stores.releases.add(attachment.app_id, description=description, user_email=by)

    def deprovision(self, addon: AddOn, *, confirmed: bool, by: str) -> None:
        """Removes the add-on and all its attachments. Raises ApiError confirmation_required when other apps use it."""
        stores = self._stores
        with stores.db.write():
            stores.apps.update(addon.app_id, updated_at=datetime.now(UTC))
            attached = stores.attachments.list(addon_id=addon.id)
            others = sorted({attachment.app_name for attachment in attached if attachment.app_id != addon.app_id})
            if others and not confirmed:
                raise ApiError(
                    422,
                    "confirmation_required",
                    f"{addon.name} is also attached to {', '.join(others)}. To destroy it there too, use --force.",
                )
            self._remove_addon(addon, by=by)

    def patch_vars(self, app: App, values: dict[str, str | None], *, by: str) -> None:
        """Sets and, for None, unsets a user's config vars. Raises ApiError for a var that an attachment owns."""
        stores = self._stores
        with stores.db.write():
            stores.apps.update(app.id, updated_at=datetime.now(UTC))
            owned = {
                name for attachment in stores.attachments.list(app_id=app.id) for name in config_var_names(attachment)
            }
            for name in sorted(owned & values.keys()):
                raise invalid(f"Cannot overwrite attachment values {name}.")
            before = stores.config_vars.list(app.id)
            gone = [name for name, value in values.items() if value is None and name in before]
            changed = {name: value for name, value in values.items() if value is not None and before.get(name) != value}
            if sum(len(f"{k}{v}".encode()) for k, v in (before | changed).items() if k not in gone) > CONFIG_BYTES:
                raise invalid(f"The config vars of an app can have {CONFIG_BYTES // 1024} kB together.")
            for name in gone:
                stores.config_vars.remove(app.id, name)
            for name, value in changed.items():
                stores.config_vars.update(app.id, name, value=value)
            for verb, names in (("Set", list(changed)), ("Remove", gone)):
                if names:
                    description = f"{verb} {', '.join(names)} config vars"
                    stores.releases.add(app.id, description=description, user_email=by)

    def _attach(self, addon: AddOn, app: App, *, plan: Plan, alias: str | None, by: str) -> Attachment:
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
        stores.keys.add(attachment.id)
        description = f"Attach {attachment.name} ({addon.name})"
        stores.releases.add(app.id, description=description, user_email=by)
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

    def _remove_addon(self, addon: AddOn, *, by: str) -> None:
        for attachment in self._stores.attachments.list(addon_id=addon.id):
            self._remove_attachment(attachment)
            description = f"Detach {attachment.name} ({addon.name})"
            self._stores.releases.add(attachment.app_id, description=description, user_email=by)
        self._stores.addons.remove(addon.id)

    def _remove_attachment(self, attachment: Attachment) -> None:
        self._stores.keys.remove(attachment.id)
        self._stores.attachments.remove(attachment.id)
