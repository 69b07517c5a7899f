"""The same requests reach every vendor saying the same, and what a vendor cannot honour is refused or named."""

import base64
import json
from typing import Any

import pytest

from tests.providers.lane import ANY, PIXEL, Lane
from tests.providers.vendors import Answer

Message = dict[str, Any]
TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"To {name}", "parameters": ANY}}
    for name in ("look_up", "paint")
]
INLINE = "data:image/png;base64," + base64.b64encode(PIXEL.data).decode()


def user(content: Any) -> Message:
    return {"role": "user", "content": content}


def called(*calls: tuple[str, str, str], content: str | None = None) -> Message:
    made = [{"id": i, "type": "function", "function": {"name": n, "arguments": a}} for i, n, a in calls]
    return {"role": "assistant", "content": content, "tool_calls": made}


def result(identity: str, content: Any) -> Message:
    return {"role": "tool", "tool_call_id": identity, "content": content}


def sent(lane: Lane, **fields: Any) -> bytes:
    """The body that reached the vendor."""
    assert lane.plain(lane.vendor.plain(Answer()), **fields).error is None
    return lane.exchanges[-1].body


def read(lane: Lane, **fields: Any) -> dict[str, Any]:
    """What the vendor read in it."""
    return lane.vendor.request(sent(lane, **fields))


def test_the_system_messages_are_instructions_wherever_the_vendor_keeps_them(lane: Lane) -> None:
    system: list[Message] = [
        {"role": "system", "content": "Be brief. 🌊"},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
    ]
    said = read(lane, messages=[*system, user("hi")])
    assert "Be brief. 🌊" in said["system"]
    assert "Be kind." in said["system"]
    assert said["texts"] == ["hi"]


def test_every_turn_arrives_in_order(lane: Lane) -> None:
    turns = [user("one"), {"role": "assistant", "content": "two"}, user("three"), user("four")]
    assert read(lane, messages=turns)["texts"] == ["one", "two", "three", "four"]


def test_text_in_parts_arrives_as_text(lane: Lane) -> None:
    parts = [{"type": "text", "text": "wörld"}, {"type": "text", "text": "🌊"}]
    assert "".join(read(lane, messages=[user(parts)])["texts"]) == "wörld🌊"


def test_an_image_arrives_as_its_bytes(lane: Lane) -> None:
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": INLINE}}]
    body = sent(lane, messages=[user(parts)])
    assert base64.b64encode(PIXEL.data) in body
    assert lane.vendor.request(body)["texts"] == ["what is it?"]


def test_a_linked_image_arrives_as_its_address_or_its_bytes(lane: Lane) -> None:
    address = "https://example.com/sea.png"
    body = sent(lane, messages=[user([{"type": "image_url", "image_url": {"url": address}}])])
    assert address.encode() in body or base64.b64encode(PIXEL.data) in body


def test_so_many_linked_images_are_fetched_and_no_more(lane: Lane) -> None:
    parts = [{"type": "image_url", "image_url": {"url": f"https://example.com/{n}.png"}} for n in range(21)]
    heard = lane.plain(lane.vendor.plain(Answer()), messages=[user(parts)])
    if heard.error is None:
        assert b"https://example.com/20.png" in lane.exchanges[-1].body
    else:
        assert (heard.error.code, "20 images" in heard.error.message) == ("image_unavailable", True)


def test_tools_arrive_with_their_names_descriptions_and_schemas(lane: Lane) -> None:
    body = sent(lane, tools=TOOLS)
    assert lane.vendor.request(body)["tools"] == ["look_up", "paint"]
    assert b"To look_up" in body
    assert b'"properties"' in body


def test_a_tool_without_parameters_arrives(lane: Lane) -> None:
    assert read(lane, tools=[{"type": "function", "function": {"name": "now"}}])["tools"] == ["now"]


def test_calls_and_their_results_arrive_together(lane: Lane) -> None:
    history = [
        user("what is it?"),
        called(("call_a1", "look_up", '{"q":"séa"}'), ("call_b2", "paint", "{}"), content="Let me see."),
        result("call_a1", "It is the sea."),
        result("call_b2", [{"type": "text", "text": "It is painted."}]),
    ]
    body = sent(lane, messages=history, tools=TOOLS)
    texts = " ".join(lane.vendor.request(body)["texts"])
    order = [texts.index(said) for said in ("what is it?", "Let me see.", "It is the sea.", "It is painted.")]
    assert order == sorted(order)
    assert "séa" in json.dumps(json.loads(body), ensure_ascii=False)
    if lane.vendor.kind != "gemini":
        assert body.count(b"call_a1") == body.count(b"call_b2") == 2


def test_a_call_that_says_nothing_and_a_result_that_is_empty_arrive(lane: Lane) -> None:
    history = [user("paint"), called(("call_b2", "paint", "{}")), result("call_b2", "")]
    assert read(lane, messages=history, tools=TOOLS)["texts"][0] == "paint"


def test_results_come_back_with_the_next_words_of_the_user(lane: Lane) -> None:
    history = [user("paint"), called(("call_b2", "paint", "{}")), result("call_b2", "done"), user("thanks")]
    texts = read(lane, messages=history, tools=TOOLS)["texts"]
    assert [text for text in texts if text in ("paint", "thanks")] == ["paint", "thanks"]


CHOICES: list[Any] = ["auto", "none", "required", {"type": "function", "function": {"name": "paint"}}]


@pytest.mark.parametrize("choice", CHOICES, ids=["auto", "none", "required", "named"])
def test_a_tool_choice_is_taken_or_refused_by_name(lane: Lane, choice: Any) -> None:
    heard = lane.plain(lane.vendor.plain(Answer()), tools=TOOLS, tool_choice=choice)
    if heard.error is not None:
        assert (heard.error.code, heard.error.param) == ("unsupported_parameter", "tool_choice")


def test_forms_of_tool_choice_say_different_things(lane: Lane) -> None:
    bodies = {sent(lane, tools=TOOLS, tool_choice=choice) for choice in CHOICES}
    assert len(bodies) == len(CHOICES)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_bound_on_output_arrives(lane: Lane, name: str) -> None:
    assert read(lane, **{name: 77})["max_tokens"] == 77


def test_the_newer_name_of_the_bound_wins(lane: Lane) -> None:
    assert read(lane, max_tokens=55, max_completion_tokens=77)["max_tokens"] == 77


@pytest.mark.parametrize("stop", ["END", ["END", "STOP"]])
def test_stop_texts_arrive(lane: Lane, stop: Any) -> None:
    body = sent(lane, stop=stop)
    assert b'"END"' in body
    assert isinstance(stop, str) or b'"STOP"' in body


def test_the_target_is_asked_for_by_its_own_name_at_its_own_address(lane: Lane) -> None:
    body = sent(lane)
    path = lane.exchanges[-1].head.split(b" ")[1]
    assert path.startswith(b"/v1/") or lane.vendor.kind in ("azure", "any-llm")
    assert b"house-model" not in body
    assert b"house-model" not in path


def test_heroku_s_own_fields_stay_here(lane: Lane) -> None:
    body = sent(lane, allow_ignored_params=True, extended_thinking={"enabled": False})
    assert b"allow_ignored_params" not in body
    assert b"extended_thinking" not in body


def test_no_encoding_is_asked_for_that_is_not_read(lane: Lane) -> None:
    sent(lane)
    assert lane.exchanges[-1].header("accept-encoding") in (None, "identity") or lane.is_slow
    assert (lane.exchanges[-1].header("content-type") or "").startswith("application/json")
