"""Data plane keys: found by hash, readable only through the master key, every change numbered for the followers."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Row, Select, bindparam, delete, insert, select, update

from penstock.domain.ids import new_api_key, new_id, secret_hash
from penstock.domain.limits import Scope
from penstock.domain.platform import STANDARD_PLAN, ApiKey, Principal
from penstock.store.database import Database
from penstock.store.errors import NotFoundError
from penstock.store.governance import app_policies
from penstock.store.metering.governance import POLICY_COLUMNS, Bounds, policy_of
from penstock.store.metering.revisions import Hashes, note_keys, touch
from penstock.store.metering.subjects import forget, pass_on
from penstock.store.paging import Page, cut
from penstock.store.schema import addons, api_keys, apps, attachments, key_changes, key_revision

PREFIX_LENGTH = 12


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
            bounds = Bounds(connection, rows)
        return {row.hash: _principal(row, bounds) for row in rows}

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
        """A successor with the key's limits, its budgets and what is spent of them and, when it had one, its lifetime.
        The key goes on for the grace, or is removed at once when there is none; an expiry that comes sooner stays. With
        the key that the config vars show go the ones that it had itself replaced."""
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
            pass_on(connection, key.id, made.key.id)
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
            forget(connection, Scope.KEY, [key_id])
            self._note(hashes)

    def remove(self, attachment_id: str) -> int:
        """Revokes all keys of an attachment; how many there were."""
        with self._db.write() as connection:
            gone = connection.execute(
                delete(api_keys)
                .where(api_keys.c.attachment_id == attachment_id)
                .returning(api_keys.c.hash, api_keys.c.id)
            ).all()
            forget(connection, Scope.KEY, [row.id for row in gone])
            self._note([row.hash for row in gone])
        return len(gone)

    def purge(self, app_id: str, before: datetime) -> int:
        """Removes the keys of an app that expired before then; how many. Until then their clients are told that they
        expired."""
        of_app = api_keys.c.attachment_id.in_(select(attachments.c.id).where(attachments.c.app_id == app_id))
        with self._db.write() as connection:
            old = delete(api_keys).where(of_app, api_keys.c.expires_at < before)
            gone = connection.execute(old.returning(api_keys.c.hash, api_keys.c.id)).all()
            forget(connection, Scope.KEY, [row.id for row in gone])
            self._note([row.hash for row in gone])
        return len(gone)

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
        touch(self._db, Scope.APP, app_id)

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
        note_keys(self._db, hashes)

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


def _principals() -> Select[Any]:
    return (
        select(
            api_keys.c.id.label("key_id"),
            api_keys.c.hash,
            api_keys.c.prefix,
            apps.c.id.label("app_id"),
            apps.c.name.label("app_name"),
            attachments.c.addon_id,
            addons.c.name.label("addon_name"),
            attachments.c.id.label("attachment_id"),
            attachments.c.name.label("attachment_name"),
            addons.c.plan,
            api_keys.c.models,
            api_keys.c.expires_at,
            addons.c.created_at.label("provisioned_at"),
            *POLICY_COLUMNS,
        )
        .join(attachments, attachments.c.id == api_keys.c.attachment_id)
        .join(apps, apps.c.id == attachments.c.app_id)
        .join(addons, addons.c.id == attachments.c.addon_id)
        .outerjoin(app_policies, app_policies.c.app_id == apps.c.id)
    )


def _principal(row: Row[Any], bounds: Bounds) -> Principal:
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
        addon_name=row.addon_name,
        limits=bounds.limits(row),
        budgets=bounds.budgets(row),
        policy=policy_of(row),
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
