"""Apps and their releases."""

import re

from penstock.control import present
from penstock.control.changes import Changes
from penstock.control.context import ControlContext
from penstock.control.fields import body_of, reference, required, text
from penstock.control.guard import Guard, actor_of
from penstock.control.names import check_app_name, check_region, invalid
from penstock.domain.access import Permission
from penstock.domain.platform import App
from penstock.store.nouns.stores import Stores
from penstock.web.api import Reply, Request, Route

_STACK = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_PAGE = 200
_LONGEST_PAGE = 1000


class AppRoutes:
    """/apps, /users/~/apps and /apps/APP/releases."""

    def __init__(self, stores: Stores, context: ControlContext, changes: Changes) -> None:
        self._stores = stores
        self._context = context
        self._changes = changes
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        return [
            Route("POST", "/apps", self.create, Permission.APPS_CREATE),
            Route("GET", "/apps", self.list_all, Permission.APP_READ),
            Route("GET", "/users/~/apps", self.list_all, Permission.APP_READ),
            Route("GET", "/apps/{app}", self.show, Permission.APP_READ),
            Route("PATCH", "/apps/{app}", self.update, Permission.APP_SHARE),
            Route("DELETE", "/apps/{app}", self.destroy, Permission.APP_DESTROY, revokes=True),
            Route("GET", "/apps/{app}/releases", self.releases, Permission.APP_READ),
            Route("GET", "/apps/{app}/dynos", self.none_of, Permission.APP_READ),
            Route("GET", "/apps/{app}/collaborators", self.none_of, Permission.APP_READ),
        ]

    def create(self, request: Request) -> Reply:
        """POST /apps. Fields for what is not here (space, team, buildpacks) are accepted and have no effect."""
        self._guard.check(request)
        body = body_of(request)
        name, region, stack = text(body, "name"), reference(body, "region"), reference(body, "stack")
        if stack is not None and not _STACK.fullmatch(stack):
            raise invalid("stack must be a name such as heroku-24.")
        app = self._changes.create_app(
            None if name is None else check_app_name(name),
            by=actor_of(request),
            region="us" if region is None else check_region(region, "region"),
            stack=stack or "heroku-24",
        )
        return self._reply(app, status=201)

    def list_all(self, request: Request) -> Reply:
        """GET /apps."""
        return Reply(
            200, [self._present(app) for app in self._stores.apps.list(visible_to=self._guard.visible_to(request))]
        )

    def show(self, request: Request) -> Reply:
        """GET /apps/APP."""
        return self._reply(self._guard.app(request, request.params["app"]))

    def update(self, request: Request) -> Reply:
        """PATCH /apps/APP renames."""
        name = check_app_name(required(text(body_of(request), "name"), "name"))
        app = self._guard.app(request, request.params["app"])
        return self._reply(self._changes.rename_app(app, name, by=actor_of(request)))

    def destroy(self, request: Request) -> Reply:
        """DELETE /apps/APP, with all that hangs on it."""
        app = self._guard.app(request, request.params["app"])
        self._changes.destroy_app(app, by=actor_of(request))
        return self._reply(app)

    def releases(self, request: Request) -> Reply:
        """GET /apps/APP/releases, in the order and number of the Range header."""
        app = self._guard.app(request, request.params["app"])
        newest_first, limit = parse_range(request.headers.get("range", ""))
        with self._stores.db.read():
            latest = self._stores.releases.list(app.id, newest_first=True, limit=1)
            found = self._stores.releases.list(app.id, newest_first=newest_first, limit=limit)
        current = latest[0].version if latest else 0
        return Reply(200, [present.release(item, app_name=app.name, current=item.version == current) for item in found])

    def none_of(self, request: Request) -> Reply:
        """What an app has none of here; apps:info asks for it."""
        self._guard.app(request, request.params["app"])
        return Reply(200, [])

    def _reply(self, app: App, *, status: int = 200) -> Reply:
        return Reply(status, self._present(app))

    def _present(self, app: App) -> present.Json:
        return present.app(app, web_url=self._context.web_url(app.name))


def parse_range(header: str) -> tuple[bool, int]:
    """Whether newest first, and how many, of a Range such as ``version ..; order=desc,max=1`` (both orders of the
    options are sent by the CLI). What cannot be read counts as not sent."""
    options = header.partition(";")[2]
    newest_first = re.search(r"\border\s*=\s*desc\b", options) is not None
    size = re.search(r"\bmax\s*=\s*(\d{1,9})\b", options)
    return newest_first, min(max(int(size[1]), 1), _LONGEST_PAGE) if size else _PAGE
