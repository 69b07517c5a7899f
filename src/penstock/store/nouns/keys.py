"""Data plane keys: found by hash, readable only through the master key, every change numbered for the followers."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, bindparam, delete, insert, select, update

from penstock.domain.ids import new_api_key, new_id, secret_hash
from penstock.domain.platform import STANDARD_PLAN, ApiKey, Principal
from penstock.store.database import Database
from penstock.store.errors import NotFoundError
from penstock.store.paging import Page, cut
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
        """Whom the key with that SHA-256 stands for, or None. A key that has expired is found until it is purged."""
        return self.find_principals([digest]).get(digest)

    def find_principals(self, digests: Sequence[bytes]) -> dict[bytes, Principal]:
        """The same for up to 500 keys at once; those that do not exist are left out."""
        with self._db.read() as connection:
            rows = connection.execute(_principals().where(api_keys.c.hash.in_(digests))).all()
        return {row.hash: _principal(row) for row in rows}

    def add(
        self,
        attachment_id: str,
        *,
        extra: bool = False,
        models: tuple[str, ...] | None = None,
        expires_at: datetime | None = None,
    ) -> ApiKeySecret:
        """A new key for an attachment; an ``extra`` one is not what its config vars show."""
        return self._add(
            ApiKey(
                id=new_id(),
                prefix="",
                attachment_id=attachment_id,
                created_at=datetime.now(UTC),
                extra=extra,
                models=models,
                expires_at=expires_at,
            )
        )

    def list(self, *, app_id: str | None = None, attachment_id: str | None = None) -> tuple[ApiKeySecret, ...]:
        """Keys with their secrets, oldest first: of one attachment, or of all attachments on an app."""
        return tuple(
            ApiKeySecret(_api_key(row), self._db.sealer.unseal(row.sealed, bound_to=row.id))
            for row in self._rows(app_id, attachment_id)
        )

    def list_public(
        self, *, app_id: str | None = None, attachment_id: str | None = None, page: Page | None = None
    ) -> tuple[ApiKey, ...]:
        """The same without secrets, so that nothing is unsealed for it; or by id, as a page has it."""
        return tuple(_api_key(row) for row in self._rows(app_id, attachment_id, page))

    def rotate(self, key: ApiKey, *, grace: timedelta) -> ApiKeySecret:
        """A successor with the key's limits and, when it had one, its lifetime. The key goes on for the grace, or is
        removed at once when there is none; an expiry that comes sooner stays. With the key that the config vars show
        go the ones that it had itself replaced."""
        now = datetime.now(UTC)
        with self._db.write() as connection:
            held = self.list_public(attachment_id=key.attachment_id)
            olds = [old for old in held if old.id == key.id or not (key.extra or old.extra)]
            if key.id not in {old.id for old in olds}:
                raise NotFoundError("key")
            key = olds[-1]
            # The newest is the one that is shown, also when the clock has been set back.
            created_at = max(now, key.created_at + timedelta(microseconds=1))
            lifetime = None if key.expires_at is None else key.expires_at - key.created_at
            made = self._add(
                ApiKey(
                    id=new_id(),
                    prefix="",
                    attachment_id=key.attachment_id,
                    created_at=created_at,
                    extra=key.extra,
                    models=key.models,
                    expires_at=None if lifetime is None else now + lifetime,
                )
            )
            for old in olds:
                if grace <= timedelta(0):
                    self.remove_key(old.id)
                elif old.expires_at is None or old.expires_at > now + grace:
                    expire = update(api_keys).where(api_keys.c.id == old.id).values(expires_at=now + grace)
                    self._note([*connection.execute(expire.returning(api_keys.c.hash)).scalars()])
        return made

    def remove_key(self, key_id: str) -> None:
        """Revokes one key. Raises NotFoundError."""
        with self._db.write() as connection:
            gone = connection.execute(delete(api_keys).where(api_keys.c.id == key_id).returning(api_keys.c.hash))
            hashes = [*gone.scalars()]
            if not hashes:
                raise NotFoundError("key")
            self._note(hashes)

    def remove(self, attachment_id: str) -> int:
        """Revokes all keys of an attachment; how many there were."""
        with self._db.write() as connection:
            removed = connection.execute(
                delete(api_keys).where(api_keys.c.attachment_id == attachment_id).returning(api_keys.c.hash)
            ).scalars()
            hashes = [*removed]
            self._note(hashes)
        return len(hashes)

    def purge(self, app_id: str, before: datetime) -> int:
        """Removes the keys of an app that expired before then; how many. Until then their clients are told that they
        expired."""
        of_app = api_keys.c.attachment_id.in_(select(attachments.c.id).where(attachments.c.app_id == app_id))
        with self._db.write() as connection:
            old = delete(api_keys).where(of_app, api_keys.c.expires_at < before).returning(api_keys.c.hash)
            hashes = [*connection.execute(old).scalars()]
            self._note(hashes)
        return len(hashes)

    def note_uses(self, uses: Mapping[str, float]) -> None:
        """Keeps when keys were last used, Unix time by key id, in one statement. A time never moves back, because
        several workers tell theirs in any order; a key that is gone is left out."""
        if not uses:
            return
        at = bindparam("used_at", type_=api_keys.c.last_used_at.type)
        unknown_or_older = api_keys.c.last_used_at.is_(None) | (api_keys.c.last_used_at < at)
        note = update(api_keys).where(api_keys.c.id == bindparam("key_id"), unknown_or_older).values(last_used_at=at)
        rows = [{"key_id": id_, "used_at": datetime.fromtimestamp(uses[id_], UTC)} for id_ in sorted(uses)]
        with self._db.write() as connection:
            connection.execute(note, rows)

    def touch(self, app_id: str) -> None:
        """Makes followers read the keys of an app again, because what they stand for has changed."""
        keys = select(api_keys.c.hash).join(attachments, attachments.c.id == api_keys.c.attachment_id)
        with self._db.write() as connection:
            self._note([*connection.execute(keys.where(attachments.c.app_id == app_id)).scalars()])

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

    def _add(self, draft: ApiKey) -> ApiKeySecret:
        """Stores the key under a new secret, whose beginning becomes its prefix."""
        secret = new_api_key()
        key = msgspec.structs.replace(draft, prefix=secret[:PREFIX_LENGTH])
        digest = secret_hash(secret)
        values = msgspec.structs.asdict(key) | {"models": None if key.models is None else list(key.models)}
        with self._db.write() as connection:
            values |= {"hash": digest, "sealed": self._db.seal(connection, secret, bound_to=key.id)}
            connection.execute(insert(api_keys).values(values))
            self._note([digest])
        return ApiKeySecret(key, secret)

    def _note(self, hashes: Hashes) -> None:
        # Last, because the one row that counts them is everybody's: no one waits for another while holding it.
        self._db.at_commit(lambda connection: _note_changes(connection, hashes))

    def _rows(self, app_id: str | None, attachment_id: str | None, page: Page | None = None) -> Sequence[Row[Any]]:
        query = select(api_keys).join(attachments, attachments.c.id == api_keys.c.attachment_id)
        if app_id is not None:
            query = query.where(attachments.c.app_id == app_id)
        if attachment_id is not None:
            query = query.where(attachments.c.id == attachment_id)
        if page is None:
            query = query.order_by(api_keys.c.created_at, api_keys.c.id)
        else:
            query = cut(query, page, {"id": api_keys.c.id})
        with self._db.read() as connection:
            return connection.execute(query).all()


def _note_changes(connection: Connection, hashes: Hashes) -> None:
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


def _principals() -> Select[Any]:
    return (
        select(
            api_keys.c.id.label("key_id"),
            api_keys.c.hash,
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


def _principal(row: Row[Any]) -> Principal:
    return Principal(
        key_id=row.key_id,
        key_hash=row.hash,
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
