"""Add-ons: provision, list, find, destroy."""

from collections.abc import Iterable

from penstock.control import present
from penstock.control.changes import AddOnOrder, Changes
from penstock.control.context import ControlContext
from penstock.control.fields import body_of, flag, options, reference, required, text
from penstock.control.guard import Guard, actor_of
from penstock.control.names import check_addon_name, check_region, invalid
from penstock.control.plans import choose_plan
from penstock.domain.access import Permission
from penstock.domain.platform import SERVICE, AddOn, App, Attachment
from penstock.store.errors import NotFoundError
from penstock.store.nouns.stores import Stores
from penstock.web.api import Reply, Request, Route


class AddOnRoutes:
    """/addons, /apps/APP/addons and the add-on resolver."""

    def __init__(self, stores: Stores, context: ControlContext, changes: Changes) -> None:
        self._stores = stores
        self._context = context
        self._changes = changes
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        return [
            Route("POST", "/apps/{app}/addons", self.create, Permission.APP_CHANGE),
            Route("GET", "/apps/{app}/addons", self.list_of_app, Permission.APP_READ),
            Route("GET", "/apps/{app}/addons/{addon}", self.show_of_app, Permission.APP_READ),
            Route("DELETE", "/apps/{app}/addons/{addon}", self.destroy, Permission.APP_CHANGE, revokes=True),
            Route("GET", "/addons", self.list_all, Permission.APP_READ),
            Route("GET", "/addons/{addon}", self.show, Permission.APP_READ),
            Route("POST", "/actions/addons/resolve", self.resolve, Permission.APP_READ),
        ]

    def create(self, request: Request) -> Reply:
        """POST /apps/APP/addons: the add-on, its attachment, the key and the release, or nothing."""
        body = body_of(request)
        plan = choose_plan(self._context.catalogue, required(reference(body, "plan"), "plan"))
        attachment = body.get("attachment")
        if attachment is not None and not isinstance(attachment, dict):
            raise invalid("attachment must be an object.")
        name, config = text(body, "name"), options(body, "config")
        if "region" in config:
            check_region(config["region"], "config.region")
        order = AddOnOrder(
            plan=plan,
            alias=text(attachment or {}, "name"),
            name=None if name is None else check_addon_name(name),
            config=config,
        )
        app = self._guard.app(request, request.params["app"])
        addon, attached = self._changes.provision(app, order, by=actor_of(request))
        return Reply(201, present.addon(addon, [attached]))

    def list_all(self, request: Request) -> Reply:
        """GET /addons."""
        visible_to = self._guard.visible_to(request)
        with self._stores.db.read():
            attachments = self._stores.attachments.list(visible_to=visible_to)
            return Reply(200, self._present(self._stores.addons.list(visible_to=visible_to), attachments))

    def list_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/addons: those that the app owns."""
        app = self._guard.app(request, request.params["app"])
        with self._stores.db.read():
            attachments = self._stores.attachments.list(app_id=app.id)
            return Reply(200, self._present(self._stores.addons.list(app_id=app.id), attachments))

    def show(self, request: Request) -> Reply:
        """GET /addons/ADDON, also as ``APP::ALIAS``, which addons:attach takes."""
        wanted = request.params["addon"]
        app, _, alias = wanted.partition("::")
        if alias:
            wanted = self._guard.attachment(request, alias.upper(), app=self._guard.app(request, app)).addon_id
        return Reply(200, self._present([self._guard.addon(request, wanted)])[0])

    def show_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/addons/ADDON: owned by the app or attached to it."""
        return Reply(200, self._present([self._of_app(request)])[0])

    def destroy(self, request: Request) -> Reply:
        """DELETE /apps/APP/addons/ADDON with ``{"force", "confirm"}``; the CLI wants ``state`` deprovisioned."""
        body = body_of(request)
        addon = self._of_app(request, owned=True)
        attachments = self._stores.attachments.list(addon_id=addon.id)
        confirm = text(body, "confirm") or request.query.get("confirm")
        confirmed = flag(body, "force") or confirm in (addon.app_name, addon.app_id)
        self._changes.deprovision(addon, confirmed=confirmed, by=actor_of(request))
        return Reply(200, present.addon(addon, attachments, state="deprovisioned"))

    def resolve(self, request: Request) -> Reply:
        """POST /actions/addons/resolve: all matches in an array, 404 with resource ``add_on`` when there are none."""
        body = body_of(request)
        wanted = required(text(body, "addon"), "addon")
        app_name = text(body, "app")
        if text(body, "addon_service") not in (None, SERVICE):
            raise NotFoundError("addon")
        visible_to = self._guard.visible_to(request)
        with self._stores.db.read():
            if app_name is None and "::" in wanted:
                app_name, _, wanted = wanted.partition("::")
            if app_name is None:
                found = self._matches_anywhere(wanted, visible_to)
            else:
                found = self._matches_on(wanted, self._guard.app(request, app_name))
        if not found:
            raise NotFoundError("addon")
        return Reply(200, self._present(found))

    def _matches_anywhere(self, wanted: str, visible_to: str | None) -> list[AddOn]:
        if wanted.startswith(SERVICE):
            return _of_plan(self._stores.addons.list(visible_to=visible_to), wanted)
        return [*self._stores.addons.list(ref=wanted, visible_to=visible_to)]

    def _matches_on(self, wanted: str, app: App) -> list[AddOn]:
        attachment = self._stores.attachments.find(wanted.upper(), app_id=app.id)
        if attachment is not None:
            return [self._stores.addons.get(attachment.addon_id)]
        owned = self._stores.addons.list(app_id=app.id)
        pool = {addon.id: addon for addon in (*owned, *self._stores.addons.list(attached_to=app.id))}.values()
        return [addon for addon in pool if wanted in (addon.id, addon.name)] or _of_plan(pool, wanted)

    def _of_app(self, request: Request, *, owned: bool = False) -> AddOn:
        app = self._guard.app(request, request.params["app"])
        addon = self._stores.addons.get(request.params["addon"])
        if addon.app_id == app.id:
            return addon
        if owned or not any(item.app_id == app.id for item in self._stores.attachments.list(addon_id=addon.id)):
            raise NotFoundError("addon")
        return addon

    def _present(self, addons: Iterable[AddOn], attachments: Iterable[Attachment] | None = None) -> list[present.Json]:
        of: dict[str, list[Attachment]] = {}
        for attachment in attachments or ():
            of.setdefault(attachment.addon_id, []).append(attachment)
        if attachments is None:
            addons = list(addons)
            of = {addon.id: list(self._stores.attachments.list(addon_id=addon.id)) for addon in addons}
        return [present.addon(addon, of.get(addon.id, ())) for addon in addons]


def _of_plan(pool: Iterable[AddOn], wanted: str) -> list[AddOn]:
    return [addon for addon in pool if wanted in (SERVICE, addon.plan_name)]
