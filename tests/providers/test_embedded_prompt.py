"""What the embedded model reads of a conversation, for which templates know roles and text only."""

from typing import Any

from penstock.providers.embedded.prompt import rendered
from tests.engine.engines import bound


def read(*messages: dict[str, Any]) -> list[str]:
    """The texts of a conversation."""
    chat = bound(messages=list(messages)).chat
    return [message["content"] for message in rendered(chat, [])]


def called(*names: str) -> dict[str, Any]:
    made = [{"id": name, "type": "function", "function": {"name": f"{name}_f", "arguments": "{}"}} for name in names]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(identity: str, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": identity, "content": text}


def test_results_stand_in_the_order_of_their_calls_under_the_names_of_these() -> None:
    texts = read(called("a", "b"), result("b", "2"), result("a", "1"), called("b"), result("b", "3"))
    assert [text.split("\n")[1] for text in texts if text.startswith("<tool_response>")] == [
        "a_f: 1",
        "b_f: 2",
        "b_f: 3",
    ]
    assert [text.startswith("<tool_response>") for text in texts] == [False, True, True, False, True]


def test_a_result_of_no_known_call_is_read_behind_the_others() -> None:
    texts = read(called("a"), result("x", "stray"), result("a", "1"))
    assert texts[1:] == ["<tool_response>\na_f: 1\n</tool_response>", "<tool_response>\nstray\n</tool_response>"]


def test_an_answer_that_was_a_refusal_is_read_as_one() -> None:
    assert read({"role": "assistant", "content": None, "refusal": "I cannot."}) == ["I cannot."]
