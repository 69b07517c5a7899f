"""Keys at the data plane: who is let in, for which models, and how fast one dies."""

import httpx

from tests.gateway.conftest import Gateway, control


def provision(gateway: Gateway, app: str, plan: str) -> dict[str, str]:
    """An app with that plan attached as INFERENCE: its config vars."""
    control(gateway.server, "POST", "/apps", {"name": app})
    order = {"plan": {"name": f"heroku-inference:{plan}"}, "attachment": {"name": "INFERENCE"}}
    control(gateway.server, "POST", f"/apps/{app}/addons", order)
    found: dict[str, str] = control(gateway.server, "GET", f"/apps/{app}/config-vars")
    return found


def test_the_key_works_as_bearer_and_as_x_api_key(gateway: Gateway) -> None:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "x"}]}
    url = f"{gateway.server.gateway}/v1/chat/completions"
    for headers in (
        {"authorization": f"Bearer {gateway.key}"},
        {"authorization": f"bearer  {gateway.key}"},
        {"x-api-key": gateway.key},
    ):
        assert httpx.post(url, json=body, headers=headers).status_code == 200


def test_no_key_is_a_401_that_says_how(gateway: Gateway) -> None:
    answer = httpx.post(f"{gateway.server.gateway}/v1/chat/completions", content=b"not even json")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (401, "missing_api_key", "authentication_error")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_wrong_key_is_a_401_and_never_echoed(gateway: Gateway) -> None:
    for key in ("inf-wrong", "x" * 5000, "\xff", "inf-" + "A" * 43):
        answer = gateway.post(b"{}", key=key.encode("latin-1").decode("latin-1") if key.isascii() else "caf")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert key not in answer.text


def test_a_key_of_a_model_plan_has_that_model_alone(gateway: Gateway) -> None:
    made = provision(gateway, "one-model", "scripted")
    assert made["INFERENCE_MODEL_ID"] == "scripted"
    key = made["INFERENCE_KEY"]
    body = {"messages": [{"role": "user", "content": "x"}]}
    assert gateway.post(body | {"model": "scripted"}, key=key).status_code == 200
    assert gateway.post(body | {"model": "also-scripted"}, key=key).status_code == 200
    refused = gateway.post(body | {"model": "fallback"}, key=key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
    assert refused.json()["error"]["type"] == "authorization_error"
    listed = httpx.get(f"{gateway.server.gateway}/v1/models", headers={"authorization": f"Bearer {key}"}).json()
    assert [model["id"] for model in listed["data"]] == ["scripted"]


def test_a_model_without_a_provider_is_a_503_that_names_the_remedy(gateway: Gateway) -> None:
    answer = gateway.chat(model="claude-4-5-sonnet")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")


def test_a_detached_key_is_refused_by_every_worker_once_the_detach_has_answered(gateway: Gateway) -> None:
    key = provision(gateway, "leaving", "standard")["INFERENCE_KEY"]
    body = {"model": "scripted", "messages": [{"role": "user", "content": "x"}]}
    for _ in range(8):  # new connections, so that both workers come to know the key
        assert gateway.post(body, key=key).status_code == 200
    attached = control(gateway.server, "GET", "/apps/leaving/addon-attachments/INFERENCE")
    control(gateway.server, "DELETE", f"/addon-attachments/{attached['id']}")
    assert {gateway.post(body, key=key).status_code for _ in range(12)} == {401}


def test_a_key_that_was_unknown_a_moment_ago_works_once_it_exists(gateway: Gateway) -> None:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "x"}]}
    assert gateway.post(body, key="inf-unknown").status_code == 401
    key = provision(gateway, "newcomer", "standard")["INFERENCE_KEY"]
    assert gateway.post(body, key=key).status_code == 200


def test_available_models_needs_no_key(gateway: Gateway) -> None:
    listed = httpx.get(f"{gateway.server.gateway}/available-models").json()
    assert {"model_id": "scripted", "type": ["text-to-text"], "regions": ["us", "eu"]} in listed


def test_health_and_readiness_need_no_key(gateway: Gateway) -> None:
    assert httpx.get(f"{gateway.server.gateway}/healthz").json()["status"] == "ok"
    ready = httpx.get(f"{gateway.server.gateway}/readyz").json()
    assert (ready["status"], ready["checks"]) == ("ready", {"keys": "ok"})
