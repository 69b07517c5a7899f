"""Prompts and answers of apps that have them kept: whoever has the database can add them, and only the control plane,
which has the master key, opens them."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from penstock.domain.content import Content
from penstock.domain.ids import new_id
from penstock.store.boxes import close_box, new_pair, open_box
from penstock.store.database import Database
from penstock.store.errors import StoreError
from penstock.store.governance import app_policies, content_keys, contents
from penstock.store.paging import Page, cut

_DAY_US = 86_400 * 1_000_000
_ID_BYTES = 36

_encode = msgspec.json.encode
_decoder = msgspec.json.Decoder(Content)


class ContentFilter(NamedTuple):
    """Which of an app: all, or one request's, or those that were admitted at a time or later."""

    request_id: str | None = None
    since: datetime | None = None


EVERYTHING = ContentFilter()


class ContentStore:
    """Kept contents. A box begins with the id of the key that opens it."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def make_key(self) -> None:
        """The key pair, unless there is one; what takes it to keep anything. Raises StoreError."""
        with self._db.write() as connection:
            if connection.execute(select(content_keys.c.id)).first() is None:
                private, public = new_pair()
                id_ = new_id()
                sealed = self._db.seal(connection, private, bound_to=id_)
                row = {"id": id_, "public": public, "sealed": sealed, "created_at": datetime.now(UTC)}
                connection.execute(insert(content_keys).values(row))

    def add(self, found: Sequence[Content]) -> int:
        """Keeps them, each once, for as long as its app's policy says now: not at all where it says nothing, or where
        the app is gone. How many it kept. Needs no master key."""
        with self._db.read() as connection:
            newest = select(content_keys.c.id, content_keys.c.public).order_by(content_keys.c.created_at.desc())
            key = connection.execute(newest.limit(1)).first()
        if key is None:
            return 0
        boxes = {
            one.request_id: key.id.encode() + close_box(key.public, _encode(one), bound_to=_bound_to(one))
            for one in found
        }
        with self._db.write() as connection:
            days = _days(connection, {one.app_id for one in found})
            there = set(
                connection.execute(select(contents.c.request_id).where(contents.c.request_id.in_(boxes))).scalars()
            )
            rows = [
                {
                    "request_id": one.request_id,
                    "app_id": one.app_id,
                    "body": boxes[one.request_id],
                    "created_us": one.at_us,
                    "expires_us": one.at_us + days[one.app_id] * _DAY_US,
                }
                for one in found
                if one.app_id in days and one.request_id not in there
            ]
            if rows:
                connection.execute(insert(contents), rows)
        return len(rows)

    def list(self, app_id: str, chosen: ContentFilter = EVERYTHING, *, page: Page | None = None) -> tuple[Content, ...]:
        """What is kept of an app and has not expired, one page by ``request_id`` or all. Raises StoreError when a box
        does not open."""
        query = cut(select(contents), page, {"request_id": contents.c.request_id})
        query = query.where(contents.c.app_id == app_id, contents.c.expires_us > _now_us())
        if chosen.request_id is not None:
            query = query.where(contents.c.request_id == chosen.request_id)
        if chosen.since is not None:
            query = query.where(contents.c.created_us >= int(chosen.since.timestamp() * 1_000_000))
        with self._db.read() as connection:
            rows = connection.execute(query).all()
            keys = self._private_keys(connection, {row.body[:_ID_BYTES].decode("ascii", "replace") for row in rows})
        found = []
        for row in rows:
            private = keys.get(row.body[:_ID_BYTES].decode("ascii", "replace"))
            if private is None:
                raise StoreError("a kept prompt does not open: its key is not in the database")
            opened = open_box(private, row.body[_ID_BYTES:], bound_to=f"{row.app_id}/{row.request_id}")
            found.append(_decoder.decode(opened))
        return tuple(found)

    def shorten(self, app_id: str, days: int | None) -> int:
        """What is kept of an app goes after so many days at the latest, or with None at once; how many that concerns.
        In the transaction that has changed the app's policy, which ``add`` waits for."""
        of_app = contents.c.app_id == app_id
        with self._db.write() as connection:
            if days is None:
                return connection.execute(delete(contents).where(of_app)).rowcount
            ends = contents.c.created_us + days * _DAY_US
            late = update(contents).where(of_app, contents.c.expires_us > ends).values(expires_us=ends)
            return connection.execute(late).rowcount

    def count(self, app_id: str) -> int:
        """How many requests of an app are kept, those that have expired included as long as they are there."""
        with self._db.read() as connection:
            query = select(func.count()).select_from(contents).where(contents.c.app_id == app_id)
            return connection.execute(query).scalar_one()

    def _private_keys(self, connection: Connection, ids: Iterable[str]) -> dict[str, str]:
        rows = connection.execute(select(content_keys).where(content_keys.c.id.in_([*ids]))).all()
        return {row.id: self._db.sealer.unseal(row.sealed, bound_to=row.id) for row in rows}


def _days(connection: Connection, app_ids: Iterable[str]) -> dict[str, int]:
    # Held until the end: a policy that ends keeping then finds what is added here.
    query = select(app_policies.c.app_id, app_policies.c.content_days)
    query = query.where(app_policies.c.app_id.in_(sorted(app_ids)), app_policies.c.content_days.is_not(None))
    rows = connection.execute(query.order_by(app_policies.c.app_id).with_for_update(read=True)).all()
    return {row.app_id: row.content_days for row in rows}


def _bound_to(one: Content) -> str:
    return f"{one.app_id}/{one.request_id}"


def _now_us() -> int:
    return int(datetime.now(UTC).timestamp() * 1_000_000)
