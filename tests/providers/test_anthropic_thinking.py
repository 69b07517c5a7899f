"""Thinking at the Messages API: what is asked for, what the client sees of it, and how it comes back."""

import json
from typing import Any

import pytest

from penstock.providers.anthropic.claude import claude
from penstock.providers.anthropic.request import ignored
from penstock.providers.anthropic.thinking import room
from penstock.providers.translation.proofs import Block, packed, unpacked
from tests.providers.test_anthropic_request import SONNET, TOOLS, asked, loop, said

THINK = {"enabled": True, "include_reasoning": True}
SIGNED = {"thinking": "Hm.", "signature": "sig"}


@pytest.mark.parametrize(
    ("effort", "budget"), [("minimal", 1_024), ("low", 2_048), ("medium", 8_192), ("high", 24_576), ("xhigh", 32_768)]
)
def test_an_effort_is_a_fixed_budget_for_a_model_that_thinks_by_budget(effort: str, budget: int) -> None:
    assert said(reasoning_effort=effort)["thinking"] == {"type": "enabled", "budget_tokens": budget}


@pytest.mark.parametrize(
    ("target", "effort", "sent"),
    [
        ("claude-sonnet-4-6", "minimal", "low"),
        ("claude-sonnet-4-6", "xhigh", "max"),
        ("claude-opus-4-8", "xhigh", "xhigh"),
        ("claude-opus-5-5", "medium", "medium"),
    ],
)
def test_an_effort_stays_one_for_a_model_that_thinks_adaptively(target: str, effort: str, sent: str) -> None:
    wire = said(target, reasoning_effort=effort)
    assert wire["thinking"] == {"type": "adaptive"}
    assert wire["output_config"] == {"effort": sent}


def test_a_budget_is_passed_where_it_is_taken_and_an_effort_elsewhere() -> None:
    thinking = {"enabled": True, "budget_tokens": 5_000}
    enabled = {"type": "enabled", "budget_tokens": 5_000}
    assert said(extended_thinking=thinking)["thinking"] == enabled
    assert said("claude-opus-4-6", extended_thinking=thinking)["thinking"] == enabled
    newer = said("claude-opus-4-7", extended_thinking=thinking)
    assert newer["thinking"] == {"type": "adaptive"}
    assert newer["output_config"] == {"effort": "medium"}


def test_extended_thinking_without_a_budget_has_that_of_medium() -> None:
    assert said(extended_thinking={"enabled": True})["thinking"]["budget_tokens"] == 8_192
    adaptive = said("claude-opus-5", extended_thinking=THINK)
    assert adaptive["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert "output_config" not in adaptive


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        (SONNET, None),
        ("claude-opus-4-8", None),
        ("claude-opus-5", {"type": "disabled"}),
        ("claude-sonnet-5-5", {"type": "between_tools"}),
        ("claude-fable-5-1", None),
    ],
)
def test_thinking_that_is_on_by_itself_is_turned_off_with_the_models_own_word(target: str, sent: Any) -> None:
    assert said(target, extended_thinking={"enabled": False}).get("thinking") == sent
    assert "thinking" not in said(target)


@pytest.mark.parametrize(
    ("asked", "budget", "sent"),
    [
        (None, 8_192, (64_000, 8_192)),
        (100, 0, (100, 0)),
        (10_000, 8_192, (10_000, 8_192)),
        (1_000, 8_192, (9_192, 8_192)),
        (63_000, 63_500, (64_000, 63_500)),
        (1_000, 100_000, (64_000, 62_976)),
    ],
)
def test_a_bound_without_room_beside_the_budget_is_raised_by_it(
    asked: int | None, budget: int, sent: tuple[int, int]
) -> None:
    assert room(asked, budget, claude(SONNET)) == sent


def test_a_signed_thought_goes_back_before_the_calls_that_it_led_to() -> None:
    blocks = said(messages=loop(SIGNED), tools=TOOLS, extended_thinking=THINK)["messages"][1]["content"]
    assert blocks[0] == {"type": "thinking", "thinking": "Hm.", "signature": "sig"}
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use", "tool_use"]


def test_thoughts_do_not_go_to_a_model_that_has_none() -> None:
    content = said("claude-3-5-haiku-20241022", messages=loop(SIGNED))["messages"][1]["content"]
    assert content[0]["type"] == "text"


def test_a_tool_loop_that_began_without_thinking_ends_without() -> None:
    assert "thinking" not in said(messages=loop(), tools=TOOLS, extended_thinking=THINK)
    assert "thinking" in said(messages=loop(SIGNED), tools=TOOLS, extended_thinking=THINK)
    assert ignored(asked(messages=loop(), tools=TOOLS, extended_thinking=THINK)) == ("extended_thinking",)
    assert ignored(asked(messages=loop(SIGNED), tools=TOOLS, reasoning_effort="low")) == ()
    lenient: dict[str, Any] = {"messages": loop(), "temperature": 0.5, "allow_ignored_params": True}
    assert ignored(asked(tools=TOOLS, reasoning_effort="low", **lenient)) == ("reasoning_effort",)
    # A model that thinks adaptively may begin at any time.
    assert "thinking" in said("claude-opus-4-8", messages=loop(), tools=TOOLS, extended_thinking=THINK)


@pytest.mark.parametrize("signature", ["gemini:AAAA", 'blocks:[[3,""]]'])
def test_a_thought_that_does_not_go_back_begins_no_loop_with_thinking(signature: str) -> None:
    wire = said(messages=loop({"thinking": "Hm.", "signature": signature}), tools=TOOLS, extended_thinking=THINK)
    assert "thinking" not in wire
    assert wire["messages"][1]["content"][0]["type"] == "text"


def test_thoughts_that_are_all_encrypted_come_back_without_their_text() -> None:
    wire = said(messages=loop({"signature": packed([Block(-1, "opaque")])}), tools=TOOLS, extended_thinking=THINK)
    assert wire["messages"][1]["content"][0] == {"type": "redacted_thinking", "data": "opaque"}
    assert "thinking" in wire


def test_blocks_that_nobody_signed_have_no_proof_and_do_not_come_back() -> None:
    assert packed([Block(5, ""), Block(3, "")]) is None
    proof = packed([Block(2, ""), Block(2, "sig")])
    assert proof is not None
    assert [(block.text, block.signature) for block in unpacked("abcd", proof)] == [("cd", "sig")]


def test_a_single_block_of_thoughts_keeps_its_vendors_signature() -> None:
    assert packed([Block(3, "sig")]) == "sig"
    assert packed([]) is None


def test_several_and_encrypted_blocks_come_back_as_they_were() -> None:
    proof = packed([Block(5, "sig-1"), Block(-1, "opaque"), Block(0, "sig-2"), Block(4, "sig-3")])
    echoed = {"thinking": "Hörst du.", "signature": proof}
    sent = [block for turn in said(messages=loop(echoed))["messages"] for block in turn["content"]]
    assert [block for block in sent if "thinking" in block["type"]] == [
        {"type": "thinking", "thinking": "Hörst", "signature": "sig-1"},
        {"type": "redacted_thinking", "data": "opaque"},
        {"type": "thinking", "thinking": "", "signature": "sig-2"},
        {"type": "thinking", "thinking": " du.", "signature": "sig-3"},
    ]


def test_another_vendors_signature_does_not_go_back() -> None:
    assert unpacked("Hm.", "other:c2ln") == []


def test_a_packed_signature_that_a_client_made_up_is_no_thought() -> None:
    made_up = {"thinking": "Hm.", "signature": "blocks:[1,2"}
    assert "thinking" not in json.dumps(said(messages=loop(made_up))["messages"])
