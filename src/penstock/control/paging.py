"""Ranges as Heroku's Platform API has them: ``Range: name ]last..; max=200, order=asc`` in, ``Next-Range`` out."""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from penstock.store.paging import Page
from penstock.web.api import ApiError, Reply, Request

LONGEST_PAGE = 1000
# The attributes that are numbers, and the largest that their columns take; the others are text.
NUMBERS = {"version": 2**31 - 1, "seq": 2**63 - 1}
_LONGEST_HEADER = 1024

T = TypeVar("T")

_SIZE = re.compile(r"[1-9][0-9]{0,8}")


def page_of(request: Request) -> Page:
    """The page that a request asks for, of a route whose description has ``ranges``; without a Range header, the
    first 200 by the first attribute. Raises ApiError 416."""
    header = request.headers.get("range")
    if header is None:
        return Page(by=request.ranges[0])
    if len(header) > _LONGEST_HEADER:
        raise _unreadable(request, f"is longer than {_LONGEST_HEADER} characters")
    # The CLI separates the options with commas, Heroku's own pages with semicolons, in any order.
    wanted, *rest = (part.strip() for part in header.replace(";", ",").split(","))
    by, exclusive, first, last = _span(request, wanted)
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
        after=exclusive,
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


def _span(request: Request, wanted: str) -> tuple[str, bool, str, str]:
    """``name ]a..b`` as name, whether a is left out, a and b. No regular expression: they took time by the square."""
    match wanted.split():
        case [by, span] if ".." in span:
            first, _, last = span.removeprefix("]").partition("..")
            return by, span.startswith("]"), first, last
    raise _unreadable(request, "cannot be read")


def _value(request: Request, by: str, text: str) -> str | int | None:
    if not text:
        return None
    if by not in NUMBERS:
        return text
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > NUMBERS[by]:
        raise _unreadable(request, f"has a {by} that is not a number from 0 to {NUMBERS[by]}")
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
