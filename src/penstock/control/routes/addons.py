"""Add-ons: provision, list, find, destroy."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from penstock.control import paging, present
from penstock.control.changes import AddOnOrder, Changes
from penstock.control.context import ControlContext
from penstock.control.fields import AddOnName, Alias, Reference, Text, named, read, required
from penstock.control.guard import Guard, actor_of
from penstock.control.names import REGIONS, check_addon_name, check_region, invalid
from penstock.control.plans import choose_plan
from penstock.control.present import AddOn
from penstock.domain import platform
from penstock.domain.access import Permission
from penstock.domain.platform import SERVICE
from penstock.store.errors import NotFoundError
from penstock.store.nouns.stores import Stores
from penstock.store.paging import Page
from penstock.web.api import Doc, Reply, Request, Route

Found = tuple[platform.AddOn, ...]
# Checked below, in words of our own.
Options = Annotated[
    dict[str, Any],
    Meta(
        extra_json_schema={
            "properties": {"region": {"type": "string", "enum": list(REGIONS)}},
            "additionalProperties": False,
        }
    ),
]

_RANGES = ("name", "id")
# More matches than this help nobody who looks for one.
_SOME = Page(by="name", size=50)


class AttachedAs(Struct, frozen=True):
    """Under which name an add-on is attached."""

    name: Alias | None = None


class NewAddOn(Struct, frozen=True):
    """An add-on to provision; ``config`` are the CLI's options after its double dash."""

    plan: Reference
    attachment: AttachedAs | None = None
    config: Options | None = None
    name: AddOnName | None = None


class Destroy(Struct, frozen=True):
    """What it takes to destroy an add-on that other apps use too: either of the two."""

    force: bool | None = None
    confirm: Text | None = None


class WantedAddOn(Struct, frozen=True):
    """An add-on by name, id, ``APP::ALIAS``, service or plan; by alias too where an app is named."""

    addon: Text
    app: Text | None = None
    addon_service: Text | None = None


class AddOnRoutes:
    """/addons, /apps/APP/addons and the add-on resolver."""

    def __init__(self, stores: Stores, context: ControlContext, changes: Changes) -> None:
        self._stores = stores
        self._context = context
        self._changes = changes
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        made = Doc("addon.create", "Provision an add-on for an app", AddOn, NewAddOn, status=201, makes="addon")
        owned = Doc("addon.list_of_app", "List the add-ons that an app owns", list[AddOn], ranges=_RANGES)
        of_app = Doc("addon.show_of_app", "Show an add-on that an app owns or that is attached to it", AddOn)
        confirm = {"confirm": "The name of the owning app, for an add-on that other apps use too"}
        gone = Doc("addon.destroy", "Destroy an add-on and detach it everywhere", AddOn, Destroy, query=confirm)
        every = Doc("addon.list", "List the add-ons of the apps that you may read", list[AddOn], ranges=_RANGES)
        one = Doc("addon.show", "Show an add-on", AddOn)
        found = Doc("addon.resolve", "Find add-ons: at most 50 of them", list[AddOn], WantedAddOn, refusals=(404,))
        return [
            Route("POST", "/apps/{app}/addons", self.create, Permission.APP_CHANGE, doc=made),
            Route("GET", "/apps/{app}/addons", self.list_of_app, Permission.APP_READ, doc=owned),
            Route("GET", "/apps/{app}/addons/{addon}", self.show_of_app, Permission.APP_READ, doc=of_app),
            Route("DELETE", "/apps/{app}/addons/{addon}", self.destroy, Permission.APP_CHANGE, revokes=True, doc=gone),
            Route("GET", "/addons", self.list_all, Permission.APP_READ, doc=every),
            Route("GET", "/addons/{addon}", self.show, Permission.APP_READ, doc=one),
            Route("POST", "/actions/addons/resolve", self.resolve, Permission.APP_READ, doc=found),
        ]

    def create(self, request: Request) -> Reply:
        """POST /apps/APP/addons: the add-on, its attachment, the key and the release, or nothing."""
        asked = read(request, NewAddOn)
        order = AddOnOrder(
            plan=choose_plan(self._context.catalogue, required(named(asked.plan), "plan")),
            alias=asked.attachment.name if asked.attachment else None,
            name=None if asked.name is None else check_addon_name(asked.name),
            config=_options(asked.config or {}),
        )
        app = self._guard.app(request, request.params["app"])
        addon, attached = self._changes.provision(app, order, by=actor_of(request))
        return Reply(201, present.addon(addon, [attached]))

    def list_all(self, request: Request) -> Reply:
        """GET /addons."""
        return self._page(request, visible_to=self._guard.visible_to(request))

    def list_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/addons: those that the app owns."""
        return self._page(request, app_id=self._guard.app(request, request.params["app"]).id)

    def show(self, request: Request) -> Reply:
        """GET /addons/ADDON, also as ``APP::ALIAS``, which addons:attach takes."""
        wanted = request.params["addon"]
        app, _, alias = wanted.partition("::")
        if alias:
            wanted = self._guard.attachment(request, alias.upper(), app=self._guard.app(request, app)).addon_id
        return Reply(200, self._present((self._guard.addon(request, wanted),))[0])

    def show_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/addons/ADDON: owned by the app or attached to it."""
        return Reply(200, self._present((self._of_app(request),))[0])

    def destroy(self, request: Request) -> Reply:
        """DELETE /apps/APP/addons/ADDON with ``{"force", "confirm"}``; the CLI wants ``state`` deprovisioned."""
        asked = read(request, Destroy)
        addon = self._of_app(request, owned=True)
        attachments = self._stores.attachments.of_addons([addon.id])
        confirm = asked.confirm or request.query.get("confirm")
        confirmed = bool(asked.force) or confirm in (addon.app_name, addon.app_id)
        self._changes.deprovision(addon, confirmed=confirmed, by=actor_of(request))
        return Reply(200, present.addon(addon, attachments, state="deprovisioned"))

    def resolve(self, request: Request) -> Reply:
        """POST /actions/addons/resolve: all matches in an array, 404 with resource ``add_on`` when there are none."""
        asked = read(request, WantedAddOn)
        wanted, app_name = required(asked.addon, "addon"), asked.app
        if asked.addon_service not in (None, SERVICE):
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

    def _matches_anywhere(self, wanted: str, visible_to: str | None) -> Found:
        service, _, plan = wanted.partition(":")
        if service != SERVICE:
            return self._stores.addons.list(ref=wanted, visible_to=visible_to)
        return self._stores.addons.list(plan=plan or None, visible_to=visible_to, page=_SOME)[: _SOME.size]

    def _matches_on(self, wanted: str, app: platform.App) -> Found:
        attachment = self._stores.attachments.find(wanted.upper(), app_id=app.id)
        if attachment is not None:
            return (self._stores.addons.get(attachment.addon_id),)
        owned = self._stores.addons.list(app_id=app.id)
        pool = {addon.id: addon for addon in (*owned, *self._stores.addons.list(attached_to=app.id))}.values()
        by_name = tuple(addon for addon in pool if wanted in (addon.id, addon.name))
        return by_name or tuple(addon for addon in pool if wanted in (SERVICE, addon.plan_name))

    def _of_app(self, request: Request, *, owned: bool = False) -> platform.AddOn:
        app = self._guard.app(request, request.params["app"])
        addon = self._stores.addons.get(request.params["addon"])
        if addon.app_id == app.id:
            return addon
        if owned or not any(item.app_id == app.id for item in self._stores.attachments.list(addon_id=addon.id)):
            raise NotFoundError("addon")
        return addon

    def _page(self, request: Request, *, app_id: str | None = None, visible_to: str | None = None) -> Reply:
        page = paging.page_of(request)
        with self._stores.db.read():
            found = self._stores.addons.list(app_id=app_id, visible_to=visible_to, page=page)
            shown = self._present(found)
        return paging.reply(request, page, shown, lambda item: item)

    def _present(self, addons: Found) -> list[AddOn]:
        of: dict[str, list[platform.Attachment]] = {}
        for attachment in self._stores.attachments.of_addons([addon.id for addon in addons]):
            of.setdefault(attachment.addon_id, []).append(attachment)
        return [present.addon(addon, of.get(addon.id, ())) for addon in addons]


def _options(given: dict[str, Any]) -> dict[str, str]:
    """The options that we know; everybody who may see the add-on sees them, so that none may be a secret."""
    for name, value in given.items():
        if name != "region":
            raise invalid(f"config.{name[:80]}: there is no such option; an add-on has config.region only.")
        check_region(value if isinstance(value, str) else "", "config.region")
    return given
