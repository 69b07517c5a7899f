"""The chat request: how its typed form reads what clients send."""

import msgspec
import pytest

from penstock.domain.chat import ChatRequest

MESSAGES = [{"role": "user", "content": "hello"}]


def chat(**fields: object) -> ChatRequest:
    return msgspec.convert({"model": "m", "messages": MESSAGES, **fields}, ChatRequest)


def test_the_newer_name_of_the_output_bound_wins() -> None:
    assert chat(max_tokens=10).max_output == 10
    assert chat(max_completion_tokens=20).max_output == 20
    assert chat(max_tokens=10, max_completion_tokens=20).max_output == 20
    assert chat().max_output is None


def test_usage_is_wanted_only_when_asked_for() -> None:
    assert not chat().wants_usage_chunk
    assert not chat(stream_options={}).wants_usage_chunk
    assert chat(stream_options={"include_usage": True}).wants_usage_chunk


def test_content_may_be_text_or_parts() -> None:
    parts = [{"type": "text", "text": "hello"}]
    assert chat(messages=[{"role": "user", "content": parts}]).messages[0].content == parts
    assert chat(messages=[{"role": "user", "content": "hello"}]).messages[0].content == "hello"


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"messages\[0\]\.role"):
        chat(messages=[{"role": "wizard", "content": "hello"}])


def test_a_tool_choice_may_be_a_word_or_name_a_function() -> None:
    assert chat(tool_choice="required").tool_choice == "required"
    named = chat(tool_choice={"type": "function", "function": {"name": "f"}}).tool_choice
    assert not isinstance(named, str)
    assert named is not None
    assert named.function.name == "f"
