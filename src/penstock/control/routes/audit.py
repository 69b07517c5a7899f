"""The audit log, read only."""

import re
from datetime import UTC, datetime, timedelta

from penstock.control import paging
from penstock.control.guard import Guard
from penstock.control.names import invalid, is_id
from penstock.control.people import shapes
from penstock.control.people.shapes import AuditEvent
from penstock.domain.access import Permission
from penstock.store.nouns.audit import AuditFilter
from penstock.store.nouns.stores import Stores
from penstock.web.api import Doc, Reply, Request, Route

_ACTION = re.compile(r"[a-z_.]{1,64}")
_AGO = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class AuditRoutes:
    """/audit-events and /apps/APP/audit-events."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        query = {
            "since": "Only from a time on: ISO 8601, or how long ago, such as 24h",
            "action": "Only one action, such as addon.create, or those that begin so, such as addon.",
        }
        named = query | {"app": "Only of an app: its id, or the name that it had then. Also for apps that are gone"}
        every = Doc("audit.list", "Show who did what", list[AuditEvent], ranges=("seq",), query=named, refusals=(422,))
        of_app = Doc(
            "audit.list_of_app",
            "Show who did what to an app",
            every.reply,
            ranges=every.ranges,
            query=query,
            refusals=(422,),
        )
        return [
            Route("GET", "/audit-events", self.list_all, Permission.AUDIT_READ, doc=every),
            Route("GET", "/apps/{app}/audit-events", self.list_of_app, Permission.APP_AUDIT, doc=of_app),
        ]

    def list_all(self, request: Request) -> Reply:
        """GET /audit-events, oldest first."""
        self._guard.check(request)
        app = request.query.get("app")
        return self._page(request, AuditFilter(app_id=app) if app and is_id(app) else AuditFilter(app_name=app))

    def list_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/audit-events, oldest first."""
        return self._page(request, AuditFilter(app_id=self._guard.app(request, request.params["app"]).id))

    def _page(self, request: Request, chosen: AuditFilter) -> Reply:
        since, action = request.query.get("since"), request.query.get("action")
        if action is not None and not _ACTION.fullmatch(action):
            raise invalid("action must be an action or the beginning of one, such as addon.create or addon.")
        chosen = chosen._replace(since=None if since is None else parse_time(since, "since"), action=action)
        page = paging.page_of(request)
        return paging.reply(request, page, self._stores.audit.list(chosen, page=page), shapes.audit_event)


def parse_time(text: str, name: str) -> datetime:
    """A time in ISO 8601, of UTC where it names no zone, or how long ago: 90s, 30m, 24h, 7d, 2w. Raises ApiError, which
    calls the value by ``name``."""
    try:
        if ago := _AGO.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        # A plus sign that was not escaped arrives as a space.
        at = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid(f"{name} must be a time such as 2026-01-31T12:00:00Z, or how long ago: 30m, 24h, 7d.") from None
