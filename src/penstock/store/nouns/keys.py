"""Data plane keys: found by hash, readable only through the master key, every change numbered for the followers."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, delete, insert, select, update

from penstock.domain.ids import new_api_key, new_id, secret_hash
from penstock.domain.platform import STANDARD_PLAN, ApiKey, Principal
from penstock.store.database import Database
from penstock.store.schema import addons, api_keys, apps, attachments, key_changes, key_revision

PREFIX_LENGTH = 12
# A follower that is further behind than this many changes forgets all it knows and starts again.
KEPT_CHANGES = 10_000

Hashes = list[bytes]


class ApiKeySecret(msgspec.Struct, frozen=True):
    """A key with its secret, which only the config vars show."""

    key: ApiKey
    secret: str

    def __repr__(self) -> str:
        return f"ApiKeySecret({self.key.prefix}...)"


class KeyStore:
    """Keys of attachments."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find_principal(self, digest: bytes) -> Principal | None:
        """Whom the key with that SHA-256 stands for, or None."""
        with self._db.read() as connection:
            row = connection.execute(_principals().where(api_keys.c.hash == digest)).one_or_none()
        if row is None:
            return None
        return Principal(
            key_id=row.key_id,
            key_prefix=row.prefix,
            app_id=row.app_id,
            app_name=row.app_name,
            addon_id=row.addon_id,
            attachment_id=row.attachment_id,
            attachment_name=row.attachment_name,
            model_id=None if row.plan == STANDARD_PLAN else row.plan,
            models=None if row.models is None else tuple(row.models),
            expires_at=None if row.expires_at is None else row.expires_at.timestamp(),
            provisioned_at=row.provisioned_at.timestamp(),
        )

    def add(
        self,
        attachment_id: str,
        *,
        extra: bool = False,
        models: tuple[str, ...] | None = None,
        expires_at: datetime | None = None,
    ) -> ApiKeySecret:
        """A new key for an attachment; an ``extra`` one is not what its config vars show."""
        secret = new_api_key()
        key = ApiKey(
            id=new_id(),
            prefix=secret[:PREFIX_LENGTH],
            attachment_id=attachment_id,
            created_at=datetime.now(UTC),
            extra=extra,
            models=models,
            expires_at=expires_at,
        )
        digest = secret_hash(secret)
        sealed = self._db.sealer.seal(secret, bound_to=key.id)
        with self._db.write() as connection:
            connection.execute(
                insert(api_keys).values(
                    id=key.id,
                    prefix=key.prefix,
                    hash=digest,
                    sealed=sealed,
                    attachment_id=attachment_id,
                    extra=extra,
                    models=None if models is None else list(models),
                    expires_at=expires_at,
                    created_at=key.created_at,
                )
            )
            _note_changes(connection, [digest])
        return ApiKeySecret(key, secret)

    def list(self, *, app_id: str | None = None, attachment_id: str | None = None) -> tuple[ApiKeySecret, ...]:
        """Keys with their secrets, oldest first: of one attachment, or of all attachments on an app."""
        query = select(api_keys).join(attachments, attachments.c.id == api_keys.c.attachment_id)
        query = query.order_by(api_keys.c.created_at, api_keys.c.id)
        if app_id is not None:
            query = query.where(attachments.c.app_id == app_id)
        if attachment_id is not None:
            query = query.where(attachments.c.id == attachment_id)
        with self._db.read() as connection:
            rows = connection.execute(query).all()
        return tuple(
            ApiKeySecret(
                _api_key(row),
                self._db.sealer.unseal(row.sealed, bound_to=row.id),
            )
            for row in rows
        )

    def remove(self, attachment_id: str) -> int:
        """Revokes all keys of an attachment; how many there were."""
        with self._db.write() as connection:
            removed = connection.execute(
                delete(api_keys).where(api_keys.c.attachment_id == attachment_id).returning(api_keys.c.hash)
            ).scalars()
            hashes = [*removed]
            _note_changes(connection, hashes)
        return len(hashes)

    def touch(self, app_id: str) -> None:
        """Makes followers read the keys of an app again, because what they stand for has changed."""
        keys = select(api_keys.c.hash).join(attachments, attachments.c.id == api_keys.c.attachment_id)
        with self._db.write() as connection:
            _note_changes(connection, [*connection.execute(keys.where(attachments.c.app_id == app_id)).scalars()])

    def revision(self) -> int:
        """The number of key changes ever made."""
        with self._db.read() as connection:
            return int(connection.execute(select(key_revision.c.revision)).scalar_one())

    def changes_since(self, revision: int) -> tuple[int, Hashes | None]:
        """The current revision, and the hashes of keys changed after ``revision``; None for the hashes means that
        they are not known (too far behind, or the database was replaced): forget everything."""
        with self._db.read() as connection:
            now, pruned_to = connection.execute(select(key_revision.c.revision, key_revision.c.pruned_to)).one()
            if revision == now:
                return now, []
            if revision < pruned_to or revision > now:
                return now, None
            query = select(key_changes.c.key_hash).where(key_changes.c.revision > revision)
            hashes = connection.execute(query.order_by(key_changes.c.revision)).scalars()
            return now, [*hashes]


def _note_changes(connection: Connection, hashes: Hashes) -> None:
    if not hashes:
        return
    count = len(hashes)
    bump = update(key_revision).values(revision=key_revision.c.revision + count)
    last = connection.execute(bump.returning(key_revision.c.revision)).scalar_one()
    first = last - count + 1
    connection.execute(
        insert(key_changes), [{"revision": first + at, "key_hash": digest} for at, digest in enumerate(hashes)]
    )
    pruned_to = max(0, last - KEPT_CHANGES)
    if pruned_to:
        connection.execute(delete(key_changes).where(key_changes.c.revision <= pruned_to))
        connection.execute(update(key_revision).values(pruned_to=pruned_to))


def _principals() -> Select[Any]:
    return (
        select(
            api_keys.c.id.label("key_id"),
            api_keys.c.prefix,
            apps.c.id.label("app_id"),
            apps.c.name.label("app_name"),
            attachments.c.addon_id,
            attachments.c.id.label("attachment_id"),
            attachments.c.name.label("attachment_name"),
            addons.c.plan,
            api_keys.c.models,
            api_keys.c.expires_at,
            addons.c.created_at.label("provisioned_at"),
        )
        .join(attachments, attachments.c.id == api_keys.c.attachment_id)
        .join(apps, apps.c.id == attachments.c.app_id)
        .join(addons, addons.c.id == attachments.c.addon_id)
    )


def _api_key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        prefix=row.prefix,
        attachment_id=row.attachment_id,
        created_at=row.created_at,
        extra=row.extra,
        models=None if row.models is None else tuple(row.models),
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )
