"""The OpenAI Node SDK against the real server and the real model."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.needs import require_program
from tests.sdk.conftest import MODEL, Inference

Subject = Callable[[str], Any]


@pytest.fixture(scope="module")
def subject(standard: Inference, node_modules: Path) -> Subject:
    """Runs one subject of subjects.mjs and returns what it printed."""

    def run(name: str) -> Any:
        env = os.environ | {"BASE_URL": standard.base_url, "INFERENCE_KEY": standard.key, "MODEL": MODEL}
        command = [require_program("node"), "subjects.mjs", name]
        done = subprocess.run(
            command, cwd=node_modules.parent, env=env, capture_output=True, text=True, timeout=110, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_plain_answer_has_text_and_usage(subject: Subject) -> None:
    answer = subject("plain")
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] > 0


def test_a_stream_has_one_role_text_a_reason_and_its_usage(subject: Subject) -> None:
    seen = subject("streamed")
    assert seen["roles"] == ["assistant"]
    assert seen["text"]
    assert seen["reason"] in ("stop", "length")
    assert seen["usage"]["completion_tokens"] > 0


def test_a_streamed_tool_call_is_put_together_by_the_sdk(subject: Subject) -> None:
    choice = subject("tools")
    assert choice["finish_reason"] == "tool_calls"
    call = choice["message"]["tool_calls"][0]
    assert call["function"]["name"] == "paint"
    assert json.loads(call["function"]["arguments"])["colour"] in ("red", "green")


def test_a_strict_schema_is_met(subject: Subject) -> None:
    assert subject("schema")["colour"] in ("red", "green")


def test_each_error_is_the_sdks_own_class(subject: Subject) -> None:
    seen = subject("errors")
    assert (seen["key"]["name"], seen["key"]["code"]) == ("AuthenticationError", "invalid_api_key")
    assert (seen["model"]["name"], seen["model"]["code"]) == ("NotFoundError", "model_not_found")
    assert (seen["value"]["name"], seen["value"]["param"]) == ("BadRequestError", "temperature")
    assert (seen["stream"]["name"], seen["stream"]["status"]) == ("NotFoundError", 404)


def test_the_models_are_listed(subject: Subject) -> None:
    assert MODEL in subject("models")
