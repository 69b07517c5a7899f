"""The prompts and answers that are kept of an app whose policy says so. Whoever reads them is in the audit log."""

from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from penstock.control import paging
from penstock.control.guard import Guard, actor_of
from penstock.control.names import invalid
from penstock.control.routes.audit import parse_time
from penstock.control.trail import Subject, record
from penstock.domain import content
from penstock.domain.access import Permission
from penstock.store.keeping.contents import ContentFilter
from penstock.store.nouns.stores import Stores
from penstock.web.api import Doc, Reply, Request, Route

# A page of long ones is some megabytes.
_LONGEST_PAGE = 20
_LONGEST_ID = 64


class Content(Struct, frozen=True, kw_only=True):
    """A request as its client sent it, and what it was answered, each cut at 256 KiB where ``..._cut`` says so. The
    answer to a streamed request is the message that its chunks add up to, as JSON."""

    request_id: str
    at: datetime
    key: str
    model: str
    outcome: str
    request: str
    answer: str
    request_cut: bool
    answer_cut: bool


class ContentRoutes:
    """/apps/APP/contents."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        query = {
            "request": "Only this request, by its x-request-id",
            "since": "Only from a time on: ISO 8601, or how long ago, such as 24h",
        }
        found = Doc(
            "content.list",
            f"Read the prompts and answers that are kept of an app, at most {_LONGEST_PAGE} at once",
            list[Content],
            ranges=("request_id",),
            query=query,
            refusals=(422,),
        )
        return [Route("GET", "/apps/{app}/contents", self.list_of_app, Permission.APP_SECRETS, doc=found)]

    def list_of_app(self, request: Request) -> Reply:
        """GET /apps/APP/contents. The reading is in the audit log before it is answered."""
        app = self._guard.app(request, request.params["app"])
        since, wanted = request.query.get("since"), request.query.get("request")
        if wanted is not None and not 0 < len(wanted) <= _LONGEST_ID:
            raise invalid("request must be the x-request-id of a request.")
        chosen = ContentFilter(wanted, None if since is None else parse_time(since, "since"))
        page = paging.page_of(request)
        page = replace(page, size=min(page.size, _LONGEST_PAGE))
        found = self._stores.contents.list(app.id, chosen, page=page)
        with self._stores.db.write():
            after = {"read": len(found[: page.size]), "request": wanted, "since": since}
            record(self._stores, actor_of(request), "content.read", subject=Subject(app.id, app.name, app), after=after)
        return paging.reply(request, page, found, _shown)


def _shown(one: content.Content) -> Content:
    return Content(
        request_id=one.request_id,
        at=datetime.fromtimestamp(one.at_us // 1_000_000, UTC),
        key=one.key_prefix,
        model=one.model,
        outcome=one.outcome,
        request=one.request,
        answer=one.answer,
        request_cut=one.request_cut,
        answer_cut=one.answer_cut,
    )
