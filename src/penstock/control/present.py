"""The Platform API's JSON shapes (heroku-wire.md 4.3-4.5): what is encoded, and what the OpenAPI document describes."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from penstock.control.names import variable_names
from penstock.control.plans import Plan, stable_id
from penstock.domain import platform
from penstock.domain.access import Role
from penstock.domain.platform import SERVICE, STANDARD_PLAN, Operator

Json = dict[str, Any]
Id = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]


class Named(Struct, frozen=True):
    """A reference to an object."""

    id: Id
    name: str


class Person(Struct, frozen=True):
    """A reference to an operator."""

    id: Id
    email: str


class Account(Struct, frozen=True, kw_only=True):
    """The operator who asks."""

    id: Id
    email: str
    name: str
    role: Role
    verified: bool = True
    two_factor_authentication: bool = False
    allow_tracking: bool = False
    beta: bool = False
    federated: bool = False
    default_team: None = None


class App(Struct, frozen=True, kw_only=True):
    """An app. There are no builds here: git_url is null and sizes are 0."""

    id: Id
    name: str
    owner: Person
    region: Named
    stack: Named
    build_stack: Named
    web_url: str
    git_url: None = None
    acm: bool = False
    archived_at: None = None
    create_status: str = "complete"
    internal_routing: None = None
    maintenance: bool = False
    organization: None = None
    released_at: datetime
    repo_size: int = 0
    slug_size: int = 0
    space: None = None
    team: None = None
    created_at: datetime
    updated_at: datetime


class Service(Struct, frozen=True, kw_only=True):
    """The one add-on service."""

    id: Id = stable_id("service", SERVICE)
    name: str = SERVICE
    human_name: str = "Managed Inference and Agents"
    cli_plugin_name: None = None
    state: str = "ga"
    supports_multiple_installations: bool = True
    supports_sharing: bool = True


class Price(Struct, frozen=True, kw_only=True):
    """``metered`` makes the CLI print just that word as the price."""

    cents: int = 0
    contract: bool = False
    metered: bool = True
    unit: str = "month"


class BilledPrice(Struct, frozen=True, kw_only=True):
    """What an add-on costs a month before its use is counted."""

    cents: int = 0
    contract: bool = False
    unit: str = "month"


class PlanModel(Struct, frozen=True, kw_only=True):
    """The model of a model plan; ``stand_in`` names the one that answers for it, if any."""

    id: str
    type: tuple[str, ...]
    stand_in: str | None


class ServicePlan(Struct, frozen=True, kw_only=True):
    """A plan of the service; ``model`` is null on the standard plan."""

    id: Id
    name: str
    human_name: str
    description: str
    addon_service: Named
    default: bool
    price: Price
    state: str = "ga"
    visible: bool = True
    space_default: bool = False
    installable_inside_private_network: bool = False
    installable_outside_private_network: bool = True
    model: PlanModel | None


class PricedPlan(Struct, frozen=True):
    """The plan of an add-on."""

    id: Id
    name: str
    price: Price


class BillingEntity(Struct, frozen=True):
    """Who pays: the owning app."""

    id: Id
    name: str
    type: str = "app"


class AddOn(Struct, frozen=True, kw_only=True):
    """An add-on with the config vars of its attachments on the owning app."""

    id: Id
    name: str
    state: str
    app: Named
    addon_service: Named
    plan: PricedPlan
    billed_price: BilledPrice
    billing_entity: BillingEntity
    config_vars: list[str]
    config: dict[str, str]
    actions: list[str] = []
    provider_id: str
    web_url: None = None
    created_at: datetime
    updated_at: datetime


class AttachedAddOn(Struct, frozen=True, kw_only=True):
    """The add-on of an attachment, and the app that owns it."""

    id: Id
    name: str
    app: Named
    plan: Named


class Attachment(Struct, frozen=True, kw_only=True):
    """An attachment. ``namespace`` is null: the CLI takes the one match without a namespace."""

    id: Id
    name: str
    namespace: None = None
    app: Named
    addon: AttachedAddOn
    addon_service: Named
    config_vars: list[str]
    log_input_url: None = None
    web_url: None = None
    created_at: datetime
    updated_at: datetime


class Release(Struct, frozen=True, kw_only=True):
    """One numbered change of an app."""

    id: Id
    app: Named
    version: int
    description: str
    status: str = "succeeded"
    current: bool
    slug: None = None
    output_stream_url: None = None
    user: Person
    created_at: datetime
    updated_at: datetime


class AvailableModel(Struct, frozen=True):
    """A model that plans exist for."""

    model_id: str
    type: tuple[str, ...]
    regions: tuple[str, ...]


_SERVICE = Named(stable_id("service", SERVICE), SERVICE)


def moment(at: datetime) -> datetime:
    """In whole seconds of UTC, as Heroku writes times."""
    return at.replace(microsecond=0)


def account(operator: Operator) -> Account:
    """GET /account."""
    name = operator.email.partition("@")[0]
    return Account(id=operator.id, email=operator.email, name=name, role=operator.role)


def app(value: platform.App, *, web_url: str) -> App:
    """An app."""
    stack = Named(stable_id("stack", value.stack), value.stack)
    return App(
        id=value.id,
        name=value.name,
        owner=person(value.owner_email, value.owner_id),
        region=Named(stable_id("region", value.region), value.region),
        stack=stack,
        build_stack=stack,
        web_url=web_url,
        released_at=moment(value.updated_at),
        created_at=moment(value.created_at),
        updated_at=moment(value.updated_at),
    )


def plan(value: Plan) -> ServicePlan:
    """A plan."""
    model = value.model
    human = "Standard" if not value.is_model_plan else value.slug
    return ServicePlan(
        id=stable_id("plan", value.slug),
        name=value.name,
        human_name=human,
        description=f"{SERVICE} {human}",
        addon_service=_SERVICE,
        default=not value.is_model_plan,
        price=Price(),
        model=None if model is None else PlanModel(id=model.id, type=model.type, stand_in=model.stand_in),
    )


def addon(value: platform.AddOn, attachments: Iterable[platform.Attachment], *, state: str | None = None) -> AddOn:
    """An add-on; of the attachments, those on the owning app count."""
    own = [attachment for attachment in attachments if attachment.app_id == value.app_id]
    return AddOn(
        id=value.id,
        name=value.name,
        state=state or value.state,
        app=Named(value.app_id, value.app_name),
        addon_service=_SERVICE,
        plan=PricedPlan(stable_id("plan", value.plan), value.plan_name, Price()),
        billed_price=BilledPrice(),
        billing_entity=BillingEntity(value.app_id, value.app_name),
        config_vars=[name for attachment in own for name in config_var_names(attachment)],
        config=value.config,
        provider_id=value.id,
        created_at=moment(value.created_at),
        updated_at=moment(value.updated_at),
    )


def attachment(value: platform.Attachment) -> Attachment:
    """An attachment."""
    return Attachment(
        id=value.id,
        name=value.name,
        app=Named(value.app_id, value.app_name),
        addon=AttachedAddOn(
            id=value.addon_id,
            name=value.addon_name,
            app=Named(value.owner_app_id, value.owner_app_name),
            plan=Named(stable_id("plan", value.plan), f"{SERVICE}:{value.plan}"),
        ),
        addon_service=_SERVICE,
        config_vars=list(config_var_names(value)),
        created_at=moment(value.created_at),
        updated_at=moment(value.updated_at),
    )


def config_var_names(value: platform.Attachment) -> tuple[str, ...]:
    """The config vars that an attachment brings to its app."""
    return variable_names(value.name, model_plan=value.plan != STANDARD_PLAN)


def person(email: str, operator_id: str | None) -> Person:
    """Somebody by email; one who is no operator any more keeps an id that follows from it."""
    return Person(operator_id or stable_id("owner", email), email)


def release(value: platform.Release, *, app_name: str, current: bool, user: Person) -> Release:
    """A release."""
    at = moment(value.created_at)
    return Release(
        id=value.id,
        app=Named(value.app_id, app_name),
        version=value.version,
        description=value.description,
        current=current,
        user=user,
        created_at=at,
        updated_at=at,
    )
