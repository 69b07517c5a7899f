"""The commands about what serves models: check, models, providers; the upstream is scripted."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.settings.load import load_settings
from tests.cli.program import Penstock
from tests.gateway.conftest import DONE, delta
from tests.upstream import Exchange, ScriptedUpstream

ROWS = """
[[provider]]
name = "lab"
base_url = "{base}"
api_key_env = "LAB_KEY"
[[provider]]
name = "dead"
base_url = "http://127.0.0.1:9/v1"
[[model]]
id = "house"
targets = [{{ provider = "lab", model = "able" }}]
price = {{ input = "0.25", output = 1 }}
context_window = 32768
aliases = ["home"]
"""


async def lab(exchange: Exchange) -> None:
    """The model ``able`` can do all; ``plain`` takes no tools, ignores schemas, fails on images; no other is known."""
    body = json.loads(exchange.body)
    if body["model"] not in ("able", "plain"):
        await exchange.answer(b'{"error":{"message":"no such model"}}', status="404 Not Found")
    elif body["model"] == "plain" and "tools" in body:
        await exchange.answer(b'{"error":{"message":"tools are not supported"}}', status="400 Bad Request")
    elif body["model"] == "plain" and body["messages"][0]["content"][0] == {
        "type": "text",
        "text": "Which colour is this?",
    }:
        await exchange.answer(b'{"error":{"message":"busy"}}', status="503 Busy")
    elif body.get("stream"):
        await exchange.begin_stream()
        await exchange.chunk(delta("ok") + DONE)
        await exchange.chunk(b"")
    else:
        await exchange.answer(json.dumps(answer(body)).encode())


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """What an able server says to the question."""
    message: dict[str, Any] = {"role": "assistant", "content": "ok"}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
    if "tools" in body:
        call = {"name": "get_time", "arguments": '{"city":"Bern"}'}
        message["tool_calls"] = [{"id": "c", "type": "function", "function": call}]
    if "response_format" in body and body["model"] == "able":
        message["content"] = '{"ok": true}'
    if "logprobs" in body and body["model"] == "able":
        choice["logprobs"] = {"content": [{"token": "ok", "logprob": -0.1}]}
    return {"id": "x", "choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """The scripted server."""
    with ScriptedUpstream(lab) as found:
        yield found


@pytest.fixture
def here(offline: Penstock, upstream: ScriptedUpstream, tmp_path: Path) -> Penstock:
    """The console script with a file of its own, and the lab's key."""
    config = tmp_path / "penstock.toml"
    config.write_text(ROWS.format(base=upstream.base))
    return offline.within(PENSTOCK_CONFIG=str(config), LAB_KEY="lab-secret")


def add(here: Penstock, rows: str) -> None:
    """Put more rows behind those of the file."""
    with Path(here.env["PENSTOCK_CONFIG"]).open("a") as file:
        file.write(rows)


def test_check_shows_every_target_with_window_price_and_credential(here: Penstock) -> None:
    shown = here.ok("check")
    assert "house  lab/able  32,768  " in shown
    assert "env LAB_KEY" in shown
    assert "lab-secret" not in shown + json.dumps(here.json("check", "--json"))
    assert "The configuration is sound. Models served: 2" in shown
    assert "not set: LAB_KEY" in here.within(LAB_KEY="").ok("check")


def test_check_names_file_line_and_row_of_a_mistake(here: Penstock) -> None:
    config = here.env["PENSTOCK_CONFIG"]
    add(here, "[[model]]\nid = 3\n")
    assert f"{config}:16: model" in here.refused("check")
    Path(config).write_text('[[model]]\nid = "x"\ntargets = [{ provider = "nowhere", model = "m" }]\n')
    said = here.refused("check")
    assert f"{config}:3: [[model]] 'x': unknown provider 'nowhere' (known: anthropic, azure, " in " ".join(said.split())
    assert "no such configuration file" in here.refused("check", "--config", config + "x")


def test_check_live_finds_out_what_a_target_can_do(here: Penstock) -> None:
    (found,) = here.json("check", "--live", "--json")["probes"]
    assert found["target"] == "lab/able"
    assert set(found["capabilities"].values()) == {"yes"}
    assert list(found["capabilities"]) == ["streaming", "tools", "json_schema", "vision", "logprobs"]


def test_a_refused_capability_is_no_and_a_failure_leaves_the_question_open(here: Penstock) -> None:
    add(here, '[[model]]\nid = "small"\ntargets = [{ provider = "lab", model = "plain" }]\n')
    done = here("check", "--live")
    assert done.returncode == 0, done.stderr
    row = next(line.split() for line in done.stdout.splitlines() if line.startswith("lab/plain "))
    assert row == ["lab/plain", "yes", "yes", "no", "no", "?", "no"]
    assert "lab/plain: tools: " in done.stdout
    assert "tools are not supported" in done.stdout


@pytest.mark.parametrize(
    ("target", "reason"),
    [('provider = "dead", model = "x"', "does not accept"), ('provider = "lab", model = "gone"', "no such model")],
)
def test_check_live_ends_with_1_when_a_target_does_not_answer(here: Penstock, target: str, reason: str) -> None:
    add(here, f'[[model]]\nid = "broken"\ntargets = [{{ {target} }}]\n')
    done = here("check", "--live")
    assert done.returncode == 1
    assert "NO" in done.stdout
    assert reason in done.stdout


def test_what_check_writes_is_a_file_that_the_catalogue_takes(here: Penstock, tmp_path: Path) -> None:
    for name in ("found.toml", "found.json"):
        here.ok("check", "--live", "--write", str(tmp_path / name))
    (row,) = tomllib.loads((tmp_path / "found.toml").read_text())["model"]
    assert json.loads((tmp_path / "found.json").read_text()) == {"model": [row]}
    assert row["capabilities"] == ["chat", "streaming", "tools", "json_schema", "vision", "logprobs"]
    rows = ROWS.partition("[[model]]")[0].format(base="http://127.0.0.1:9") + (tmp_path / "found.toml").read_text()
    config = tmp_path / "again.toml"
    config.write_text(rows)
    again = load_settings(environ={}, config=config).model[0]
    assert (again.id, again.aliases, again.context_window) == ("house", ("home",), 32768)
    assert again.input == ("text", "image")
    assert again.price is not None
    assert again.price.input == "0.25"
    assert "--live" in here.refused("check", "--write", str(tmp_path / "x"), code=2)


def test_check_overwrites_no_file_and_asks_nothing_before_it_says_so(
    here: Penstock, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    config = Path(here.env["PENSTOCK_CONFIG"])
    before, asked = config.read_text(), upstream.requests
    said = here.refused("check", "--live", "--write", str(config), code=2)
    assert f"{config} exists already" in said
    assert "Name a new one" in said
    assert (config.read_text(), upstream.requests) == (before, asked)
    assert "is no folder" in here.refused("check", "--live", "--write", str(tmp_path / "no" / "x"), code=2)


def test_check_says_what_it_leaves_out_of_the_file_that_it_writes(here: Penstock, tmp_path: Path) -> None:
    add(here, '[[model]]\nid = "small"\ntargets = [{ provider = "lab", model = "plain" }]\n')
    add(here, '[[model]]\nid = "broken"\ntargets = [{ provider = "dead", model = "x" }]\n')
    done = here("check", "--live", "--write", str(tmp_path / "found.toml"))
    assert "broken is left out: no answer of dead/x" in done.stderr
    assert "small: vision was not found out and is as before" in done.stderr
    rows = tomllib.loads((tmp_path / "found.toml").read_text())["model"]
    assert [(row["id"], row.get("input")) for row in rows] == [("house", ["text", "image"]), ("small", None)]
    Path(here.env["PENSTOCK_CONFIG"]).write_text(
        '[[provider]]\nname = "dead"\nbase_url = "http://127.0.0.1:9/v1"\n'
        '[[model]]\nid = "broken"\ntargets = [{ provider = "dead", model = "x" }]\n'
    )
    done = here("check", "--live", "--write", str(tmp_path / "none.toml"))
    assert (done.returncode, "is not written" in done.stderr) == (1, True)
    assert not (tmp_path / "none.toml").exists()


def test_check_tells_what_would_fail_only_later(here: Penstock, tmp_path: Path) -> None:
    config = here.env["PENSTOCK_CONFIG"]
    before = Path(config).read_text()
    base = 'base_url = "http://127.0.0.1:9"'
    for row, said in (
        (f'kind = "any-llm"\nlibrary_provider = "nosuch"\n{base}', "cannot make its provider 'nosuch'"),
        (f'{base}\nca_file = "{tmp_path}/no.pem"', "no.pem holds no certificates that can be read"),
        (f'{base}\nproxy = "ftp://x"', "proxy"),
        (f'{base}\nheaders = {{ "x-a" = "b\\r\\nc" }}', "the header 'x-a' holds a line break"),
    ):
        Path(config).write_text(f'{before}[[provider]]\nname = "late"\n{row}\n')
        refused = " ".join(here.refused("check").split())
        assert "'late'" in refused
        assert said in refused
        assert f"{config}:" in refused


def test_check_warns_of_rows_without_a_credential_and_of_built_in_ids_that_are_replaced(here: Penstock) -> None:
    add(here, '[[provider]]\nname = "anthropic"\napi_key_env = "MY_KEY"\n')
    add(
        here, '[[model]]\nid = "m"\naliases = ["claude-4-5-sonnet"]\ntargets = [{ provider = "lab", model = "able" }]\n'
    )
    assert here.json("check", "--json")["warnings"] == [
        "[[provider]] 'anthropic': not set: MY_KEY; nothing is served by it",
        "[[model]] 'm' replaces what is built in as claude-4-5-sonnet",
    ]
    assert "not set: MY_KEY" in here("check").stderr
    assert "not set: MY_KEY" in here.ok("providers")
    assert "anthropic has no credential here: set MY_KEY." in here.refused("providers:test", "anthropic")


def test_models_says_who_serves_each_id_and_what_it_costs(here: Penstock) -> None:
    shown = here.ok("models")
    assert "0.25 / 1 USD" in shown
    assert "claude-4-5-sonnet         smollm2-135m-instruct (stand-in)" in shown
    real = here.within(ANTHROPIC_API_KEY="k")
    assert "anthropic/claude-sonnet-4-5" in real.ok("models")
    (sonnet,) = [row for row in real.json("models", "--json") if row["id"] == "claude-4-5-sonnet"]
    assert (sonnet["stand_in"], sonnet["context_window"]) == (None, 200_000)
    assert sonnet["price"]["source"].startswith("genai-prices ")
    nobody = here.within(PENSTOCK_SERVE_MODE="production").ok("models")
    assert "nobody: set ANTHROPIC_API_KEY, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in nobody


def test_providers_shows_where_a_credential_comes_from_and_never_what_it_is(here: Penstock) -> None:
    rows = {row["name"]: row for row in here.json("providers", "--json")}
    assert list(rows) == ["lab", "dead"]
    assert (rows["lab"]["credential"], rows["lab"]["missing"]) == ("env LAB_KEY", None)
    assert rows["lab"]["targets"] == [{"target": "lab/able", "state": None}]
    assert rows["dead"]["credential"] == "none needed"
    shown = here.within(OPENAI_API_KEY="openai-secret").ok("providers")
    assert "env OPENAI_API_KEY" in shown
    assert "secret" not in shown
    assert "not set: GROQ_API_KEY" in here.ok("providers", "--all")


def test_one_provider_can_be_tried(here: Penstock) -> None:
    assert "lab/able" in here.ok("providers:test", "lab")
    done = here("providers:test", "lab", "--model", "gone")
    assert (done.returncode, "no such model" in done.stdout) == (1, True)
    assert "--model" in here.refused("providers:test", "dead", code=2)
    assert "penstock providers --all" in here.refused("providers:test", "nowhere")
