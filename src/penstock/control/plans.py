"""The add-on service, its plans, and what a plan means: which models, and under which alias it attaches."""

import uuid

import msgspec

from penstock.control.names import invalid
from penstock.domain.catalogue import Catalogue, Model
from penstock.domain.platform import SERVICE, STANDARD_PLAN

# heroku-wire.md section 1: the documentation's alias for each type of model.
_ALIASES = {"text-to-embedding": "EMBEDDING", "text-to-image": "DIFFUSION", "text-to-ranking": "RERANK"}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """``slug`` is the part after the colon; ``model`` is None on the standard plan and for models since removed."""

    slug: str
    model: Model | None = None

    @property
    def name(self) -> str:
        """As the Platform API names it."""
        return f"{SERVICE}:{self.slug}"

    @property
    def alias(self) -> str:
        """The attachment name when the user gives none."""
        types = () if self.model is None else self.model.type
        return next((_ALIASES[type_] for type_ in types if type_ in _ALIASES), "INFERENCE")

    @property
    def is_model_plan(self) -> bool:
        """Whether the plan has one model, and so a ``_MODEL_ID`` config var."""
        return self.slug != STANDARD_PLAN


def stable_id(kind: str, name: str) -> str:
    """A UUID that is the same on every start and machine, for things that are not rows."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"penstock:{kind}:{name}"))


def every_plan(catalogue: Catalogue) -> tuple[Plan, ...]:
    """The standard plan, then one per model."""
    return (Plan(slug=STANDARD_PLAN), *(Plan(slug=model.id, model=model) for model in catalogue.models))


def plan_of(catalogue: Catalogue, slug: str) -> Plan:
    """The plan of an existing add-on, also when its model has left the catalogue."""
    return Plan(slug=slug, model=None if slug == STANDARD_PLAN else catalogue.find(slug))


def choose_plan(catalogue: Catalogue, wanted: str) -> Plan:
    """The plan by ``heroku-inference:PLAN``, by id, or the service alone for the default. The 422 of a bad one has the
    words ``add-on plan``, which the plugin looks for."""
    service, _, slug = wanted.partition(":")
    if service == SERVICE:
        if slug in ("", STANDARD_PLAN):
            return Plan(slug=STANDARD_PLAN)
        model = catalogue.find(slug)
        if model is not None:
            return Plan(slug=model.id, model=model)
    by_id = next((plan for plan in every_plan(catalogue) if stable_id("plan", plan.slug) == wanted), None)
    if by_id is None:
        raise invalid(
            f'Couldn\'t find either the add-on service or the add-on plan of "{wanted[:200]}". '
            f"The plans are {SERVICE}:{STANDARD_PLAN} and {SERVICE}:MODEL for each model of ai:models:list."
        )
    return by_id
