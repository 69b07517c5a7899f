"""How apps are treated: weight and reserve in queues, cached answers, kept prompts."""

from datetime import UTC, datetime

import msgspec
from sqlalchemy import delete, exc, insert, select, update

from penstock.domain.limits import Policy, Scope
from penstock.store.database import Database
from penstock.store.errors import RetryableError
from penstock.store.governance import app_policies
from penstock.store.metering.governance import policy_of
from penstock.store.metering.revisions import touch, touch_shared


class PolicyStore:
    """Policies by app id; an app without a row has the default one. A change makes gateway workers read again what it
    concerns: the app's keys, and the reserves that all of them know."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, app_id: str, *, held: bool = False) -> Policy:
        """The policy of an app; ``held`` keeps others from changing it until the transaction ends."""
        query = select(app_policies).where(app_policies.c.app_id == app_id)
        with self._db.read() as connection:
            row = connection.execute(query.with_for_update() if held else query).one_or_none()
        return Policy() if row is None else policy_of(row)

    def put(self, app_id: str, policy: Policy) -> None:
        """Sets the policy of an app."""
        values = {**msgspec.structs.asdict(policy), "updated_at": datetime.now(UTC)}
        row = app_policies.c.app_id == app_id
        with self._db.write() as connection:
            before = self.find(app_id, held=True)
            if connection.execute(update(app_policies).where(row).values(values)).rowcount == 0:
                try:
                    connection.execute(insert(app_policies).values({"app_id": app_id, **values}))
                except exc.IntegrityError as error:
                    raise RetryableError from error
            touch(self._db, Scope.APP, app_id)
            if before.reserve_percent != policy.reserve_percent:
                touch_shared(self._db)

    def remove(self, app_id: str) -> None:
        """Forgets the policy of an app that goes."""
        with self._db.write() as connection:
            gone = delete(app_policies).where(app_policies.c.app_id == app_id).returning(app_policies.c.reserve_percent)
            if any(connection.execute(gone).scalars()):
                touch_shared(self._db)
