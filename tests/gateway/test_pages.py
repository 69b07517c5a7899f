"""The pages that the Heroku CLI's AI plugin asks for, and its name for the default model."""

import asyncio
import json
from pathlib import Path

import httpx

from penstock.domain.catalogue import Catalogue, Model, Target
from penstock.gateway.pages import Health
from penstock.gateway.routing.board import Board
from penstock.gateway.snapshot import KeySnapshot
from penstock.providers.wire_out import available_models
from tests.gateway.conftest import Gateway
from tests.gateway.test_keys import provision
from tests.gateway.test_underway import Table
from tests.server import Server
from tests.upstream import Exchange


def page(gateway: Gateway, path: str, key: str) -> httpx.Response:
    """GET with a key."""
    return httpx.get(gateway.server.gateway + path, headers={"authorization": f"Bearer {key}"})


def addon_of(gateway: Gateway, app: str) -> str:
    """The id of the app's add-on."""
    token = (gateway.server.home / "tokens" / "operator").read_text().strip()
    headers = {"authorization": f"Bearer {token}"}
    found = httpx.get(f"{gateway.server.control}/apps/{app}/addons", headers=headers).json()
    return str(found[0]["id"])


def test_an_addon_tells_its_own_keys_how_it_is(gateway: Gateway) -> None:
    key = provision(gateway, "info-model", "dead")["INFERENCE_KEY"]
    answer = page(gateway, f"/models/{addon_of(gateway, 'info-model')}", key)
    told = answer.json()
    assert answer.status_code == 200
    assert (told["model_id"], told["ready"], told["avg_performance"]) == ("dead", "Yes", "no requests yet")
    assert told["created"].endswith("Z")
    assert all(isinstance(value, str) for value in told.values())


def test_the_measured_speed_is_shown_once_there_is_an_answer(gateway: Gateway) -> None:
    made = provision(gateway, "info-speed", "standard")
    path, key = f"/models/{addon_of(gateway, 'info-speed')}", made["INFERENCE_KEY"]
    body = {"model": "standard", "messages": [{"role": "user", "content": "x"}]}
    with httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=30) as client:  # one connection, one worker
        assert client.post(f"{gateway.server.gateway}/v1/chat/completions", json=body).status_code == 200
        told = client.get(gateway.server.gateway + path).json()
    assert told["model_id"] == "standard"
    latency, rate = told["avg_performance"].split(", ")
    assert float(latency.removeprefix("latency ").removesuffix("sec")) >= 0
    assert int(rate.removesuffix(" tokens/sec")) > 0


def test_an_addon_is_hidden_from_the_keys_of_others(gateway: Gateway) -> None:
    provision(gateway, "info-hidden", "standard")
    for addon in (addon_of(gateway, "info-hidden"), "nope", ""):
        answer = gateway.get(f"/models/{addon}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "addon_not_found")
    assert page(gateway, f"/models/{addon_of(gateway, 'info-hidden')}", "inf-no").status_code == 401


def test_there_are_no_tool_servers_yet(gateway: Gateway) -> None:
    assert gateway.get("/v1/mcp/servers").json() == []
    assert page(gateway, "/v1/mcp/servers", "inf-no").status_code == 401


def test_standard_is_listed_for_the_plugin_and_not_among_the_models(gateway: Gateway) -> None:
    listed = httpx.get(f"{gateway.server.gateway}/available-models").json()
    assert listed[0] == {"model_id": "standard", "type": ["text-to-text"], "regions": ["us", "eu"]}
    assert "standard" not in [model["id"] for model in gateway.get("/v1/models").json()["data"]]


def test_the_model_standard_is_the_default_one_and_reaches_the_upstream_under_its_name(gateway: Gateway) -> None:
    asked: list[dict[str, object]] = []

    async def echo(exchange: Exchange) -> None:
        asked.append(json.loads(exchange.body))
        await exchange.answer(b'{"choices":[{"index":0}],"usage":{"prompt_tokens":1,"completion_tokens":1}}')

    gateway.upstream.script = echo
    answer = gateway.chat(model="standard", seed=2**60)
    assert answer.status_code == 200
    assert (asked[0]["model"], asked[0]["seed"]) == ("upstream-name", 2**60)
    assert gateway.settled(answer.headers["x-request-id"]).target_model == "upstream-name"


def test_on_a_model_plan_standard_is_the_plans_model(gateway: Gateway) -> None:
    key = provision(gateway, "standard-of-plan", "fallback")["INFERENCE_KEY"]
    body = {"model": "standard", "messages": [{"role": "user", "content": "x"}]}
    answer = gateway.post(body, key=key)
    assert answer.status_code == 200
    assert gateway.settled(answer.headers["x-request-id"]).target_model == "second"


def test_a_model_that_is_called_standard_stays_what_it_is() -> None:
    target = (Target(provider="p", model="m"),)
    own = Model(id="own", owner="o", aliases=("standard",), targets=target, regions=("eu",))
    assert available_models(Catalogue([own])) == [{"model_id": "own", "type": ["text-to-text"], "regions": ["eu"]}]
    assert available_models(Catalogue([Model(id="x", owner="o")])) == []


def test_a_model_is_ready_when_one_of_its_engines_answers_and_others_are_taken_at_their_word(tmp_path: Path) -> None:
    health = Health(KeySnapshot(Table()), {"embedded:m": "unix:///nowhere/engine.sock"}, Board(tmp_path))
    down, other = Target(provider="embedded:m", model="m"), Target(provider="lab", model="m")
    assert not asyncio.run(health.serves(Model(id="m", owner="o", targets=(down,))))
    assert asyncio.run(health.serves(Model(id="m", owner="o", targets=(down, other))))
    assert not asyncio.run(health.serves(Model(id="m", owner="o")))


def test_on_the_embedded_engine_standard_answers_under_its_own_id_and_is_ready(penstock_server: Server) -> None:
    token = (penstock_server.home / "tokens" / "operator").read_text().strip()
    found = httpx.get(f"{penstock_server.control}/apps/hello/addons", headers={"authorization": f"Bearer {token}"})
    headers = {"authorization": f"Bearer {penstock_server.config_var('hello', 'INFERENCE_KEY')}"}
    body = {"model": "standard", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    answer = httpx.post(f"{penstock_server.gateway}/v1/chat/completions", json=body, headers=headers, timeout=60)
    assert answer.json()["model"] == "smollm2-135m-instruct"
    told = httpx.get(f"{penstock_server.gateway}/models/{found.json()[0]['id']}", headers=headers).json()
    assert (told["model_id"], told["ready"]) == ("standard", "Yes")
    assert told["avg_performance"].startswith("latency ")
