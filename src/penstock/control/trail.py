"""Writes the audit trail: one event per change, in the change's own transaction. Values that are secret never enter."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from penstock.domain.platform import Actor, App, AuditEvent
from penstock.store.nouns.stores import Stores

HIDDEN = "[hidden]"
# What the column takes.
_NAME_LENGTH = 320


class Subject(NamedTuple):
    """What an event is about; ``app`` is the one it belongs to, None for what belongs to the installation."""

    id: str | None
    name: str | None
    app: App | None = None


def record(
    stores: Stores,
    by: Actor,
    action: str,
    *,
    subject: Subject,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    """Appends the event ``action``, such as ``addon.create``: the part before the dot is the type of the object."""
    stores.audit.add(
        AuditEvent(
            at=datetime.now(UTC),
            actor_id=by.id,
            actor_email=by.email,
            source=by.source,
            request_id=by.request_id,
            action=action,
            object_type=action.partition(".")[0],
            object_id=subject.id,
            object_name=None if subject.name is None else subject.name[:_NAME_LENGTH],
            app_id=subject.app.id if subject.app else None,
            app_name=subject.app.name if subject.app else None,
            before=before,
            after=after,
        )
    )


def masked(names: Iterable[str]) -> dict[str, Any]:
    """Names of values that an event may not show."""
    return dict.fromkeys(sorted(names), HIDDEN)
