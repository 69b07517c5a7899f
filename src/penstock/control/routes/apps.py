"""Apps and their releases."""

import re

import msgspec

from penstock.control import paging, present
from penstock.control.changes import Changes
from penstock.control.context import ControlContext
from penstock.control.fields import AppName, Reference, Text, named, read, required
from penstock.control.guard import Guard, actor_of, operator_of
from penstock.control.names import check_app_name, check_region, invalid
from penstock.control.people.changes import OperatorChanges
from penstock.control.present import App, Json, Release
from penstock.domain import platform
from penstock.domain.access import Open, Permission
from penstock.store.nouns.stores import Stores
from penstock.store.paging import Page
from penstock.web.api import Doc, Reply, Request, Route

_STACK = re.compile(r"[a-z][a-z0-9.-]{0,63}")


class NewApp(msgspec.Struct, frozen=True):
    """An app to create; without a name it gets a random one."""

    name: AppName | None = None
    region: Reference | None = None
    stack: Reference | None = None


class AppChange(msgspec.Struct, frozen=True):
    """The new name of an app, or its new owner: an operator's email or id."""

    name: AppName | None = None
    owner: Text | None = None


class AppRoutes:
    """/apps, /users/~/apps and /apps/APP/releases."""

    def __init__(self, stores: Stores, context: ControlContext, changes: Changes) -> None:
        self._stores = stores
        self._context = context
        self._changes = changes
        self._people = OperatorChanges(stores)
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        made = Doc("app.create", "Create an app", App, NewApp, status=201, makes="app")
        every = Doc("app.list", "List the apps that you may read", list[App], ranges=("name", "id"))
        yours = msgspec.structs.replace(every, id="app.list_yours", summary="List the apps that you own or share")
        one = Doc("app.show", "Show an app", App)
        change = Doc("app.update", "Rename an app, or make another operator its owner", App, AppChange)
        gone = Doc("app.destroy", "Destroy an app with all that hangs on it", App)
        history = Doc("release.list", "List the releases of an app", list[Release], ranges=("version",))
        dynos = Doc("app.dynos", "List dynos: there are none here", list[Json])
        return [
            Route("POST", "/apps", self.create, Permission.APPS_CREATE, doc=made),
            Route("GET", "/apps", self.list_all, Permission.APP_READ, doc=every),
            Route("GET", "/users/~/apps", self.list_own, Open.OPERATOR, doc=yours),
            Route("GET", "/apps/{app}", self.show, Permission.APP_READ, doc=one),
            Route("PATCH", "/apps/{app}", self.update, Permission.APP_SHARE, doc=change),
            Route("DELETE", "/apps/{app}", self.destroy, Permission.APP_DESTROY, revokes=True, doc=gone),
            Route("GET", "/apps/{app}/releases", self.releases, Permission.APP_READ, doc=history),
            Route("GET", "/apps/{app}/dynos", self.none_of, Permission.APP_READ, doc=dynos),
        ]

    def create(self, request: Request) -> Reply:
        """POST /apps. Fields for what is not here (space, team, buildpacks) are accepted and have no effect."""
        self._guard.check(request)
        asked = read(request, NewApp)
        region, stack = named(asked.region), named(asked.stack)
        if stack is not None and not _STACK.fullmatch(stack):
            raise invalid("stack must be a name such as heroku-24.")
        app = self._changes.create_app(
            None if asked.name is None else check_app_name(asked.name),
            by=actor_of(request),
            region="us" if region is None else check_region(region, "region"),
            stack=stack or "heroku-24",
        )
        return self._reply(app, status=201)

    def list_all(self, request: Request) -> Reply:
        """GET /apps: all that the caller may read."""
        return self._list(request, self._guard.visible_to(request))

    def list_own(self, request: Request) -> Reply:
        """GET /users/~/apps: those that the caller owns or shares, whatever they may read besides."""
        return self._list(request, operator_of(request).id)

    def show(self, request: Request) -> Reply:
        """GET /apps/APP."""
        return self._reply(self._guard.app(request, request.params["app"]))

    def update(self, request: Request) -> Reply:
        """PATCH /apps/APP renames, or makes another operator the owner; for that it takes what destroying it takes."""
        app, asked = self._guard.app(request, request.params["app"]), read(request, AppChange)
        if asked.owner is None:
            name = check_app_name(required(asked.name, "name"))
            return self._reply(self._changes.rename_app(app, name, by=actor_of(request)))
        if asked.name is not None:
            raise invalid("name and owner cannot change in one request.")
        self._guard.app(request, app.id, Permission.APP_DESTROY)
        heir = self._stores.operators.find(asked.owner)
        if heir is None:
            raise invalid(f"owner: no operator has the email or id {asked.owner[:80]}.")
        return self._reply(self._people.transfer(app, heir.id, by=actor_of(request)))

    def destroy(self, request: Request) -> Reply:
        """DELETE /apps/APP, with all that hangs on it."""
        app = self._guard.app(request, request.params["app"])
        self._changes.destroy_app(app, by=actor_of(request))
        return self._reply(app)

    def releases(self, request: Request) -> Reply:
        """GET /apps/APP/releases, in the order and number of the Range header."""
        app = self._guard.app(request, request.params["app"])
        page = paging.page_of(request)
        with self._stores.db.read():
            latest = self._stores.releases.list(app.id, page=Page(by="version", descending=True, size=1))
            found = self._stores.releases.list(app.id, page=page)
            people = self._stores.operators.ids_by_email({item.user_email for item in found})
        current = latest[0].version if latest else 0

        def present_one(item: platform.Release) -> Release:
            user = present.person(item.user_email, people.get(item.user_email))
            return present.release(item, app_name=app.name, current=item.version == current, user=user)

        return paging.reply(request, page, found, present_one)

    def none_of(self, request: Request) -> Reply:
        """What an app has none of here; apps:info asks for it."""
        self._guard.app(request, request.params["app"])
        return Reply(200, [])

    def _list(self, request: Request, visible_to: str | None) -> Reply:
        page = paging.page_of(request)
        found = self._stores.apps.list(visible_to=visible_to, page=page)
        return paging.reply(request, page, found, self._present)

    def _reply(self, app: platform.App, *, status: int = 200) -> Reply:
        return Reply(status, self._present(app))

    def _present(self, app: platform.App) -> App:
        return present.app(app, web_url=self._context.web_url(app.name))
