"""Removes what was kept for a time only: answers that are given again, and prompts of apps that have them logged."""

from typing import Any

from sqlalchemy import ColumnElement, Table, delete, select

from penstock.store.database import Database
from penstock.store.governance import answers, contents
from penstock.store.schema import apps


def drop_expired(db: Database, now_s: float, *, most: int = 500) -> int:
    """Remove at most so many of each kind whose time was over at that Unix time, or whose app is gone: how many there
    were. Raises PenstockError store_unavailable."""

    def act() -> int:
        with db.write() as connection:
            return sum(
                connection.execute(_oldest(table, key, expires, most)).rowcount
                for table, key, expires in (
                    (answers, answers.c.id, answers.c.expires_s < now_s),
                    # Kept by a worker that did not know yet that the app had gone.
                    (answers, answers.c.id, answers.c.app_id.not_in(select(apps.c.id))),
                    (contents, contents.c.request_id, contents.c.expires_us < int(now_s * 1_000_000)),
                )
            )

    return db.retrying(act)


def _oldest(table: Table, key: ColumnElement[Any], expired: ColumnElement[bool], most: int) -> Any:
    return delete(table).where(key.in_(select(key).where(expired).limit(most)))
