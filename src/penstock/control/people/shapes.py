"""The JSON shapes of operators, their tokens, collaborators and audit events."""

from datetime import UTC, datetime
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from penstock.control.plans import stable_id
from penstock.control.present import Id, Named, Person, moment
from penstock.domain import platform
from penstock.domain.access import Role


class Operator(Struct, frozen=True, kw_only=True):
    """An operator and their role over the whole installation."""

    id: Id
    email: str
    role: Role
    created_at: datetime | None


class Token(Struct, frozen=True, kw_only=True):
    """A token of an operator; ``token`` is the secret, in the answer to its creation only."""

    id: Id
    prefix: str
    description: str
    operator: Person
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    token: str | UnsetType = UNSET


class AuthorizedUser(Struct, frozen=True):
    """Whose an authorization is."""

    id: Id
    email: str
    full_name: None = None


class AccessToken(Struct, frozen=True, kw_only=True):
    """``token`` is the secret, null but in the answer to its creation; ``expires_in`` the seconds that are left, null
    where there is no end."""

    id: Id
    token: str | None
    expires_in: int | None


class Authorization(Struct, frozen=True, kw_only=True):
    """A token as Heroku shows it. There are no clients, grants and narrower scopes here."""

    id: Id
    access_token: AccessToken
    client: None = None
    description: str
    grant: None = None
    refresh_token: None = None
    scope: tuple[str, ...] = ("global",)
    session: None = None
    user: AuthorizedUser
    created_at: datetime
    updated_at: datetime


class Session(Struct, frozen=True, kw_only=True):
    """A sign-in that was ended."""

    id: Id
    description: str


class CollaboratorUser(Struct, frozen=True):
    """Who a collaborator is."""

    id: Id
    email: str
    federated: bool = False


class Collaborator(Struct, frozen=True, kw_only=True):
    """Who shares an app, in which role; its owner is one of them."""

    id: Id
    app: Named
    role: Role
    user: CollaboratorUser
    created_at: datetime
    updated_at: datetime


class AuditActor(Struct, frozen=True):
    """Who did it; ``id`` is null for Penstock itself and for who was not signed in."""

    id: str | None
    email: str


class AuditObject(Struct, frozen=True):
    """What it was done to."""

    type: str
    id: str | None
    name: str | None


class AuditEvent(Struct, frozen=True, kw_only=True):
    """Who did what to which object, when, from where, and how it was before and after; secrets are hidden."""

    seq: int
    at: datetime
    actor: AuditActor
    source: str
    request_id: str
    action: str
    object: AuditObject
    app: Named | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def operator(value: platform.Operator) -> Operator:
    """An operator."""
    return Operator(id=value.id, email=value.email, role=value.role, created_at=_second(value.created_at))


def token(value: platform.OperatorToken, owner: platform.Operator, *, secret: str | UnsetType = UNSET) -> Token:
    """A token of ``owner``."""
    return Token(
        id=value.id,
        prefix=value.prefix,
        description=value.description,
        operator=Person(owner.id, owner.email),
        created_at=moment(value.created_at),
        expires_at=_second(value.expires_at),
        last_used_at=_second(value.last_used_at),
        token=secret,
    )


def authorization(
    value: platform.OperatorToken, owner: platform.Operator, *, secret: str | None = None
) -> Authorization:
    """A token of ``owner``, in Heroku's shape."""
    left = None if value.expires_at is None else max(0, round((value.expires_at - datetime.now(UTC)).total_seconds()))
    made_at = moment(value.created_at)
    return Authorization(
        id=value.id,
        access_token=AccessToken(id=value.id, token=secret, expires_in=left),
        description=value.description,
        user=AuthorizedUser(owner.id, owner.email),
        created_at=made_at,
        updated_at=made_at,
    )


def collaborator(value: platform.Collaborator) -> Collaborator:
    """A collaborator of an app."""
    return Collaborator(
        id=value.id,
        app=Named(value.app_id, value.app_name),
        role=value.role,
        user=CollaboratorUser(value.operator_id, value.email),
        created_at=moment(value.created_at),
        updated_at=moment(value.updated_at),
    )


def owner_of(app: platform.App) -> Collaborator:
    """An app's owner as one of its collaborators, as Heroku lists them."""
    return Collaborator(
        id=stable_id("collaborator", f"{app.id}/owner"),
        app=Named(app.id, app.name),
        role=Role.OWNER,
        user=CollaboratorUser(app.owner_id or stable_id("owner", app.owner_email), app.owner_email),
        created_at=moment(app.created_at),
        updated_at=moment(app.updated_at),
    )


def audit_event(value: platform.AuditEvent) -> AuditEvent:
    """An audit event."""
    return AuditEvent(
        seq=value.seq,
        at=value.at.replace(microsecond=value.at.microsecond // 1000 * 1000),
        actor=AuditActor(value.actor_id, value.actor_email),
        source=value.source,
        request_id=value.request_id,
        action=value.action,
        object=AuditObject(value.object_type, value.object_id, value.object_name),
        app=None if value.app_id is None else Named(value.app_id, value.app_name or ""),
        before=value.before,
        after=value.after,
    )


def _second(at: datetime | None) -> datetime | None:
    return None if at is None else moment(at)
