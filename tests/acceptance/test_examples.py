"""Every program under examples/ runs as it stands and prints what its page says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.needs import require_program
from tests.server import ROOT

EXAMPLES = ROOT / "examples"
PROGRAMS = {".sh": "sh", ".py": "python", ".mjs": "node", ".rb": "ruby"}
FILES = sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*") if path.suffix in PROGRAMS)


@pytest.fixture
def example(run: Callable[..., str], app_vars: dict[str, str], request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Runs one example by its path under examples/."""

    def run_example(name: str) -> str:
        # The first page's steps leave INFERENCE_MODEL_ID unset; the examples name a model that is always there.
        env = {variable: item for variable, item in app_vars.items() if variable != "INFERENCE_MODEL_ID"}
        if name.startswith("javascript/stream"):
            env["NODE_PATH"] = str(request.getfixturevalue("node_modules"))
        if name.startswith("curl/"):
            require_program("curl")
        return run([PROGRAMS[Path(name).suffix], str(EXAMPLES / name)], EXAMPLES, **env)

    return run_example


@pytest.mark.parametrize("name", FILES)
def test_an_example_runs_and_prints_something(example: Callable[[str], str], name: str) -> None:
    assert example(name).strip()


def test_the_curl_stream_ends_with_its_usage_and_done(example: Callable[[str], str]) -> None:
    events = [line.removeprefix("data: ") for line in example("curl/stream.sh").splitlines() if line]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["usage"]["completion_tokens"] > 0


def test_the_tool_example_calls_the_tool(example: Callable[[str], str]) -> None:
    assert example("python/tools.py").startswith("The model called tide for ")


@pytest.mark.parametrize("name", FILES)
def test_every_example_is_listed(name: str) -> None:
    assert f"]({name})" in (EXAMPLES / "README.md").read_text()
