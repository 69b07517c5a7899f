"""Apps and their releases."""

import re

from penstock.control import present
from penstock.control.changes import Changes
from penstock.control.context import ControlContext
from penstock.control.fields import body_of, reference, required, text
from penstock.control.names import check_app_name, check_region, invalid
from penstock.control.routes.account import operator_of
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

    def routes(self) -> list[Route]:
        """The table of this noun."""
        return [
            Route("POST", "/apps", self.create),
            Route("GET", "/apps", self.list_all),
            Route("GET", "/users/~/apps", self.list_all),
            Route("GET", "/apps/{app}", self.show),
            Route("PATCH", "/apps/{app}", self.update),
            Route("DELETE", "/apps/{app}", self.destroy),
            Route("GET", "/apps/{app}/releases", self.releases),
            Route("GET", "/apps/{app}/dynos", self.none_of),
            Route("GET", "/apps/{app}/collaborators", self.none_of),
        ]

    def create(self, request: Request) -> Reply:
        """POST /apps. Fields for what is not here (space, team, buildpacks) are accepted and have no effect."""
        body = body_of(request)
        name, region, stack = text(body, "name"), reference(body, "region"), reference(body, "stack")
        if stack is not None and not _STACK.fullmatch(stack):
            raise invalid("stack must be a name such as heroku-24.")
        app = self._changes.create_app(
            None if name is None else check_app_name(name),
            by=operator_of(request).email,
            region="us" if region is None else check_region(region, "region"),
            stack=stack or "heroku-24",
        )
        return self._reply(app, status=201)

    def list_all(self, request: Request) -> Reply:
        """GET /apps."""
        return Reply(200, [self._present(app) for app in self._stores.apps.list()])

    def show(self, request: Request) -> Reply:
        """GET /apps/APP."""
        return self._reply(self._stores.apps.get(request.params["app"]))

    def update(self, request: Request) -> Reply:
        """PATCH /apps/APP renames."""
        name = check_app_name(required(text(body_of(request), "name"), "name"))
        return self._reply(self._changes.rename_app(self._stores.apps.get(request.params["app"]), name))

    def destroy(self, request: Request) -> Reply:
        """DELETE /apps/APP, with all that hangs on it."""
        app = self._stores.apps.get(request.params["app"])
        self._changes.destroy_app(app, by=operator_of(request).email)
        return self._reply(app)

    def releases(self, request: Request) -> Reply:
        """GET /apps/APP/releases, in the order and number of the Range header."""
        app = self._stores.apps.get(request.params["app"])
        newest_first, limit = parse_range(request.headers.get("range", ""))
        with self._stores.db.read():
            latest = self._stores.releases.list(app.id, newest_first=True, limit=1)
            found = self._stores.releases.list(app.id, newest_first=newest_first, limit=limit)
        current = latest[0].version if latest else 0
        return Reply(200, [present.release(item, app_name=app.name, current=item.version == current) for item in found])

    def none_of(self, request: Request) -> Reply:
        """What an app has none of here; apps:info asks for it."""
        self._stores.apps.get(request.params["app"])
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
