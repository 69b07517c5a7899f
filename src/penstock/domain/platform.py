"""The nouns of the control plane: apps, add-ons, attachments, keys and releases."""

from datetime import datetime

import msgspec

SERVICE = "heroku-inference"
STANDARD_PLAN = "standard"


class App(msgspec.Struct, frozen=True, kw_only=True):
    """An app that models are attached to."""

    id: str
    name: str
    owner_email: str
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
    """A data plane key, without its secret."""

    id: str
    prefix: str
    attachment_id: str
    created_at: datetime


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One numbered change of an app's config vars or attachments."""

    id: str
    app_id: str
    version: int
    description: str
    user_email: str
    created_at: datetime


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """Who drives the control plane."""

    id: str
    email: str


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls the data plane: what one key stands for. ``model_id`` is None when every model is allowed."""

    key_id: str
    key_prefix: str
    app_id: str
    app_name: str
    addon_id: str
    attachment_id: str
    attachment_name: str
    model_id: str | None
