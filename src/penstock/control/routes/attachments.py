"""Attachments: an add-on on an app under a name."""

from penstock.control import present
from penstock.control.changes import Changes
from penstock.control.context import ControlContext
from penstock.control.fields import body_of, reference, required, text
from penstock.control.plans import plan_of
from penstock.control.routes.account import operator_of
from penstock.domain.platform import SERVICE, Attachment
from penstock.store.errors import NotFoundError
from penstock.store.nouns.stores import Stores
from penstock.web.api import Reply, Request, Route


class AttachmentRoutes:
    """/addon-attachments, the lists per app and add-on, and the attachment resolver."""

    def __init__(self, stores: Stores, context: ControlContext, changes: Changes) -> None:
        self._stores = stores
        self._context = context
        self._changes = changes

    def routes(self) -> list[Route]:
        """The table of this noun."""
        return [
            Route("POST", "/addon-attachments", self.create),
            Route("GET", "/addon-attachments", self.list_all),
            Route("GET", "/addon-attachments/{attachment}", self.show),
            Route("DELETE", "/addon-attachments/{attachment}", self.destroy),
            Route("GET", "/apps/{app}/addon-attachments", self.list_of_app),
            Route("GET", "/apps/{app}/addon-attachments/{attachment}", self.show_of_app),
            Route("GET", "/addons/{addon}/addon-attachments", self.list_of_addon),
            Route("POST", "/actions/addon-attachments/resolve", self.resolve),
        ]

    def create(self, request: Request) -> Reply:
        """POST /addon-attachments: one more name for an add-on, with its own key."""
        body = body_of(request)
        app = self._stores.apps.get(required(reference(body, "app"), "app"))
        addon = self._stores.addons.get(required(reference(body, "addon"), "addon"))
        attachment = self._changes.attach(
            addon,
            app,
            plan=plan_of(self._context.catalogue, addon.plan),
            alias=text(body, "name"),
            by=operator_of(request).email,
        )
        return Reply(201, present.attachment(attachment))

    def list_all(self, request: Request) -> Reply:
        """GET /addon-attachments."""
        return _reply(self._stores.attachments.list())

    def list_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/addon-attachments."""
        return _reply(self._stores.attachments.list(app_id=self._stores.apps.get(request.params["app"]).id))

    def list_of_addon(self, request: Request) -> Reply:
        """GET /addons/ADDON/addon-attachments."""
        return _reply(self._stores.attachments.list(addon_id=self._stores.addons.get(request.params["addon"]).id))

    def show(self, request: Request) -> Reply:
        """GET /addon-attachments/ID."""
        return Reply(200, present.attachment(self._stores.attachments.get(request.params["attachment"])))

    def show_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/addon-attachments/NAME."""
        app = self._stores.apps.get(request.params["app"])
        return Reply(200, present.attachment(self._stores.attachments.get(request.params["attachment"], app_id=app.id)))

    def destroy(self, request: Request) -> Reply:
        """DELETE /addon-attachments/ID: detaches and revokes the key."""
        attachment = self._stores.attachments.get(request.params["attachment"])
        self._changes.detach(attachment, by=operator_of(request).email)
        return Reply(200, present.attachment(attachment))

    def resolve(self, request: Request) -> Reply:
        """POST /actions/addon-attachments/resolve: all matches in an array, 404 with resource
        ``add_on attachment`` when there are none, ``app`` when the app is not known."""
        body = body_of(request)
        wanted = required(text(body, "addon_attachment"), "addon_attachment")
        app_name = text(body, "app")
        if text(body, "addon_service") not in (None, SERVICE):
            raise NotFoundError("attachment")
        with self._stores.db.read():
            if app_name is None and "::" in wanted:
                app_name, _, wanted = wanted.partition("::")
            app_id = None if app_name is None else self._stores.apps.get(app_name).id
            exact = self._stores.attachments.find(wanted, app_id=app_id)
            found = (exact,) if exact else self._stores.attachments.list(app_id=app_id, name=wanted.upper())
        if not found:
            raise NotFoundError("attachment")
        return _reply(found)


def _reply(attachments: tuple[Attachment, ...]) -> Reply:
    return Reply(200, [present.attachment(attachment) for attachment in attachments])
