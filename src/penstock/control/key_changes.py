"""The changes of keys, each one transaction: create, rotate with grace, revoke."""

from datetime import UTC, datetime, timedelta
from typing import Any

from penstock.control.changes import Changes, KeyLimits
from penstock.control.guard import Guard
from penstock.control.lifted import record_lifted
from penstock.control.names import invalid
from penstock.control.plans import Plan
from penstock.control.trail import Subject, record
from penstock.domain.access import Permission
from penstock.domain.limits import Scope
from penstock.domain.platform import Actor, AddOn, ApiKey, App, Attachment
from penstock.store.errors import NotFoundError
from penstock.store.nouns.keys import ApiKeySecret
from penstock.store.nouns.stores import Stores

# For so long a client that uses an expired key is told that it has expired; then it is unknown.
_KEPT_EXPIRED = timedelta(days=1)


class KeyChanges:
    """Every change is one transaction with its audit event, its release where a config var changes, and the bump of the
    key revision. ``ref`` is a key's id, its prefix, or an attachment's name. All raise NotFoundError."""

    def __init__(self, stores: Stores, changes: Changes) -> None:
        self._stores = stores
        self._changes = changes
        self._guard = Guard(stores)

    def create(
        self, app: App, attachment: Attachment, limits: KeyLimits, *, by: Actor
    ) -> tuple[ApiKeySecret, Attachment]:
        """One more key on an attachment; it becomes the config vars' own when they show none."""
        stores = self._stores
        with stores.db.write():
            self._begin(app, by)
            found = stores.attachments.get(attachment.id)
            shows_one = any(not key.extra for key in stores.keys.list_public(attachment_id=found.id))
            made = stores.keys.add(found.id, extra=shows_one, models=limits.models, expires_at=limits.expires_at)
            record(stores, by, "key.create", subject=_subject(made.key, app), after=_told(made.key, found))
            if not shows_one:
                self._release(app, f"Set {found.name}_KEY", by)
        return made, found

    def attach(
        self, app: App, addon: AddOn, alias: str, *, plan: Plan, limits: KeyLimits, by: Actor
    ) -> tuple[ApiKeySecret, Attachment]:
        """The add-on under one more name, whose config vars show a key with these limits. Raises NameTakenError,
        ApiError for the alias."""
        stores = self._stores
        with stores.db.write():
            attachment = self._changes.attach(addon, app, plan=plan, alias=alias, by=by, limits=limits)
            made = stores.keys.list(attachment_id=attachment.id)[-1]
            record(stores, by, "key.create", subject=_subject(made.key, app), after=_told(made.key, attachment))
        return made, attachment

    def rotate(self, app: App, ref: str, *, grace: timedelta, by: Actor) -> tuple[ApiKeySecret, Attachment]:
        """A successor for the key, which goes on for the grace; for an attachment's name, of the key that its config
        vars show. Raises ApiError where they show none."""
        stores = self._stores
        with stores.db.write():
            self._begin(app, by)
            attachment, keys = self.find(app, ref)
            by_name = not any(ref in (key.id, key.prefix) for key in keys)
            old = next((key for key in reversed(keys) if not (by_name and key.extra)), None)
            if old is None:
                # Only a name that has no key of its own gets here.
                none = f"{attachment.name} has no key{' in its config var' if keys else ''}"
                raise invalid(f"{none}; make one with: penstock keys:create -a {app.name} --as {attachment.name}")
            made = stores.keys.rotate(old, grace=grace)
            after = _told(made.key, attachment) | {"grace_s": int(grace.total_seconds())}
            record(stores, by, "key.rotate", subject=_subject(old, app), before=_told(old, attachment), after=after)
            if not made.key.extra:
                self._release(app, f"Rotate {attachment.name}_KEY", by)
        return made, attachment

    def revoke(self, app: App, ref: str, *, by: Actor) -> tuple[tuple[ApiKey, ...], Attachment]:
        """Removes the key, or all keys of the attachment of that name."""
        stores = self._stores
        with stores.db.write():
            self._begin(app, by)
            attachment, keys = self.find(app, ref)
            if not keys:
                raise NotFoundError("key")
            for key in keys:
                record_lifted(stores, by, Scope.KEY, key.id, key.prefix, app)
                stores.keys.remove_key(key.id)
                record(stores, by, "key.revoke", subject=_subject(key, app), before=_told(key, attachment))
            if not all(key.extra for key in keys):
                self._release(app, f"Revoke {attachment.name}_KEY", by)
        return keys, attachment

    def find(self, app: App, ref: str) -> tuple[Attachment, tuple[ApiKey, ...]]:
        """The attachment and those of its keys that ``ref`` means, oldest first; none for the name of one
        without keys. Raises ApiError for a prefix that several keys have."""
        stores = self._stores
        held = stores.keys.list_public(app_id=app.id)
        keys = tuple(key for key in held if ref in (key.id, key.prefix))
        if len(keys) > 1:
            raise invalid(f"key: {len(keys)} keys begin with {ref}; name one by its id.")
        attachment = stores.attachments.find(keys[0].attachment_id if keys else ref.upper(), app_id=app.id)
        if attachment is not None and not keys:
            keys = tuple(key for key in held if key.attachment_id == attachment.id)
        if attachment is None:
            raise NotFoundError("key")
        return attachment, keys

    def _begin(self, app: App, by: Actor) -> None:
        self._guard.begin(by, Permission.APP_CHANGE, app.id)
        self._stores.keys.purge(app.id, datetime.now(UTC) - _KEPT_EXPIRED)

    def _release(self, app: App, description: str, by: Actor) -> None:
        self._stores.releases.add(app.id, description=description, user_email=by.email)


def _subject(key: ApiKey, app: App) -> Subject:
    return Subject(key.id, key.prefix, app)


def _told(key: ApiKey, attachment: Attachment) -> dict[str, Any]:
    """What the trail tells of a key."""
    return {
        "prefix": key.prefix,
        "attachment": attachment.name,
        "extra": key.extra,
        "models": None if key.models is None else list(key.models),
        "expires_at": None if key.expires_at is None else key.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
