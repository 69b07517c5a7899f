"""The Platform API's JSON shapes (heroku-wire.md 4.3-4.5)."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from penstock.control.names import variable_names
from penstock.control.plans import Plan, stable_id
from penstock.domain.platform import SERVICE, STANDARD_PLAN, AddOn, App, Attachment, Operator, Release

Json = dict[str, Any]

_PRICE = {"cents": 0, "contract": False, "metered": True, "unit": "month"}


def moment(at: datetime) -> str:
    """ISO 8601 in whole seconds of UTC, as Heroku writes times."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def account(operator: Operator) -> Json:
    """GET /account."""
    return {
        "id": operator.id,
        "email": operator.email,
        "name": operator.email.partition("@")[0],
        "verified": True,
        "two_factor_authentication": False,
        "allow_tracking": False,
        "beta": False,
        "federated": False,
        "default_team": None,
    }


def app(value: App, *, web_url: str) -> Json:
    """An app. There are no builds here: git_url is null and sizes are 0."""
    stack = {"id": stable_id("stack", value.stack), "name": value.stack}
    return {
        "id": value.id,
        "name": value.name,
        "owner": {"id": stable_id("owner", value.owner_email), "email": value.owner_email},
        "region": {"id": stable_id("region", value.region), "name": value.region},
        "stack": stack,
        "build_stack": stack,
        "web_url": web_url,
        "git_url": None,
        "acm": False,
        "archived_at": None,
        "create_status": "complete",
        "internal_routing": None,
        "maintenance": False,
        "organization": None,
        "released_at": moment(value.updated_at),
        "repo_size": 0,
        "slug_size": 0,
        "space": None,
        "team": None,
        "created_at": moment(value.created_at),
        "updated_at": moment(value.updated_at),
    }


def service() -> Json:
    """The one add-on service."""
    return {
        "id": stable_id("service", SERVICE),
        "name": SERVICE,
        "human_name": "Managed Inference and Agents",
        "cli_plugin_name": None,
        "state": "ga",
        "supports_multiple_installations": True,
        "supports_sharing": True,
    }


def plan(value: Plan) -> Json:
    """A plan. ``metered`` makes the CLI print just that word as the price."""
    model = value.model
    human = "Standard" if not value.is_model_plan else value.slug
    return {
        "id": stable_id("plan", value.slug),
        "name": value.name,
        "human_name": human,
        "description": f"{SERVICE} {human}",
        "addon_service": {"id": stable_id("service", SERVICE), "name": SERVICE},
        "default": not value.is_model_plan,
        "price": _PRICE,
        "state": "ga",
        "visible": True,
        "space_default": False,
        "installable_inside_private_network": False,
        "installable_outside_private_network": True,
        "model": None if model is None else {"id": model.id, "type": list(model.type), "stand_in": model.stand_in},
    }


def addon(value: AddOn, attachments: Iterable[Attachment], *, state: str | None = None) -> Json:
    """An add-on with the config vars of its attachments on the owning app."""
    own = [attachment for attachment in attachments if attachment.app_id == value.app_id]
    owner = {"id": value.app_id, "name": value.app_name}
    return {
        "id": value.id,
        "name": value.name,
        "state": state or value.state,
        "app": owner,
        "addon_service": {"id": stable_id("service", SERVICE), "name": SERVICE},
        "plan": {"id": stable_id("plan", value.plan), "name": value.plan_name, "price": _PRICE},
        "billed_price": {"cents": 0, "contract": False, "unit": "month"},
        "billing_entity": {**owner, "type": "app"},
        "config_vars": [name for attachment in own for name in config_var_names(attachment)],
        "config": value.config,
        "actions": [],
        "provider_id": value.id,
        "web_url": None,
        "created_at": moment(value.created_at),
        "updated_at": moment(value.updated_at),
    }


def attachment(value: Attachment) -> Json:
    """An attachment. ``namespace`` is null: the CLI takes the one match without a namespace."""
    return {
        "id": value.id,
        "name": value.name,
        "namespace": None,
        "app": {"id": value.app_id, "name": value.app_name},
        "addon": {
            "id": value.addon_id,
            "name": value.addon_name,
            "app": {"id": value.owner_app_id, "name": value.owner_app_name},
            "plan": {"id": stable_id("plan", value.plan), "name": f"{SERVICE}:{value.plan}"},
        },
        "addon_service": {"id": stable_id("service", SERVICE), "name": SERVICE},
        "config_vars": list(config_var_names(value)),
        "log_input_url": None,
        "web_url": None,
        "created_at": moment(value.created_at),
        "updated_at": moment(value.updated_at),
    }


def config_var_names(value: Attachment) -> tuple[str, ...]:
    """The config vars that an attachment brings to its app."""
    return variable_names(value.name, model_plan=value.plan != STANDARD_PLAN)


def release(value: Release, *, app_name: str, current: bool) -> Json:
    """A release."""
    at = moment(value.created_at)
    return {
        "id": value.id,
        "app": {"id": value.app_id, "name": app_name},
        "version": value.version,
        "description": value.description,
        "status": "succeeded",
        "current": current,
        "slug": None,
        "output_stream_url": None,
        "user": {"id": stable_id("owner", value.user_email), "email": value.user_email},
        "created_at": at,
        "updated_at": at,
    }
