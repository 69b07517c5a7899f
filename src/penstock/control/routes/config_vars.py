"""Config vars: those that a user has set, and those that attachments bring."""

from typing import Annotated

from msgspec import Meta

from penstock.control.changes import Changes
from penstock.control.context import ControlContext
from penstock.control.fields import body_of
from penstock.control.guard import Guard, actor_of
from penstock.control.names import VAR_NAME, check_var_name, invalid
from penstock.domain.access import Permission
from penstock.domain.platform import STANDARD_PLAN, App
from penstock.store.nouns.stores import Stores
from penstock.web.api import Doc, Reply, Request, Route

# Sizes are checked together and names one by one, with the name in the message; the document has the rule.
Values = dict[
    Annotated[str, Meta(extra_json_schema={"pattern": f"^{VAR_NAME.pattern}$"})],
    Annotated[str, Meta(extra_json_schema={"pattern": r"^[^\x00]*$"})] | None,
]


class ConfigVarRoutes:
    """/apps/APP/config-vars."""

    def __init__(self, stores: Stores, context: ControlContext, changes: Changes) -> None:
        self._stores = stores
        self._context = context
        self._changes = changes
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        shown = Doc("config.show", "Show the config vars of an app, secrets included", dict[str, str])
        changed = Doc("config.update", "Set config vars, or unset them with null", dict[str, str], Values)
        return [
            Route("GET", "/apps/{app}/config-vars", self.show, Permission.APP_SECRETS, doc=shown),
            Route("PATCH", "/apps/{app}/config-vars", self.update, Permission.APP_CHANGE, doc=changed),
        ]

    def show(self, request: Request) -> Reply:
        """GET: one flat object."""
        return Reply(200, self.values(self._guard.app(request, request.params["app"])))

    def update(self, request: Request) -> Reply:
        """PATCH: a string sets, null unsets; the answer is the whole map."""
        body = body_of(request)
        for name, value in body.items():
            if check_var_name(name) and value is not None and not isinstance(value, str):
                raise invalid(f"Config var {name} must be a string, or null to unset it.")
            if value is not None and "\0" in value:
                raise invalid(f"Config var {name} must not contain NUL characters.")
        app = self._guard.app(request, request.params["app"])
        self._changes.patch_vars(app, body, by=actor_of(request))
        return Reply(200, self.values(app))

    def values(self, app: App) -> dict[str, str]:
        """All config vars of an app, by name in order. A key's newest secret is the one shown."""
        with self._stores.db.read():
            found = self._stores.config_vars.list(app.id)
            attachments = self._stores.attachments.list(app_id=app.id)
            secrets = {
                held.key.attachment_id: held.secret
                for held in self._stores.keys.list(app_id=app.id)
                if not held.key.extra
            }
        for attachment in attachments:
            found[f"{attachment.name}_URL"] = self._context.inference_url
            if attachment.id in secrets:
                found[f"{attachment.name}_KEY"] = secrets[attachment.id]
            if attachment.plan != STANDARD_PLAN:
                found[f"{attachment.name}_MODEL_ID"] = attachment.plan
        return dict(sorted(found.items()))
