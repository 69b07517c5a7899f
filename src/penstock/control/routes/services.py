"""The add-on service, its plans and the models behind them."""

from penstock.control import present
from penstock.control.context import ControlContext
from penstock.control.plans import Plan, every_plan, stable_id
from penstock.control.present import AvailableModel, Service, ServicePlan
from penstock.domain.access import Open
from penstock.domain.platform import SERVICE
from penstock.providers.wire_out import available_models
from penstock.store.errors import NotFoundError
from penstock.web.api import Doc, Reply, Request, Route


class ServiceRoutes:
    """/addon-services and /available-models."""

    def __init__(self, context: ControlContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """The table of this noun."""
        services = Doc("service.list", "List the add-on services: there is one", list[Service])
        one = Doc("service.show", "Show the add-on service", Service)
        plans = Doc("plan.list", "List the plans: standard, and one for each model", list[ServicePlan])
        plan = Doc("plan.show", "Show a plan", ServicePlan)
        models = Doc("model.list", "List the models", list[AvailableModel])
        return [
            Route("GET", "/addon-services", self.list_services, Open.OPERATOR, doc=services),
            Route("GET", "/addon-services/{service}", self.show_service, Open.OPERATOR, doc=one),
            Route("GET", "/addon-services/{service}/plans", self.list_plans, Open.OPERATOR, doc=plans),
            Route("GET", "/addon-services/{service}/plans/{plan}", self.show_plan, Open.OPERATOR, doc=plan),
            Route("GET", "/available-models", self.models, Open.PUBLIC, doc=models),
        ]

    def list_services(self, request: Request) -> Reply:
        """GET /addon-services."""
        return Reply(200, [Service()])

    def show_service(self, request: Request) -> Reply:
        """GET /addon-services/SERVICE."""
        _check_service(request)
        return Reply(200, Service())

    def list_plans(self, request: Request) -> Reply:
        """GET /addon-services/SERVICE/plans."""
        _check_service(request)
        return Reply(200, [present.plan(plan) for plan in every_plan(self._context.catalogue)])

    def show_plan(self, request: Request) -> Reply:
        """GET /addon-services/SERVICE/plans/PLAN, by full name, the part after the colon, or id."""
        _check_service(request)
        wanted = request.params["plan"]
        for plan in every_plan(self._context.catalogue):
            if wanted in _names(plan):
                return Reply(200, present.plan(plan))
        raise NotFoundError("plan")

    def models(self, request: Request) -> Reply:
        """GET /available-models: a bare array without credentials (heroku-wire.md 2.8)."""
        return Reply(200, available_models(self._context.catalogue))


def _names(plan: Plan) -> tuple[str, str, str]:
    return plan.name, plan.slug, stable_id("plan", plan.slug)


def _check_service(request: Request) -> None:
    if request.params["service"] not in (SERVICE, stable_id("service", SERVICE)):
        raise NotFoundError("service")
