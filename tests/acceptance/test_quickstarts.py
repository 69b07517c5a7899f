"""Both published quick-starts, word for word: the pages' commands, then the pages' programs, unmodified."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.published import commands, exports
from tests.needs import require_program


@pytest.fixture(scope="module")
def javascript_page(shared: Path) -> str:
    return (shared / "reference" / "quickstart-javascript.txt").read_text()


@pytest.fixture(scope="module")
def ruby_page(shared: Path) -> str:
    return (shared / "reference" / "quickstart-ruby.txt").read_text()


def test_the_javascript_page_has_the_commands_that_we_run(javascript_page: str) -> None:
    assert commands(javascript_page) == [
        "heroku create $APP_NAME",
        "heroku addons:create heroku-inference:standard -a $APP_NAME --as INFERENCE",
    ]
    assert [line.partition("=")[0] for line in exports(javascript_page)] == [
        "export INFERENCE_URL",
        "export INFERENCE_KEY",
    ]


def test_the_ruby_page_has_the_commands_that_we_run(ruby_page: str) -> None:
    assert commands(ruby_page) == [
        "heroku plugins:install @heroku/plugin-ai",
        "heroku create example-app",
        "heroku ai:models:create -a example-app claude-3-7-sonnet --as INFERENCE",
    ]
    assert [line.partition("=")[0] for line in exports(ruby_page)] == [
        "export INFERENCE_URL",
        "export INFERENCE_KEY",
        "export INFERENCE_MODEL_ID",
    ]


def test_the_javascript_quick_start_prints_a_completion(
    run: Callable[..., str], javascript_page: str, shared: Path, node_modules: Path, tmp_path: Path
) -> None:
    lines = [*commands(javascript_page), *exports(javascript_page)]
    command = script(lines, f"node '{shared}/acceptance/quickstart.js'", "js-quick-start")
    assert completion_of(run(command, tmp_path, NODE_PATH=str(node_modules)))


def test_the_ruby_quick_start_prints_a_completion(
    run: Callable[..., str], ruby_page: str, shared: Path, tmp_path: Path
) -> None:
    require_program("ruby")
    lines = [*commands(ruby_page), *exports(ruby_page)]
    assert completion_of(run(script(lines, f"ruby '{shared}/acceptance/quickstart.rb'", "example-app"), tmp_path))


def script(lines: list[str], program: str, app: str) -> list[str]:
    """One shell in which `heroku` is an alias of `penstock`: the page's commands, then the program."""
    setup = ["set -e", "shopt -s expand_aliases", "alias heroku=penstock", f"export APP_NAME={app}"]
    return ["bash", "-c", "\n".join([*setup, *lines, "echo '--- program'", program])]


def completion_of(said: str) -> str:
    """The model's text in what a quick-start printed."""
    said = said.partition("--- program\n")[2]
    assert said.startswith("Chat Completion: "), said
    return said.removeprefix("Chat Completion: ").strip()
