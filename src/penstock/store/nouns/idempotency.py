"""What creates with an Idempotency-Key have answered, so that a repeated one is answered again and done once."""

from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import delete, select, update

from penstock.store.database import Database
from penstock.store.engines.inserting import insert_into
from penstock.store.schema import idempotency_keys

KEPT = timedelta(hours=24)
_PENDING = 0


class Remembered(msgspec.Struct, frozen=True):
    """An earlier answer: the fingerprint of its request, its status, and its body as JSON text."""

    fingerprint: bytes
    status: int
    body: str


class IdempotencyStore:
    """Answers by operator and key, for a day."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def claim(self, operator_id: str, key: str, fingerprint: bytes) -> Remembered | None:
        """Takes the key for the request of the caller's write transaction, or gives the answer of the one that had it.

        Two requests at once: the second waits for the first one's transaction to end.
        """
        now = datetime.now(UTC)
        row = (idempotency_keys.c.operator_id == operator_id, idempotency_keys.c.key == key)
        with self._db.write() as connection:
            connection.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at < now - KEPT))
            values = {"operator_id": operator_id, "key": key, "fingerprint": fingerprint}
            insert = insert_into(idempotency_keys, connection.dialect.name)
            claim = insert.values(**values, status=_PENDING, sealed=b"", created_at=now)
            if connection.execute(claim.on_conflict_do_nothing().returning(idempotency_keys.c.key)).all():
                return None
            found = connection.execute(select(idempotency_keys).where(*row)).one()
        body = self._db.sealer.unseal(found.sealed, bound_to=_bound_to(operator_id, key))
        return Remembered(found.fingerprint, found.status, body)

    def update(self, operator_id: str, key: str, *, status: int, body: str) -> None:
        """Keeps the answer to a claimed key."""
        row = (idempotency_keys.c.operator_id == operator_id, idempotency_keys.c.key == key)
        with self._db.write() as connection:
            sealed = self._db.seal(connection, body, bound_to=_bound_to(operator_id, key))
            connection.execute(update(idempotency_keys).where(*row).values(status=status, sealed=sealed))


def _bound_to(operator_id: str, key: str) -> str:
    return f"{operator_id}/{key}"
