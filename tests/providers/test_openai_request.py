"""What an OpenAI server is sent: the client's own bytes, changed only where its profile says so."""

import json
import re
from typing import Any

import pytest

from penstock.domain.errors import PenstockError
from penstock.providers.openai.request import FIELDS, Body, table
from penstock.providers.profiles import built_in_providers
from penstock.providers.spec import Quirks
from penstock.providers.translation.fields import Fields, Handling
from tests.providers.asking import KEY, ask, asked, bound, plain, spec

PROFILES = built_in_providers()
ODD = (
    b'{ "model" : "m", "messages":[{"role":"user","content":"\\u00fc"}], "temperature":1.0 , "seed":12345678901234567}'
)


def sent(quirks: Quirks, **fields: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(Body(quirks).write(bound(asked(**fields), isolation="app-1")))
    return data


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "vllm-isolated"])
def test_a_body_that_needs_no_change_is_sent_byte_for_byte(name: str) -> None:
    quirks = PROFILES[name].quirks
    body = ODD.replace(b', "seed":12345678901234567', b"") if name in ("mistral", "deepseek", "perplexity") else ODD
    assert Body(quirks).write(bound(body, target_model="m")) == body


def test_values_keep_their_digits_where_the_body_is_rebuilt() -> None:
    written = Body(Quirks()).write(bound(ODD, target_model="other"))
    assert b"12345678901234567" in written
    assert b"1.0" in written
    assert json.loads(written)["model"] == "other"


def test_our_own_fields_never_reach_a_server() -> None:
    body = sent(Quirks(), allow_ignored_params=True, extended_thinking={"enabled": True})
    assert set(body) == {"model", "messages"}


@pytest.mark.parametrize(
    ("wanted", "given", "field"),
    [
        ("max_completion_tokens", {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("max_tokens", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("max_tokens", {"max_tokens": 4, "max_completion_tokens": 5}, {"max_tokens": 5}),
        ("max_tokens", {"max_tokens": 4}, {"max_tokens": 4}),
        (None, {"max_tokens": 4}, {"max_tokens": 4}),
    ],
)
def test_the_bound_on_output_has_the_name_that_the_server_wants(
    wanted: Any, given: dict[str, int], field: dict[str, int]
) -> None:
    body = sent(Quirks(max_tokens_field=wanted), **given)
    assert {name: value for name, value in body.items() if name.startswith("max_")} == field


def test_a_renamed_parameter_arrives_under_the_servers_name() -> None:
    body = sent(PROFILES["mistral"].quirks, seed=7, stream=True, stream_options={"include_usage": True})
    assert (body["random_seed"], "seed" in body, "stream_options" in body) == (7, False, False)


def test_a_refused_parameter_is_a_400_that_names_it_and_an_ignored_one_is_named_and_not_sent() -> None:
    server = spec(quirks=Quirks(refuses=("top_k",), ignores=("seed",)))
    refused = ask(server, plain, top_k=5)
    assert refused.error is not None
    assert (refused.error.code, refused.error.param, refused.requests) == ("unsupported_parameter", "top_k", [])
    heard = ask(server, plain, top_k=5, seed=1, allow_ignored_params=True)
    assert set(heard.ignored) == {"top_k", "seed"}
    assert set(heard.sent) == {"model", "messages"}
    heard = ask(server, plain, seed=1, temperature=0)
    assert (heard.ignored, heard.sent["temperature"], "seed" in heard.sent) == (("seed",), 0, False)


@pytest.mark.parametrize("given", [{}, {"include_obfuscation": False}])
def test_the_usage_is_asked_for_beside_what_the_client_asks_of_the_stream(given: dict[str, bool]) -> None:
    assert sent(Quirks(), stream=True, stream_options=given)["stream_options"] == given | {"include_usage": True}
    assert sent(Quirks(), stream=True)["stream_options"] == {"include_usage": True}


def test_the_developers_role_becomes_the_systems_where_the_server_knows_only_that() -> None:
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "x"}]
    assert sent(Quirks(), messages=messages)["messages"] == messages
    assert sent(Quirks(developer_role=False), messages=messages)["messages"][0] == messages[0] | {"role": "system"}


@pytest.mark.parametrize(
    ("field", "kept"),
    [(None, {}), ("reasoning", {"reasoning": "hm"}), ("reasoning_content", {"reasoning_content": "hm"})],
)
def test_thoughts_of_the_history_go_back_as_the_server_wants_them(field: Any, kept: dict[str, str]) -> None:
    said = {"role": "assistant", "content": "a"}
    thought = said | {"reasoning": {"thinking": "hm", "signature": "s"}}
    assert sent(Quirks(reasoning_field=field), messages=[thought])["messages"] == [said | kept]


ECHOED = {
    "reasoning_content": "hm",
    "reasoning_details": [{"type": "reasoning.text", "text": "hm"}],
    "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}],
    "provider_specific_fields": {"x": 1},
}


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("openai", {}),
        ("sglang", {"reasoning_content": "hm"}),
        ("vllm", {"reasoning": "hm"}),
        ("openrouter", {"reasoning": "hm", "reasoning_details": ECHOED["reasoning_details"]}),
    ],
)
def test_what_clients_echo_of_any_servers_thoughts_is_taken_and_reaches_only_who_knows_it(
    name: str, kept: dict[str, Any]
) -> None:
    said = {"role": "assistant", "content": "a"}
    assert sent(PROFILES[name].quirks, messages=[said | ECHOED])["messages"] == [said | kept]


@pytest.mark.parametrize("field", ["reasoning", *ECHOED])
def test_a_thought_that_is_null_is_taken_and_left_out(field: str) -> None:
    said = {"role": "assistant", "content": "a"}
    assert sent(Quirks(), messages=[said | {field: None}])["messages"] == [said]


def test_an_answer_of_the_history_that_has_no_thoughts_changes_nothing() -> None:
    answer = {"role": "assistant", "content": 'a "reasoning": null, "thinking_blocks"'}
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"required": ["reasoning"]}}}
    body = asked(model="m", messages=[answer], response_format=schema, reasoning_effort="low")
    assert Body(Quirks()).write(bound(body, target_model="m")) == body


def called(identity: str) -> list[dict[str, Any]]:
    call = {"id": identity, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    return [answer, {"role": "tool", "tool_call_id": identity, "content": "1"}]


@pytest.mark.parametrize(
    ("name", "identity", "pattern"),
    [
        ("openai", "call_" + "a" * 24 + "_sig_" + "b" * 400, r"call_[0-9a-f]{24}"),
        ("azure", "call_" + "a" * 36, r"call_[0-9a-f]{24}"),
        ("mistral", "call_" + "a" * 24, r"[0-9a-f]{9}"),
        ("mistral", "toolu_01A", r"[0-9a-f]{9}"),
        ("openai", "x" * 40, "x{40}"),
        ("mistral", "D681PevKs", "D681PevKs"),
        ("vllm", "chatcmpl-tool-" + "a" * 32, "chatcmpl-tool-a{32}"),
    ],
)
def test_a_calls_id_that_the_server_refuses_becomes_one_that_it_takes_and_so_does_its_results(
    name: str, identity: str, pattern: str
) -> None:
    call, result = sent(PROFILES[name].quirks, messages=called(identity))["messages"]
    assert re.fullmatch(pattern, call["tool_calls"][0]["id"])
    assert result["tool_call_id"] == call["tool_calls"][0]["id"]
    other = sent(PROFILES[name].quirks, messages=[*called("another"), *called(identity)])["messages"]
    assert other[2:] == [call, result]
    assert other[0]["tool_calls"][0]["id"] != call["tool_calls"][0]["id"]


def test_a_strict_server_gets_no_field_of_a_message_that_it_does_not_know() -> None:
    notes: dict[str, Any] = {"refusal": None, "annotations": [], "audio": None, "function_call": None, "name": "n"}
    messages = [
        {"role": "user", "content": "x", "name": "n"},
        {"role": "assistant", "content": "a"} | notes,
        {"role": "assistant", "content": None, "refusal": "I cannot."},
    ]
    assert sent(PROFILES["mistral"].quirks, messages=messages)["messages"] == [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "I cannot."},
    ]
    assert sent(Quirks(), messages=messages)["messages"] == messages


@pytest.mark.parametrize(
    ("way", "asked_for", "fields"),
    [
        ("reasoning_effort", {"enabled": True}, {"reasoning_effort": "medium"}),
        ("reasoning_effort", {"enabled": True, "budget_tokens": 2048}, {"reasoning_effort": "low"}),
        ("reasoning_effort", {"enabled": True, "budget_tokens": 8192}, {"reasoning_effort": "medium"}),
        ("reasoning_effort", {"enabled": True, "budget_tokens": 8193}, {"reasoning_effort": "high"}),
        ("reasoning_effort", {"enabled": False}, {}),
        ("reasoning", {"enabled": True, "include_reasoning": True}, {"reasoning": {"enabled": True}}),
        ("reasoning", {"enabled": True, "budget_tokens": 1024}, {"reasoning": {"max_tokens": 1024, "exclude": True}}),
        ("reasoning", {"enabled": False}, {"reasoning": {"enabled": False}}),
        ("thinking", {"enabled": True}, {"thinking": {"type": "enabled"}}),
        (
            "thinking",
            {"enabled": True, "budget_tokens": 1024},
            {"thinking": {"type": "enabled"}, "reasoning_effort": "low"},
        ),
        ("thinking", {"enabled": False}, {"thinking": {"type": "disabled"}}),
        (
            "chat_template_kwargs",
            {"enabled": False},
            {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
        ),
    ],
)
def test_extended_thinking_is_said_in_the_servers_words(way: Any, asked_for: dict[str, Any], fields: Any) -> None:
    body = sent(Quirks(thinking=way), extended_thinking=asked_for)
    assert {name: value for name, value in body.items() if name not in ("model", "messages")} == fields
    heard = ask(spec(quirks=Quirks(thinking=way)), plain, extended_thinking=asked_for)
    assert heard.ignored == ()


def test_extended_thinking_that_no_word_is_known_for_is_named_as_ignored() -> None:
    assert ask(spec(), plain, extended_thinking={"enabled": True}).ignored == ("extended_thinking",)


def test_apps_share_no_prefix_cache_where_the_profile_isolates_them() -> None:
    quirks = PROFILES["vllm-isolated"].quirks
    assert sent(quirks)["cache_salt"] == "app-1"
    assert "cache_salt" not in sent(PROFILES["vllm"].quirks)
    assert "cache_salt" not in json.loads(Body(quirks).write(bound(asked())))


def test_the_key_and_the_rows_headers_go_out_with_every_call() -> None:
    heard = ask(spec(headers=(("x-title", "Penstock"),)), plain)
    (exchange,) = heard.requests
    assert exchange.head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert (exchange.header("authorization"), exchange.header("x-title")) == (f"Bearer {KEY}", "Penstock")


def test_every_parameter_has_its_place_in_every_table() -> None:
    for row in PROFILES.values():
        assert set(table(row.quirks)) == set(FIELDS)
    assert FIELDS["top_k"].handling is Handling.PASSED
    assert table(PROFILES["openai"].quirks)["top_k"].handling is Handling.REFUSED
    assert table(PROFILES["openai"].quirks)["extended_thinking"].handling is Handling.TRANSLATED


@pytest.mark.parametrize("name", ["openai", "azure"])
def test_openai_itself_takes_no_top_k_and_a_server_of_ones_own_does(name: str) -> None:
    chat = bound(asked(top_k=4, min_p=0.1)).chat
    Fields("x", table(PROFILES["vllm"].quirks)).check(chat)
    with pytest.raises(PenstockError):
        Fields("x", table(PROFILES[name].quirks)).check(chat)
