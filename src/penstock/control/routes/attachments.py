"""Attachments: an add-on on an app under a name."""

from penstock.control import present
from penstock.control.changes import Changes
from penstock.control.context import ControlContext
from penstock.control.fields import body_of, reference, required, text
from penstock.control.guard import Guard, actor_of
from penstock.control.plans import plan_of
from penstock.domain.access import Permission
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
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        return [
            Route("POST", "/addon-attachments", self.create, Permission.APP_CHANGE),
            Route("GET", "/addon-attachments", self.list_all, Permission.APP_READ),
            Route("GET", "/addon-attachments/{attachment}", self.show, Permission.APP_READ),
            Route("DELETE", "/addon-attachments/{attachment}", self.destroy, Permission.APP_CHANGE, revokes=True),
            Route("GET", "/apps/{app}/addon-attachments", self.list_of_app, Permission.APP_READ),
            Route("GET", "/apps/{app}/addon-attachments/{attachment}", self.show_of_app, Permission.APP_READ),
            Route("GET", "/addons/{addon}/addon-attachments", self.list_of_addon, Permission.APP_READ),
            Route("POST", "/actions/addon-attachments/resolve", self.resolve, Permission.APP_READ),
        ]

    def create(self, request: Request) -> Reply:
        """POST /addon-attachments: one more name for an add-on, with its own key."""
        body = body_of(request)
        app = self._guard.app(request, required(reference(body, "app"), "app"))
        # Whoever shares an add-on spends its owner's budget, so both apps must allow it.
        addon = self._guard.addon(request, required(reference(body, "addon"), "addon"))
        attachment = self._changes.attach(
            addon,
            app,
            plan=plan_of(self._context.catalogue, addon.plan),
            alias=text(body, "name"),
            by=actor_of(request),
        )
        return Reply(201, present.attachment(attachment))

    def list_all(self, request: Request) -> Reply:
        """GET /addon-attachments."""
        return _reply(self._stores.attachments.list(visible_to=self._guard.visible_to(request)))

    def list_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/addon-attachments."""
        return _reply(self._stores.attachments.list(app_id=self._guard.app(request, request.params["app"]).id))

    def list_of_addon(self, request: Request) -> Reply:
        """GET /addons/ADDON/addon-attachments."""
        addon, visible_to = self._guard.addon(request, request.params["addon"]), self._guard.visible_to(request)
        return _reply(self._stores.attachments.list(addon_id=addon.id, visible_to=visible_to))

    def show(self, request: Request) -> Reply:
        """GET /addon-attachments/ID."""
        return Reply(200, present.attachment(self._guard.attachment(request, request.params["attachment"])))

    def show_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/addon-attachments/NAME."""
        app = self._guard.app(request, request.params["app"])
        return Reply(200, present.attachment(self._guard.attachment(request, request.params["attachment"], app=app)))

    def destroy(self, request: Request) -> Reply:
        """DELETE /addon-attachments/ID: detaches and revokes the key."""
        attachment = self._guard.attachment(request, request.params["attachment"])
        self._changes.detach(attachment, by=actor_of(request))
        return Reply(200, present.attachment(attachment))

    def resolve(self, request: Request) -> Reply:
        """POST /actions/addon-attachments/resolve: all matches in an array, 404 with resource
        ``add_on attachment`` when there are none, ``app`` when the app is not known."""
        body = body_of(request)
        wanted = required(text(body, "addon_attachment"), "addon_attachment")
        app_name = text(body, "app")
        if text(body, "addon_service") not in (None, SERVICE):
            raise NotFoundError("attachment")
        visible_to = self._guard.visible_to(request)
        with self._stores.db.read():
            if app_name is None and "::" in wanted:
                app_name, _, wanted = wanted.partition("::")
            app_id = None if app_name is None else self._guard.app(request, app_name).id
            found = self._stores.attachments.list(app_id=app_id, ref=wanted, visible_to=visible_to)
        if not found:
            raise NotFoundError("attachment")
        return _reply(found)


def _reply(attachments: tuple[Attachment, ...]) -> Reply:
    return Reply(200, [present.attachment(attachment) for attachment in attachments])
