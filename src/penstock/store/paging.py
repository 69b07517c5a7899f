"""One page of a list, cut by key and never by offset: its cost does not depend on where in the list it lies."""

from collections.abc import Mapping
from operator import ge, gt, le, lt
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a list in the order of the attribute ``by``, from ``first`` to ``last``, both included unless
    ``after`` is set: then ``first`` itself is left out. The stores give ``size`` + 1 rows where there are more."""

    by: str
    first: str | int | None = None
    last: str | int | None = None
    after: bool = False
    descending: bool = False
    size: int = 200


def cut(
    query: Select[Any], page: Page | None, columns: Mapping[str, ColumnElement[Any]], *, sort: bool = False
) -> Select[Any]:
    """The query for that page, or for all rows in the order of the first column. Each column is unique in the list.

    ``sort`` keeps a database without statistics from walking an index in the order of the list, for a query that finds
    few rows by another index: it has the rows sorted by a value that is in no index. Such columns are texts.
    """
    column = next(iter(columns.values())) if page is None else columns[page.by]
    column = column + "" if sort else column
    if page is None:
        return query.order_by(column)
    start, end = (lt if page.after else le, ge) if page.descending else (gt if page.after else ge, le)
    if page.first is not None:
        query = query.where(start(column, page.first))
    if page.last is not None:
        query = query.where(end(column, page.last))
    return query.order_by(column.desc() if page.descending else column).limit(page.size + 1)
