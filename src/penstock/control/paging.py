"""Ranges as Heroku's Platform API has them: ``Range: name ]last..; max=200, order=asc`` in, ``Next-Range`` out."""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from penstock.store.paging import Page
from penstock.web.api import ApiError, Reply, Request

LONGEST_PAGE = 1000
# An attribute that is a number; the others are text.
NUMBERS = ("version", "seq")

T = TypeVar("T")

_RANGE = re.compile(r"(\w+)\s+(\]?)(\S*?)\.\.(\S*)")
_SIZE = re.compile(r"[1-9][0-9]{0,8}")


def page_of(request: Request) -> Page:
    """The page that a request asks for, of a route whose description has ``ranges``; without a Range header, the
    first 200 by the first attribute. Raises ApiError 416."""
    header = request.headers.get("range")
    if header is None:
        return Page(by=request.ranges[0])
    # The CLI separates the options with commas, Heroku's own pages with semicolons, in any order.
    wanted, *rest = re.split(r"\s*[;,]\s*", header.strip())
    found = _RANGE.fullmatch(wanted)
    if found is None:
        raise _unreadable(request, "cannot be read")
    by, exclusive, first, last = found.groups()
    if by not in request.ranges:
        raise _unreadable(request, f"names the attribute {by[:40]}")
    options = {name.strip(): value.strip() for name, _, value in (option.partition("=") for option in rest if option)}
    size, order = options.pop("max", "200"), options.pop("order", "asc")
    if options or order not in ("asc", "desc") or not _SIZE.fullmatch(size):
        raise _unreadable(request, "has an option that cannot be read")
    return Page(
        by=by,
        first=_value(request, by, first),
        last=_value(request, by, last),
        after=bool(exclusive),
        descending=order == "desc",
        size=min(int(size), LONGEST_PAGE),
    )


def reply(request: Request, page: Page, rows: Sequence[T], present: Callable[[T], Any]) -> Reply:
    """The rows of a page as the store gave them: 206 with a Next-Range when there are more, else 200. An attribute of
    the page is one of the presented rows too."""
    shown = [present(row) for row in rows[: page.size]]
    headers = {"Accept-Ranges": ", ".join(request.ranges), "Content-Range": f"{page.by} .."}
    if shown:
        first, last = getattr(shown[0], page.by), getattr(shown[-1], page.by)
        headers["Content-Range"] = f"{page.by} {first}..{last}"
    if len(rows) <= page.size:
        return Reply(200, shown, headers)
    order = "desc" if page.descending else "asc"
    end = "" if page.last is None else page.last
    headers["Next-Range"] = f"{page.by} ]{last}..{end}; max={page.size}, order={order}"
    return Reply(206, shown, headers)


def _value(request: Request, by: str, text: str) -> str | int | None:
    if not text:
        return None
    if by not in NUMBERS:
        return text
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise _unreadable(request, f"has a {by} that is not a number")
    return int(text)


def _unreadable(request: Request, problem: str) -> ApiError:
    attributes = ", ".join(request.ranges)
    return ApiError(
        416,
        "requested_range_not_satisfiable",
        f"The Range header {problem}. Send one such as `{request.ranges[0]} ..; max=200, order=asc`; "
        f"the attributes here are {attributes}.",
        headers={"Accept-Ranges": attributes},
    )
