"""Every bad request is a 400 that names its field, or another clear refusal; never a 500, never an upstream call."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.domain.errors import CODES, PenstockError
from penstock.gateway.wire import parse_chat
from tests.gateway.conftest import Gateway

USER = {"role": "user", "content": "x"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def request(**fields: Any) -> dict[str, Any]:
    body = {"model": "scripted", "messages": [USER]} | fields
    return {name: value for name, value in body.items() if value != "ABSENT"}


CASES: list[tuple[dict[str, Any], str, str | None]] = [
    (request(messages="ABSENT"), "missing_parameter", "messages"),
    (request(model="ABSENT"), "missing_parameter", "model"),
    (request(model=5), "invalid_type", "model"),
    (request(messages=[]), "invalid_value", "messages"),
    (request(messages="hi"), "invalid_type", "messages"),
    (request(messages=[{"role": "robot", "content": "x"}]), "invalid_value", "messages[0].role"),
    (request(messages=[USER, {"content": "x"}]), "missing_parameter", "messages[1].role"),
    (request(messages=[{"role": "user"}]), "missing_parameter", "messages[0].content"),
    (request(messages=[{"role": "user", "content": 5}]), "invalid_type", "messages[0].content"),
    (request(messages=[{"role": "user", "content": []}]), "invalid_value", "messages[0].content"),
    (request(messages=[{"role": "user", "content": [{"text": "x"}]}]), "invalid_value", "messages[0].content[0].type"),
    (
        request(messages=[{"role": "user", "content": [{"type": "text"}]}]),
        "invalid_type",
        "messages[0].content[0].text",
    ),
    (request(messages=[USER, {"role": "tool", "content": "x"}]), "missing_parameter", "messages[1].tool_call_id"),
    (request(temperature=2.1), "invalid_value", "temperature"),
    (request(temperature="hot"), "invalid_type", "temperature"),
    (request(temperature=True), "invalid_type", "temperature"),
    (request(top_p=-0.1), "invalid_value", "top_p"),
    (request(min_p=7), "invalid_value", "min_p"),
    (request(max_tokens=0), "invalid_value", "max_tokens"),
    (request(max_tokens=1.5), "invalid_type", "max_tokens"),
    (request(max_completion_tokens=-1), "invalid_value", "max_completion_tokens"),
    (request(n=0), "invalid_value", "n"),
    (request(seed=2**64), "invalid_value", "seed"),
    (request(presence_penalty=3), "invalid_value", "presence_penalty"),
    (request(frequency_penalty=-3), "invalid_value", "frequency_penalty"),
    (request(top_logprobs=3), "invalid_value", "top_logprobs"),
    (request(logprobs=True, top_logprobs=21), "invalid_value", "top_logprobs"),
    (request(stop=["a"] * 17), "invalid_value", "stop"),
    (request(stop=""), "invalid_value", "stop"),
    (request(stream="yes"), "invalid_type", "stream"),
    (request(stream_options={"include_usage": True}), "invalid_value", "stream_options"),
    (request(tools=[{"type": "code"}]), "invalid_value", "tools[0].type"),
    (request(tools=[{"type": "function", "function": {"name": "a b"}}]), "invalid_value", "tools[0].function.name"),
    (request(tools=[TOOL, TOOL]), "invalid_value", "tools[1].function.name"),
    (request(tool_choice="required"), "invalid_value", "tool_choice"),
    (
        request(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "g"}}),
        "invalid_value",
        "tool_choice.function.name",
    ),
    (request(tools=[TOOL], tool_choice="maybe"), "invalid_value", "tool_choice"),
    (request(response_format={"type": "xml"}), "invalid_value", "response_format.type"),
    (request(response_format={"type": "json_schema"}), "missing_parameter", "response_format.json_schema.schema"),
    (request(reasoning_effort="much"), "invalid_value", "reasoning_effort"),
    (
        request(extended_thinking={"enabled": True, "budget_tokens": 10}),
        "invalid_value",
        "extended_thinking.budget_tokens",
    ),
    (request(logit_bias={"x": 1}), "invalid_value", "logit_bias"),
    (request(temprature=1), "unknown_parameter", "temprature"),
    (request(messages=[USER | {"weight": 1}]), "unknown_parameter", "messages[0].weight"),
    (request(foo=1, temperature=9, allow_ignored_params=True), "invalid_value", "temperature"),
]


@pytest.mark.parametrize(("body", "code", "param"), CASES, ids=[f"{code}-{param}" for _, code, param in CASES])
def test_a_bad_value_is_refused_with_its_field(
    gateway: Gateway, body: dict[str, Any], code: str, param: str | None
) -> None:
    before = gateway.upstream.requests
    answer = gateway.post(body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
    assert error["type"] == "invalid_request_error"
    assert answer.json()["message"] == error["message"]
    assert param is None or param.rpartition(".")[2].rpartition("[")[0] in error["message"] or param in error["message"]
    assert gateway.upstream.requests == before


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "line 1 column 1 (byte 0)"),
        (b'{"model": "x",\n oops}', "line 2 column 2 (byte 16)"),
        (b'{"model":"x"', "byte 12"),
        (b'{"temperature": NaN}', "NaN"),
        (b'{"model":"\xff"}', "byte 10"),
        (b'{"model":"\\ud800","messages":[]}', "surrogate"),
        (b'{"metadata":' + b"[" * 100_000, "nested too deeply"),
        (b'{"metadata":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested too deeply"),
        (b"[]", "one JSON object"),
        (b'"text"', "one JSON object"),
        (b"null", "one JSON object"),
        (json.dumps(request()).encode() + b" trailing", "(byte"),
    ],
)
def test_a_body_that_is_not_json_is_refused_with_its_place(gateway: Gateway, body: bytes, says: str) -> None:
    answer = gateway.post(body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
    assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", "x/y"])
def test_json_is_read_whatever_the_content_type(gateway: Gateway, kind: str) -> None:
    body = json.dumps(request()).encode()
    assert gateway.post(body, headers={"content-type": kind}).status_code == 200


def test_nul_and_emoji_are_text_like_any_other(gateway: Gateway) -> None:
    assert gateway.chat(messages=[{"role": "user", "content": "a\0b \U0001f600"}]).status_code == 200


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_fields = st.sampled_from(
    ["model", "messages", "tools", "tool_choice", "stop", "stream", "n", "x", "allow_ignored_params"]
)


def refusal(body: bytes) -> PenstockError | None:
    """How the body is refused; None when it is accepted."""
    try:
        parse_chat(body)
    except PenstockError as error:
        return error
    return None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(_fields, _json_values, max_size=5) | _json_values)
def test_any_json_is_parsed_or_refused_with_a_public_code(value: Any) -> None:
    error = refusal(json.dumps(value).encode())
    assert error is None or (error.status == 400 and error.code in CODES)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused_with_a_public_code(body: bytes) -> None:
    error = refusal(body)
    assert error is None or (error.status == 400 and error.code in CODES)
