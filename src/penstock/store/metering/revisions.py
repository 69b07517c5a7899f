"""Tells gateway workers what to read again: keys by their hash, and by one number what all of them know."""

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from penstock.domain.limits import Scope
from penstock.store.database import Database
from penstock.store.governance import governance_revision
from penstock.store.schema import api_keys, attachments, key_changes, key_revision

# A follower that is further behind than this many changes forgets all it knows and starts again.
KEPT_CHANGES = 10_000

Hashes = list[bytes]

_BELOW: dict[Scope, ColumnElement[str]] = {
    Scope.KEY: api_keys.c.id,
    Scope.ATTACHMENT: attachments.c.id,
    Scope.ADDON: attachments.c.addon_id,
    Scope.APP: attachments.c.app_id,
}


def note_keys(db: Database, hashes: Hashes) -> None:
    """Numbers a change of those keys when the open write transaction ends."""
    # Last, because the one row that counts them is everybody's: no one waits for another while holding it.
    db.at_commit(lambda connection: _note(connection, hashes))


def touch(db: Database, scope: Scope, subject_id: str) -> None:
    """Makes workers read again what an object bounds: its keys or, for a model, what all workers know."""

    def keys(connection: Connection) -> None:
        # Behind the lock that every change of a key takes: a key that is not seen yet comes after this change.
        _hold(connection)
        of_object = select(api_keys.c.hash).join(attachments, attachments.c.id == api_keys.c.attachment_id)
        _note(connection, [*connection.execute(of_object.where(_BELOW[scope] == subject_id)).scalars()])

    with db.write():
        db.at_commit(_bump_shared if scope is Scope.MODEL else keys)


def touch_shared(db: Database) -> None:
    """Makes workers read again what all of them know (domain.limits.Shared)."""
    with db.write():
        db.at_commit(_bump_shared)


def _hold(connection: Connection) -> None:
    connection.execute(select(key_revision.c.id).with_for_update())


def _bump_shared(connection: Connection) -> None:
    # The other counter first, as whoever needs both takes them.
    _hold(connection)
    connection.execute(update(governance_revision).values(revision=governance_revision.c.revision + 1))


def _note(connection: Connection, hashes: Hashes) -> None:
    if not hashes:
        return
    count = len(hashes)
    bump = update(key_revision).values(revision=key_revision.c.revision + count)
    last, pruned_to = connection.execute(bump.returning(key_revision.c.revision, key_revision.c.pruned_to)).one()
    first = last - count + 1
    connection.execute(
        insert(key_changes), [{"revision": first + at, "key_hash": digest} for at, digest in enumerate(hashes)]
    )
    if last - KEPT_CHANGES > pruned_to:
        connection.execute(delete(key_changes).where(key_changes.c.revision <= last - KEPT_CHANGES))
        connection.execute(update(key_revision).values(pruned_to=last - KEPT_CHANGES))
