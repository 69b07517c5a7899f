"""ai:models:call and chat: what goes to the gateway and what a person sees."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.double import Double
from tests.cli.program import Penstock


@pytest.fixture
def standard(penstock: Penstock, app: str) -> str:
    """An app with the standard plan as INFERENCE."""
    penstock.ok("addons:create", "heroku-inference:standard", "-a", app)
    return app


@pytest.fixture
def model_plan(penstock: Penstock, app: str) -> str:
    """An app with a model plan as INFERENCE."""
    penstock.ok("ai:models:create", "claude-3-7-sonnet", "-a", app)
    return app


def test_a_call_on_a_model_plan_needs_only_the_prompt(penstock: Penstock, model_plan: str) -> None:
    assert penstock.ok("ai:models:call", "INFERENCE", "-a", model_plan, "-p", "hi there") == "echo: hi there"
    assert penstock.ok("ai:models:call", "-a", model_plan, "-p", "hi") == "echo: hi"
    answer = penstock.json("ai:models:call", "INFERENCE", "-a", model_plan, "-p", "hi", "--json")
    assert answer["model"] == "claude-3-7-sonnet"


def test_a_call_on_the_standard_plan_may_name_the_model(penstock: Penstock, standard: str, gateway: Double) -> None:
    assert penstock.ok("ai:models:call", "INFERENCE", "-a", standard, "-p", "hi") == "echo: hi"
    assert gateway.asked[-1].body["model"] == "standard"
    shown = penstock.ok("ai:models:call", "INFERENCE", "-a", standard, "-p", "hi", "-m", "claude-4-5-sonnet")
    assert shown == "echo: hi"
    assert gateway.asked[-1].body["model"] == "claude-4-5-sonnet"


def test_another_model_than_the_plans_is_refused(penstock: Penstock, model_plan: str) -> None:
    told = penstock.refused("ai:models:call", "INFERENCE", "-a", model_plan, "-p", "hi", "-m", "claude-4-5-sonnet")
    assert "claude-3-7-sonnet" in told


def test_options_go_into_the_request(penstock: Penstock, model_plan: str, gateway: Double, tmp_path: Path) -> None:
    file = tmp_path / "options.json"
    file.write_text('{"temperature": 0, "max_tokens": 5, "messages": [{"role": "system", "content": "s"}]}')
    target = tmp_path / "answer.txt"
    line = ["ai:models:call", "INFERENCE", "-a", model_plan, "-p", "hi", "--optfile", str(file)]
    assert penstock.ok(*line, "--opts", '{"max_tokens": 7}', "-o", str(target)) == ""
    assert target.read_text() == "echo: hi"
    body = gateway.asked[-1].body
    assert (body["temperature"], body["max_tokens"], len(body["messages"])) == (0, 7, 2)


@pytest.mark.parametrize("options", [["--opts", "{"], ["--opts", "[]"], ["--optfile", "/nonexistent.json"]])
def test_bad_options_are_refused(penstock: Penstock, model_plan: str, options: list[str]) -> None:
    penstock.refused("ai:models:call", "INFERENCE", "-a", model_plan, *options)


def test_a_call_without_a_prompt_is_a_usage_error(penstock: Penstock, model_plan: str) -> None:
    assert "--prompt" in penstock.refused("ai:models:call", "INFERENCE", "-a", model_plan, code=2)


def test_the_gateways_refusal_is_shown(penstock: Penstock, standard: str) -> None:
    told = penstock.refused("ai:models:call", "INFERENCE", "-a", standard, "-p", "hi", "-m", "no-such-model")
    assert "The model 'no-such-model' does not exist." in told


def test_lines_piped_into_chat_are_answered_in_turn(penstock: Penstock, standard: str, gateway: Double) -> None:
    shown = penstock.ok("chat", "-a", standard, "--system", "be brief", stdin="one\n\ntwo\n/exit\nthree\n")
    assert [line.strip() for line in shown.splitlines()] == ["echo: one", "echo: two"]
    body = gateway.asked[-1].body
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["model"] == "smollm2-135m-instruct"


def test_chat_commands_change_the_model_and_forget(penstock: Penstock, standard: str, gateway: Double) -> None:
    stdin = "one\n/clear\n/model claude-4-5-sonnet\n/system kind\n/nonsense\ntwo\n"
    done = penstock("chat", "-a", standard, stdin=stdin)
    assert done.returncode == 0
    assert "Model: claude-4-5-sonnet" in done.stderr
    assert "There is no /nonsense" in done.stderr
    body = gateway.asked[-1].body
    assert body["model"] == "claude-4-5-sonnet"
    assert body["messages"] == [{"role": "system", "content": "kind"}, {"role": "user", "content": "two"}]


@pytest.mark.parametrize(("model", "words"), [("broken-model", "ended early"), ("silent-model", "cut off")])
def test_an_answer_that_breaks_off_is_said(penstock: Penstock, standard: str, model: str, words: str) -> None:
    done = penstock("chat", "-a", standard, "-m", model, stdin="hi\n")
    assert done.returncode == 1
    assert done.stdout == "half\n"
    assert words in done.stderr


def test_chat_says_how_to_get_a_model(penstock: Penstock, app: str) -> None:
    assert "ai:models:create" in penstock.refused("chat", "-a", app, stdin="hi\n")


def test_an_interrupt_stops_the_answer_and_not_the_program(
    penstock: Penstock, model_plan: str, gateway: Double
) -> None:
    process = subprocess.Popen(
        [str(penstock.program), "chat", "-a", model_plan],
        env=penstock.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go on\n")
    process.stdin.flush()
    assert process.stdout.read(len("on and on")) == "on and on"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate("short\n", timeout=30)
    assert process.returncode == 0, err
    assert "[stopped]" in err
    assert "echo: short" in out
    history = gateway.asked[-1].body["messages"]
    assert [message["content"] for message in history] == ["go on", "on and on", "short"]


def test_json_answers_keep_letters_of_every_language(penstock: Penstock, model_plan: str) -> None:
    shown = penstock.ok("ai:models:call", "-a", model_plan, "-p", "größe 漢字", "--json")
    assert json.loads(shown)["choices"][0]["message"]["content"] == "echo: größe 漢字"
    assert "漢字" in shown


def test_an_output_that_cannot_be_written_is_refused_before_the_call(
    penstock: Penstock, model_plan: str, gateway: Double, tmp_path: Path
) -> None:
    before = len(gateway.asked)
    line = ["ai:models:call", "-a", model_plan, "-p", "hi", "-o"]
    assert "there is no folder" in penstock.refused(*line, str(tmp_path / "none" / "answer.txt"))
    assert "it is a folder" in penstock.refused(*line, str(tmp_path))
    assert len(gateway.asked) == before


def test_a_missing_optfile_is_named_in_a_plain_line(penstock: Penstock, model_plan: str) -> None:
    told = penstock.refused("ai:models:call", "-a", model_plan, "--optfile", "/nonexistent.json")
    assert "Error: --optfile /nonexistent.json cannot be read: No such file or directory." in told


def test_chat_refuses_an_unknown_model_at_once_and_keeps_the_old_one(
    penstock: Penstock, standard: str, gateway: Double
) -> None:
    done = penstock("chat", "-a", standard, stdin="/model nope\none\n")
    assert "The model 'nope' does not exist." in done.stderr
    assert "Model: smollm2-135m-instruct" in done.stderr
    assert gateway.asked[-1].body["model"] == "smollm2-135m-instruct"
    assert done.returncode == 1


def test_chat_and_call_say_alike_that_an_app_has_several_resources(penstock: Penstock, standard: str) -> None:
    penstock.ok("ai:models:create", "claude-3-7-sonnet", "-a", standard, "--as", "OTHER")
    for line in (["chat"], ["ai:models:call", "-p", "hi"]):
        assert "Ambiguous identifier" in penstock.refused(*line, "-a", standard)
    assert penstock.ok("chat", "OTHER", "-a", standard, stdin="one\n").strip() == "echo: one"
