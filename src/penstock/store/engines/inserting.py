"""An INSERT that can say what happens where the row is there already, in the words of the database in use."""

from typing import Any

from sqlalchemy import Table


def insert_into(table: Table, dialect: str) -> Any:
    """The statement; both databases' ones have ``on_conflict_do_update`` and ``on_conflict_do_nothing``."""
    # Either module takes a while to load, and a process has one database.
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as build  # noqa: PLC0415
    else:
        from sqlalchemy.dialects.sqlite import insert as build  # type: ignore[assignment] # noqa: PLC0415
    return build(table)
