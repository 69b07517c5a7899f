"""Attachments: an add-on on an app under a name."""

import msgspec

from penstock.control import paging, present
from penstock.control.changes import Changes
from penstock.control.context import ControlContext
from penstock.control.fields import Alias, Reference, Text, named, read, required
from penstock.control.guard import Guard, actor_of
from penstock.control.plans import plan_of
from penstock.control.present import Attachment
from penstock.domain.access import Permission
from penstock.domain.platform import SERVICE
from penstock.store.errors import NotFoundError
from penstock.store.nouns.stores import Stores
from penstock.store.paging import Page
from penstock.web.api import Doc, Reply, Request, Route

_ONE = "/addon-attachments/{attachment}"
# More matches than this help nobody who looks for one.
_SOME = Page(by="id", size=50)


class NewAttachment(msgspec.Struct, frozen=True):
    """An attachment to make; without a name it gets the plan's default, with a colour where that is in use."""

    app: Reference
    addon: Reference
    name: Alias | None = None


class WantedAttachment(msgspec.Struct, frozen=True):
    """An attachment by id, name or ``APP::NAME``; on one app where it is named."""

    addon_attachment: Text
    app: Text | None = None
    addon_service: Text | None = None


class AttachmentRoutes:
    """/addon-attachments, the lists per app and add-on, and the attachment resolver."""

    def __init__(self, stores: Stores, context: ControlContext, changes: Changes) -> None:
        self._stores = stores
        self._context = context
        self._changes = changes
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        found, seen = list[Attachment], "that you may read"
        made = Doc("attachment.create", "Attach an add-on to an app", Attachment, NewAttachment, 201, refusals=(404,))
        made = msgspec.structs.replace(made, makes="attachment")
        every = Doc("attachment.list", f"List the attachments on apps {seen}", found, ranges=("id",))
        one = Doc("attachment.show", "Show an attachment", Attachment)
        gone = Doc("attachment.destroy", "Detach: revokes its keys and removes its config vars", Attachment)
        on_app = Doc("attachment.list_of_app", "List the attachments on an app", found, ranges=("name", "id"))
        by_name = Doc("attachment.show_of_app", "Show an attachment on an app", Attachment)
        of_addon = Doc("attachment.list_of_addon", f"List where an add-on is attached, {seen}", found, ranges=("id",))
        match = Doc("attachment.resolve", "Find attachments: at most 50", found, WantedAttachment, refusals=(404,))
        return [
            Route("POST", "/addon-attachments", self.create, Permission.APP_CHANGE, doc=made),
            Route("GET", "/addon-attachments", self.list_all, Permission.APP_READ, doc=every),
            Route("GET", "/addon-attachments/{attachment}", self.show, Permission.APP_READ, doc=one),
            Route("DELETE", _ONE, self.destroy, Permission.APP_CHANGE, revokes=True, doc=gone),
            Route("GET", "/apps/{app}/addon-attachments", self.list_of_app, Permission.APP_READ, doc=on_app),
            Route("GET", "/apps/{app}" + _ONE, self.show_of_app, Permission.APP_READ, doc=by_name),
            Route("GET", "/addons/{addon}/addon-attachments", self.list_of_addon, Permission.APP_READ, doc=of_addon),
            Route("POST", "/actions/addon-attachments/resolve", self.resolve, Permission.APP_READ, doc=match),
        ]

    def create(self, request: Request) -> Reply:
        """POST /addon-attachments: one more name for an add-on, with its own key."""
        asked = read(request, NewAttachment)
        app = self._guard.app(request, required(named(asked.app), "app"))
        # Whoever shares an add-on spends its owner's budget, so both apps must allow it.
        addon = self._guard.addon(request, required(named(asked.addon), "addon"))
        attachment = self._changes.attach(
            addon,
            app,
            plan=plan_of(self._context.catalogue, addon.plan),
            alias=asked.name,
            by=actor_of(request),
        )
        return Reply(201, present.attachment(attachment))

    def list_all(self, request: Request) -> Reply:
        """GET /addon-attachments."""
        return self._page(request, visible_to=self._guard.visible_to(request))

    def list_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/addon-attachments."""
        return self._page(request, app_id=self._guard.app(request, request.params["app"]).id)

    def list_of_addon(self, request: Request) -> Reply:
        """GET /addons/ADDON/addon-attachments."""
        addon = self._guard.addon(request, request.params["addon"])
        return self._page(request, addon_id=addon.id, visible_to=self._guard.visible_of(request, addon))

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
        asked = read(request, WantedAttachment)
        wanted, app_name = required(asked.addon_attachment, "addon_attachment"), asked.app
        if asked.addon_service not in (None, SERVICE):
            raise NotFoundError("attachment")
        visible_to = self._guard.visible_to(request)
        with self._stores.db.read():
            if app_name is None and "::" in wanted:
                app_name, _, wanted = wanted.partition("::")
            app_id = None if app_name is None else self._guard.app(request, app_name).id
            found = self._stores.attachments.list(app_id=app_id, ref=wanted, visible_to=visible_to, page=_SOME)
        if not found:
            raise NotFoundError("attachment")
        return Reply(200, [present.attachment(attachment) for attachment in found[: _SOME.size]])

    def _page(
        self, request: Request, *, app_id: str | None = None, addon_id: str | None = None, visible_to: str | None = None
    ) -> Reply:
        page = paging.page_of(request)
        found = self._stores.attachments.list(app_id=app_id, addon_id=addon_id, visible_to=visible_to, page=page)
        return paging.reply(request, page, found, present.attachment)
