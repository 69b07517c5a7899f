"""The nouns of the control plane: apps, add-ons, attachments, keys and releases."""

from datetime import datetime
from typing import Any

import msgspec

from penstock.domain.access import Role
from penstock.domain.limits import Budget, LimitRow, Policy

SERVICE = "heroku-inference"
STANDARD_PLAN = "standard"


class App(msgspec.Struct, frozen=True, kw_only=True):
    """An app that models are attached to. ``owner_id`` is None when its owner is no longer an operator."""

    id: str
    name: str
    owner_email: str
    owner_id: str | None = None
    created_at: datetime
    updated_at: datetime
    region: str = "us"
    stack: str = "heroku-24"


class AddOn(msgspec.Struct, frozen=True, kw_only=True):
    """A provisioned plan. ``plan`` is the part after the colon: ``standard`` or a model id; the owning app pays."""

    id: str
    name: str
    app_id: str
    app_name: str
    plan: str
    state: str
    created_at: datetime
    updated_at: datetime
    config: dict[str, str] = {}

    @property
    def plan_name(self) -> str:
        """The plan as the Platform API names it, such as ``heroku-inference:standard``."""
        return f"{SERVICE}:{self.plan}"

    @property
    def model_id(self) -> str | None:
        """The one model of a model plan; None on the standard plan, which has them all."""
        return None if self.plan == STANDARD_PLAN else self.plan


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """An add-on under a name on an app; the name prefixes the config vars and has its own key."""

    id: str
    name: str
    addon_id: str
    addon_name: str
    app_id: str
    app_name: str
    owner_app_id: str
    owner_app_name: str
    plan: str
    created_at: datetime
    updated_at: datetime


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A data plane key, without its secret. The newest one that is not ``extra`` is what the config vars show;
    ``models`` limits it further than its plan does (None: not at all)."""

    id: str
    prefix: str
    attachment_id: str
    created_at: datetime
    extra: bool = False
    models: tuple[str, ...] | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One numbered change of an app's config vars or attachments."""

    id: str
    app_id: str
    version: int
    description: str
    user_email: str
    created_at: datetime


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """Who drives the control plane; ``role`` is what they may do to all of it (domain/access.py)."""

    id: str
    email: str
    role: Role = Role.MEMBER
    created_at: datetime | None = None


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """On whose word a change is made, by which token, from which address, in which request. ``id`` is None for
    Penstock itself."""

    id: str | None
    email: str
    source: str
    request_id: str
    token_id: str | None = None


class OperatorToken(msgspec.Struct, frozen=True, kw_only=True):
    """One token of an operator, without its secret."""

    id: str
    operator_id: str
    prefix: str
    description: str
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


class Collaborator(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's role on one app that is not their own."""

    id: str
    app_id: str
    app_name: str
    operator_id: str
    email: str
    role: Role
    created_at: datetime
    updated_at: datetime


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what to which object, when, from where, and how it was before and after; secrets are never in it."""

    at: datetime
    actor_id: str | None
    actor_email: str
    source: str
    request_id: str
    action: str
    object_type: str
    object_id: str | None = None
    object_name: str | None = None
    app_id: str | None = None
    app_name: str | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    seq: int = 0


class StoredCredential(msgspec.Struct, frozen=True, kw_only=True):
    """An upstream's secret in the store, without it. ``fingerprint`` begins its SHA-256; ``updated_by`` is an email."""

    name: str
    fingerprint: str
    updated_by: str
    created_at: datetime
    updated_at: datetime


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls the data plane: what one key stands for. ``model_id`` is the one model of a model plan, ``models`` the
    ids that the key itself is limited to, None each where there is no such limit; ``expires_at`` is Unix time, None
    for never; ``provisioned_at`` is the add-on's Unix time of creation; ``key_hash`` is the key's SHA-256, by which the
    store names a key that has changed. ``limits`` and ``budgets`` are what operators set on the key, its attachment,
    its add-on and its app; ``policy`` is the app's."""

    key_id: str
    key_hash: bytes = b""
    key_prefix: str
    app_id: str
    app_name: str
    addon_id: str
    attachment_id: str
    attachment_name: str
    model_id: str | None
    models: tuple[str, ...] | None = None
    expires_at: float | None = None
    provisioned_at: float = 0.0
    addon_name: str = ""
    limits: tuple[LimitRow, ...] = ()
    budgets: tuple[Budget, ...] = ()
    policy: Policy = Policy()
