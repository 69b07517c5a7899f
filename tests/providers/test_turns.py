"""A conversation as other vendors take it: turns that alternate, calls with an id each, results beside them."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.chat import ChatRequest
from penstock.domain.errors import PenstockError
from penstock.providers.translation.turns import (
    Called,
    Conversation,
    InlineImage,
    Result,
    Text,
    Thought,
    Turn,
    conversation,
    plain_id,
)

USER = {"role": "user", "content": "hi"}
THOUGHT = {"thinking": "hm", "signature": "sig"}


def talk(*messages: dict[str, Any], keep: bool = True) -> Conversation:
    """The conversation of these messages."""
    chat = msgspec.convert({"model": "m", "messages": list(messages)}, ChatRequest)
    return conversation(chat, keeps=lambda _: keep)


def calling(*calls: tuple[str, str], arguments: str = "{}") -> dict[str, Any]:
    """An assistant's message with calls of these ids and names."""
    made = [{"id": identity, "function": {"name": name, "arguments": arguments}} for identity, name in calls]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(identity: str, text: str) -> dict[str, Any]:
    """What a tool answered."""
    return {"role": "tool", "tool_call_id": identity, "content": text}


@pytest.mark.parametrize(
    "empty",
    [
        {"content": ""},
        {"content": " "},
        {"content": None},
        {"content": [{"type": "text", "text": "\n"}]},
        {"content": "", "reasoning": THOUGHT},
    ],
)
def test_a_turn_with_nothing_to_say_leaves_one_turn_of_its_neighbours(empty: dict[str, Any]) -> None:
    said = talk(USER, {"role": "assistant", **empty}, {"role": "user", "content": "there?"})
    assert said.turns == [Turn("user", [Text("hi"), Text("there?")])]


def test_a_thought_that_is_not_kept_makes_no_turn() -> None:
    message = {"role": "assistant", "content": "", "reasoning": THOUGHT}
    assert [turn.role for turn in talk(USER, message, USER, keep=False).turns] == ["user"]
    said = talk(USER, {**message, "content": "ok"}).turns[1]
    assert said.items == [Thought("hm", "sig"), Text("ok")]


def test_a_refusal_of_the_history_is_what_the_assistant_said() -> None:
    message = {"role": "assistant", "content": None, "refusal": "I can't."}
    assert talk(USER, message, USER).turns[1] == Turn("assistant", [Text("I can't.")])


def test_a_call_of_the_old_kind_is_refused_and_not_lost() -> None:
    message = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    with pytest.raises(PenstockError, match="tool_calls"):
        talk(USER, message)
    assert talk(USER, {"role": "assistant", "content": "ok", "function_call": None}).turns[1].items == [Text("ok")]


def test_an_image_among_the_instructions_is_refused_and_not_lost() -> None:
    link = {"type": "image_url", "image_url": {"url": "https://a.test/b.png"}}
    with pytest.raises(PenstockError) as caught:
        talk({"role": "system", "content": [link]}, USER)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "messages[0].content")


def test_an_id_that_stands_again_in_a_later_turn_is_another() -> None:
    turns = talk(
        USER, calling(("call_0", "a")), result("call_0", "1"), calling(("call_0", "b")), result("call_0", "2")
    ).turns
    assert turns[2].items == [Result("call_0", "a", (Text("1"),))]
    assert turns[3].items == [Called("call_0_2", "b", {})]
    assert turns[4].items == [Result("call_0_2", "b", (Text("2"),))]


def test_calls_of_one_message_without_ids_get_their_results_in_order() -> None:
    turns = talk(USER, calling(("", "a"), ("", "b")), result("", "1"), result("", "2")).turns
    assert [item.name for item in turns[2].items if isinstance(item, Result)] == ["a", "b"]
    assert [item.id for item in turns[1].items if isinstance(item, Called)] == ["", "_2"]


@given(st.lists(st.text(max_size=4), min_size=1, max_size=6))
def test_every_call_has_a_plain_id_of_its_own_and_every_result_its_calls(ids: list[str]) -> None:
    messages = [message for one in ids for message in (calling((one, "f")), result(one, "x"))]
    turns = talk(USER, *messages).turns
    called = [plain_id(item.id) for turn in turns for item in turn.items if isinstance(item, Called)]
    assert len(set(called)) == len(ids)
    assert called == [plain_id(item.id) for turn in turns for item in turn.items if isinstance(item, Result)]


def test_long_ids_that_end_alike_stay_apart() -> None:
    first, second = (plain_id(f"call_{number}_sig_{'B' * 400}") for number in (1, 2))
    assert len(first) == len(second) == 64
    assert first != second


def test_results_stand_before_what_the_user_says_beside_them() -> None:
    turns = talk(USER, calling(("a", "f")), {"role": "user", "content": "wait"}, result("a", "1")).turns
    assert [type(item) for item in turns[2].items] == [Result, Text]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [("null", {}), (" ", {}), ('{"x": "un', {"invalid_arguments": '{"x": "un'}), ("[1]", {"invalid_arguments": "[1]"})],
)
def test_arguments_that_are_no_object_do_not_end_the_conversation(arguments: str, sent: dict[str, Any]) -> None:
    assert talk(USER, calling(("a", "f"), arguments=arguments)).turns[1].items == [Called("a", "f", sent)]


def test_a_jpg_is_a_jpeg() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,AAAA"}}
    assert talk({"role": "user", "content": [part]}).turns[0].items == [InlineImage("image/jpeg", "AAAA")]
