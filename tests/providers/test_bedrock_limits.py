"""What one model on Bedrock refuses of what its family takes: refused by us first, or left out by name."""

from typing import Any

import pytest

from tests.providers.bedrock_calls import MODEL, bound_request, call, sent
from tests.providers.test_bedrock_requests import CALLED, NEW, NOVA, WEATHER

NOVA_2 = "us.amazon.nova-2-lite-v1:0"
FORCED: dict[str, Any] = {"tools": [WEATHER], "tool_choice": "required"}


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        (MODEL, {"temperature": 0.5, "top_p": 0.5}, "top_p"),
        (MODEL, {"temperature": 0.5, "reasoning_effort": "low"}, "temperature"),
        (MODEL, {"top_p": 0.9, "reasoning_effort": "low"}, "top_p"),
        (MODEL, {"top_k": 5, "reasoning_effort": "low"}, "top_k"),
        (MODEL, {**FORCED, "reasoning_effort": "low"}, "tool_choice"),
        ("anthropic.claude-opus-5-5", FORCED, "tool_choice"),
        (MODEL, {"stop": "\n\n"}, "stop"),
    ],
)
def test_what_claude_refuses_is_refused_as_by_its_own_api(model: str, fields: dict[str, Any], param: str) -> None:
    outcome = call(bound_request(model, **fields))
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.param, outcome.request) == ("unsupported_parameter", param, None)
    lenient = call(bound_request(model, allow_ignored_params=True, **fields))
    assert lenient.ignored == (param,)
    extra = lenient.sent.get("additionalModelRequestFields", {})
    config = lenient.sent.get("inferenceConfig", {})
    left = {"temperature": "temperature" in config, "top_p": "topP" in config, "stop": "stopSequences" in config}
    left |= {"top_k": "top_k" in extra, "tool_choice": "toolChoice" in lenient.sent.get("toolConfig", {})}
    assert not left[param]


def test_what_the_family_and_the_model_refuse_is_named_once() -> None:
    assert call(bound_request(NEW, temperature=0.5, allow_ignored_params=True)).ignored == ("temperature",)


def test_nothing_is_refused_for_thinking_that_is_left_out_in_a_tool_loop() -> None:
    for lenient in (False, True):
        fields: dict[str, Any] = {"reasoning_effort": "low", "temperature": 0.5, "allow_ignored_params": lenient}
        outcome = call(bound_request(messages=CALLED, tools=[WEATHER], **fields))
        assert outcome.sent["inferenceConfig"] == {"temperature": 0.5}
        assert outcome.ignored == ("reasoning_effort",)


def test_other_families_keep_their_stops_and_samplers() -> None:
    config = sent(NOVA, stop=["\n\n", ""], temperature=0.5, top_p=0.5)["inferenceConfig"]
    assert config == {"stopSequences": ["\n\n"], "temperature": 0.5, "topP": 0.5}


@pytest.mark.parametrize(("asked", "budget", "most"), [(1_000_000, 2_048, 64_000), (1_000, 100_000, 64_000)])
def test_no_bound_is_above_what_claude_can_write(asked: int, budget: int, most: int) -> None:
    body = sent(max_tokens=asked, extended_thinking={"enabled": True, "budget_tokens": budget})
    assert body["inferenceConfig"]["maxTokens"] == most
    assert body["additionalModelRequestFields"]["thinking"]["budget_tokens"] < most


@pytest.mark.parametrize("bound", [{"max_tokens": 9}, {"temperature": 0.5}, {"top_p": 0.5}])
@pytest.mark.parametrize(
    "asked", [{"reasoning_effort": "high"}, {"extended_thinking": {"enabled": True, "budget_tokens": 20_000}}]
)
def test_nova_2_thinks_hardest_only_without_bounds(bound: dict[str, Any], asked: dict[str, Any]) -> None:
    def effort(**fields: Any) -> str:
        config = sent(NOVA_2, **fields)["additionalModelRequestFields"]["reasoningConfig"]
        return str(config["maxReasoningEffort"])

    assert effort(**asked) == "high"
    assert effort(**asked, **bound) == "medium"
