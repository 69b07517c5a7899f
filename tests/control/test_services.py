"""The service, its plans, the models."""

import httpx
import pytest

from tests.control.plane import CATALOGUE, Plane


def test_there_is_one_service(plane: Plane) -> None:
    services = plane.ok("GET", "/addon-services")
    assert [service["name"] for service in services] == ["heroku-inference"]
    for ref in ("heroku-inference", services[0]["id"]):
        assert plane.ok("GET", f"/addon-services/{ref}") == services[0]


def test_the_plans_are_standard_and_one_per_model(plane: Plane) -> None:
    plans = plane.ok("GET", "/addon-services/heroku-inference/plans")
    assert [plan["name"] for plan in plans] == [
        "heroku-inference:standard",
        *(f"heroku-inference:{model.id}" for model in CATALOGUE.models),
    ]
    assert [plan["default"] for plan in plans] == [True, *(False for _ in CATALOGUE.models)]
    assert all(plan["price"] == {"cents": 0, "contract": False, "metered": True, "unit": "month"} for plan in plans)
    assert len({plan["id"] for plan in plans}) == len(plans)


def test_a_plan_is_shown_by_name_slug_and_id(plane: Plane) -> None:
    plan = plane.ok("GET", "/addon-services/heroku-inference/plans")[1]
    for ref in (plan["name"], "chat-large", plan["id"]):
        assert plane.ok("GET", f"/addon-services/heroku-inference/plans/{ref}") == plan


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/addon-services/redis", "addon_service"),
        ("/addon-services/redis/plans", "addon_service"),
        ("/addon-services/redis/plans/x", "addon_service"),
        ("/addon-services/heroku-inference/plans/nope", "plan"),
    ],
)
def test_an_unknown_service_or_plan_is_404(plane: Plane, path: str, resource: str) -> None:
    status, body = plane.refused("GET", path)
    assert (status, body["resource"]) == (404, resource)


def test_the_models_need_no_credentials(plane: Plane) -> None:
    reply = httpx.get(f"{plane.url}/available-models", trust_env=False)
    assert [model["model_id"] for model in reply.json()] == ["standard", "chat-large", "chat-small", "embed-one"]
    assert reply.json()[2:] == [
        {"model_id": "chat-small", "type": ["text-to-text"], "regions": ["us"]},
        {"model_id": "embed-one", "type": ["text-to-embedding"], "regions": ["us", "eu"]},
    ]
