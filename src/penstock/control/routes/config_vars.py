"""Config vars: those that a user has set, and those that attachments bring."""

from penstock.control.changes import Changes
from penstock.control.context import ControlContext
from penstock.control.fields import body_of
from penstock.control.guard import Guard, actor_of
from penstock.control.names import check_var_name, invalid
from penstock.domain.access import Permission
from penstock.domain.platform import STANDARD_PLAN, App
from penstock.store.nouns.stores import Stores
from penstock.web.api import Reply, Request, Route


class ConfigVarRoutes:
    """/apps/APP/config-vars."""

    def __init__(self, stores: Stores, context: ControlContext, changes: Changes) -> None:
        self._stores = stores
        self._context = context
        self._changes = changes
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        return [
            Route("GET", "/apps/{app}/config-vars", self.show, Permission.APP_SECRETS),
            Route("PATCH", "/apps/{app}/config-vars", self.update, Permission.APP_CHANGE),
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
