"""What a chat request becomes in Converse's words."""

import asyncio
import base64
import calendar
import time
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate
import pytest

from penstock.domain.chat import ChatRequest
from penstock.providers.bedrock.adapter import Converse
from penstock.providers.bedrock.families import family_of
from penstock.providers.bedrock.request import FIELDS
from penstock.providers.bedrock.sign import Keys
from penstock.providers.spec import Bound, ProviderSpec
from penstock.providers.transport import Endpoint, Transport
from tests.providers.bedrock_calls import BEARER, KEYS, PIXEL, Fetcher, bound_request, call, sent
from tests.providers.test_bedrock_sign import by_botocore

POINT = {"cachePoint": {"type": "default"}}
NOVA = "us.amazon.nova-pro-v1:0"
KIMI = "moonshotai.kimi-k2.5"
NEW = "global.anthropic.claude-opus-4-8"
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "description": "now", "parameters": {"type": "object"}},
}
SYSTEM = {"role": "system", "content": "be brief"}
USER = {"role": "user", "content": "hi"}
CALLED: list[dict[str, Any]] = [
    USER,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"at":"Ulm"}'}}],
    },
    {"role": "tool", "tool_call_id": "t1", "content": "rain"},
]


def test_every_parameter_has_its_row() -> None:
    structure = {"model", "messages", "stream", "allow_ignored_params"}
    assert set(FIELDS) == set(ChatRequest.__struct_fields__) - structure


def test_a_full_request_is_valid_by_the_vendors_own_service_model() -> None:
    body = sent(
        messages=[SYSTEM, *CALLED, {"role": "user", "content": [{"type": "text", "text": "and now?"}, picture("png")]}],
        tools=[WEATHER],
        tool_choice="required",
        max_tokens=100,
        temperature=0.5,
        top_k=40,
        stop="END",
        metadata={"team": "a"},
        service_tier="flex",
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    )
    assert_valid(body)
    assert body["inferenceConfig"] == {"maxTokens": 100, "temperature": 0.5, "stopSequences": ["END"]}
    assert body["additionalModelRequestFields"] == {"top_k": 40}
    assert body["toolConfig"]["toolChoice"] == {"any": {}}
    assert body["serviceTier"] == {"type": "flex"}
    assert body["requestMetadata"] == {"team": "a"}
    assert body["outputConfig"]["textFormat"]["structure"]["jsonSchema"] == {
        "name": "n",
        "schema": '{"type":"object","additionalProperties":false}',
    }


def assert_valid(body: dict[str, Any]) -> None:
    """By botocore's own model of the service, images as bytes."""
    loaded = botocore.loaders.Loader().load_service_model("bedrock-runtime", "service-2")
    shape = botocore.model.ServiceModel(loaded).operation_model("Converse").input_shape
    problems = botocore.validate.ParamValidator().validate(body | {"modelId": "m"}, shape)
    assert not problems.has_errors(), problems.generate_report()


def picture(kind: str) -> dict[str, Any]:
    """An image part with its bytes."""
    data = base64.b64encode(PIXEL).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}}


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("us.anthropic.claude-3-5-haiku-20241022-v1:0", "us.anthropic.claude-3-5-haiku-20241022-v1%3A0"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-pro-v1:0",
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.amazon.nova-pro-v1%3A0",
        ),
    ],
)
def test_the_model_stands_in_the_path_and_botocore_signs_that_path_the_same(model: str, path: str) -> None:
    for stream, verb in ((False, "converse"), (True, "converse-stream")):
        request = call(bound_request(model, stream=stream), credential=KEYS).request
        assert request is not None
        target = f"/model/{path}/{verb}"
        assert request.head.startswith(f"POST {target} HTTP/1.1\r\n".encode())
        stamp = request.header("x-amz-date")
        assert stamp is not None
        keys = Keys(KEYS.access_key_id or "", KEYS.secret, KEYS.session_token)
        expected = by_botocore(keys, request.header("host") or "", target, request.body, unix(stamp))
        assert {name: request.header(name) for name in expected} == expected


def unix(stamp: str) -> int:
    """The Unix time of an AWS date."""
    return calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))


def test_a_key_of_the_service_goes_as_bearer_and_nothing_is_signed() -> None:
    request = call(bound_request(), credential=BEARER).request
    assert request is not None
    assert request.header("authorization") == "Bearer ABSK-bearer-secret"
    assert request.header("x-amz-date") is None


def test_without_a_credential_the_operator_is_named_as_the_one_to_act() -> None:
    outcome = call(bound_request(), credential=None)
    assert outcome.error is not None
    assert outcome.error.code == "upstream_misconfigured"
    assert outcome.request is None


def test_calls_and_results_keep_their_places_and_foreign_ids_become_valid_ones() -> None:
    history = [dict(message) for message in CALLED]
    history[1]["tool_calls"] = [{"id": "fc|é" + "x" * 80, "function": {"name": "weather", "arguments": '{"at":"Ulm"}'}}]
    history[2]["tool_call_id"] = "fc|é" + "x" * 80
    body = sent(messages=history, tools=[WEATHER])
    use, result = body["messages"][1]["content"][0]["toolUse"], body["messages"][2]["content"][0]["toolResult"]
    assert use["input"] == {"at": "Ulm"}
    assert use["toolUseId"] == result["toolUseId"]
    assert use["toolUseId"].startswith("fc__xxx")
    assert result["content"] == [{"text": "rain"}]
    assert_valid(body)


def test_blank_texts_are_left_out() -> None:
    body = sent(messages=[{"role": "system", "content": " "}, USER, {"role": "assistant", "content": "\n"}, USER])
    assert body["messages"] == [{"role": "user", "content": [{"text": "hi"}, {"text": "hi"}]}]
    assert "system" not in body


def test_a_prefill_does_not_end_with_a_blank() -> None:
    assert (
        sent(messages=[USER, {"role": "assistant", "content": "I am "}])["messages"][1]["content"][0]["text"] == "I am"
    )


@pytest.mark.parametrize("model", [NOVA, KIMI, "deepseek.r1-v1:0", "us.anthropic.claude-3-5-haiku-20241022-v1:0"])
def test_thoughts_go_to_no_family_that_takes_none(model: str) -> None:
    thought = {**CALLED[1], "reasoning": {"thinking": "hm", "signature": "sig"}}
    assert "reasoningContent" not in str(sent(model, messages=[CALLED[0], thought, CALLED[2]]))


def test_another_vendors_thought_begins_no_loop_with_thinking() -> None:
    thought = {**CALLED[1], "reasoning": {"thinking": "hm", "signature": "gemini:AAAA"}}
    body = sent(messages=[CALLED[0], thought, CALLED[2]], tools=[WEATHER], reasoning_effort="low")
    assert "additionalModelRequestFields" not in body


def test_pictures_are_sent_as_bytes_fetched_where_they_were_linked() -> None:
    parts = [picture("jpg"), {"type": "image_url", "image_url": {"url": "https://pictures.test/a.webp"}}]
    body = sent(messages=[{"role": "user", "content": parts}])
    images = [block["image"] for block in body["messages"][0]["content"]]
    assert [image["format"] for image in images] == ["jpeg", "webp"]
    assert {base64.b64decode(image["source"]["bytes"]) for image in images} == {PIXEL}


def test_a_picture_of_a_kind_that_the_vendor_does_not_take_is_refused() -> None:
    outcome = call(bound_request(messages=[{"role": "user", "content": [picture("bmp")]}]))
    assert outcome.error is not None
    assert (outcome.error.code, outcome.request) == ("invalid_value", None)


@pytest.mark.parametrize(
    ("model", "system", "tools"),
    [
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", True, True),
        ("us.anthropic.claude-3-5-haiku-20241022-v1:0", True, True),
        ("anthropic.claude-3-haiku-20240307-v1:0", False, False),
        (NOVA, True, False),
        ("global.amazon.nova-2-lite-v1:0", True, False),
        (KIMI, False, False),
        ("openai.gpt-oss-120b-1:0", False, False),
        ("arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc123", False, False),
    ],
)
def test_cache_points_stand_where_the_family_takes_them(model: str, system: bool, tools: bool) -> None:
    body = sent(model, messages=[SYSTEM, USER], tools=[WEATHER])
    assert (body["system"][-1] == POINT, body["toolConfig"]["tools"][-1] == POINT) == (system, tools)
    assert_valid(body)
    plain = sent(model, messages=[SYSTEM, USER], tools=[WEATHER], prompt_caching=False)
    assert POINT not in plain["system"] + plain["toolConfig"]["tools"]


@pytest.mark.parametrize(
    ("choice", "sent_choice"),
    [("auto", None), ("required", {"any": {}}), ({"function": {"name": "weather"}}, {"tool": {"name": "weather"}})],
)
def test_a_tool_choice_is_converses_own(choice: Any, sent_choice: Any) -> None:
    for model in (NOVA, "anthropic.claude-haiku-4-5-20251001-v1:0"):
        assert sent(model, tools=[WEATHER], tool_choice=choice)["toolConfig"].get("toolChoice") == sent_choice


def test_no_tools_are_offered_when_none_may_be_called() -> None:
    assert "toolConfig" not in sent(tools=[WEATHER], tool_choice="none")


def test_tools_of_the_history_are_declared_even_if_none_may_be_called() -> None:
    claude = sent(messages=CALLED)
    assert [tool["toolSpec"]["name"] for tool in claude["toolConfig"]["tools"] if tool != POINT] == ["weather"]
    assert claude["additionalModelRequestFields"] == {"tool_choice": {"type": "none"}}
    nova = sent(NOVA, messages=CALLED, tools=[WEATHER], tool_choice="none")
    assert nova["toolConfig"]["tools"][0]["toolSpec"]["description"] == "now"
    assert "additionalModelRequestFields" not in nova


def test_another_vendors_names_of_tools_become_ones_that_converse_takes() -> None:
    calls = [{"id": "t1", "function": {"name": "functions.weather", "arguments": "{}"}}]
    body = sent(messages=[USER, {"role": "assistant", "tool_calls": calls}, CALLED[2]])
    assert body["messages"][1]["content"][0]["toolUse"]["name"] == "functions_weather"
    assert body["toolConfig"]["tools"][0]["toolSpec"]["name"] == "functions_weather"


def test_one_call_at_a_time_is_asked_of_claude_in_its_own_words() -> None:
    body = sent(tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)
    assert "toolChoice" not in body["toolConfig"]
    choice = {"type": "any", "disable_parallel_tool_use": True}
    assert body["additionalModelRequestFields"] == {"tool_choice": choice}
    outcome = call(bound_request(NOVA, tools=[WEATHER], parallel_tool_calls=False))
    assert "additionalModelRequestFields" not in outcome.sent
    assert outcome.ignored == ("parallel_tool_calls",)


THINK = {"enabled": True, "include_reasoning": True}


@pytest.mark.parametrize(
    ("model", "asked", "extra"),
    [
        (
            "us.anthropic.claude-3-7-sonnet-20250219-v1:0",
            {"extended_thinking": {"enabled": True, "budget_tokens": 2000}},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        ),
        (
            "anthropic.claude-opus-4-20250514-v1:0",
            {"reasoning_effort": "low"},
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
        ),
        (
            "anthropic.claude-sonnet-4-6",
            {"reasoning_effort": "xhigh"},
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
        ),
        (
            "anthropic.claude-opus-4-6-v1",
            {"extended_thinking": {"enabled": True, "budget_tokens": 4096}},
            {"thinking": {"type": "enabled", "budget_tokens": 4096}},
        ),
        (NEW, {"extended_thinking": THINK}, {"thinking": {"type": "adaptive", "display": "summarized"}}),
        (
            NEW,
            {"extended_thinking": {**THINK, "budget_tokens": 4096}},
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "medium"}},
        ),
        (NEW, {"extended_thinking": {"enabled": False}, "reasoning_effort": "high"}, None),
        (NEW, {"extended_thinking": {"enabled": True}, "reasoning_effort": "none"}, {"thinking": {"type": "adaptive"}}),
        ("anthropic.claude-opus-5", {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        ("anthropic.claude-sonnet-5-5", {"reasoning_effort": "none"}, {"thinking": {"type": "between_tools"}}),
        ("anthropic.claude-opus-5-5", {"reasoning_effort": "none"}, None),
        ("openai.gpt-oss-20b-1:0", {"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ("openai.gpt-oss-20b-1:0", {"extended_thinking": THINK}, {"reasoning_effort": "medium"}),
        ("zai.glm-4.7", {"reasoning_effort": "low"}, {"reasoning_effort": "high"}),
        ("deepseek.v3.2", {"reasoning_effort": "none"}, {"reasoning_effort": "none"}),
        (
            "us.amazon.nova-2-lite-v1:0",
            {"reasoning_effort": "low"},
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}},
        ),
        (KIMI, {"reasoning_effort": "low"}, None),
    ],
)
def test_thinking_is_asked_for_as_the_family_takes_it(model: str, asked: dict[str, Any], extra: Any) -> None:
    assert sent(model, **asked).get("additionalModelRequestFields") == extra


@pytest.mark.parametrize(("asked", "tokens"), [(None, 8192 + 2048), (1000, 3048), (5000, 5000)])
def test_a_bound_on_the_answer_leaves_room_for_its_thoughts(asked: int | None, tokens: int) -> None:
    body = sent(reasoning_effort="low", max_tokens=asked)
    assert body["inferenceConfig"]["maxTokens"] == tokens


def test_thinking_does_not_begin_in_the_middle_of_a_tool_loop() -> None:
    assert "additionalModelRequestFields" not in sent(messages=CALLED, tools=[WEATHER], reasoning_effort="low")
    thought = {**CALLED[1], "reasoning": {"thinking": "hm", "signature": "sig"}}
    body = sent(messages=[CALLED[0], thought, CALLED[2]], tools=[WEATHER], reasoning_effort="low")
    assert body["additionalModelRequestFields"]["thinking"]["budget_tokens"] == 2048
    reasoning = {"reasoningText": {"text": "hm", "signature": "sig"}}
    assert body["messages"][1]["content"][0] == {"reasoningContent": reasoning}


@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        (NEW, "temperature", 0.5),
        (NEW, "top_p", 0.5),
        (NEW, "top_k", 5),
        (KIMI, "top_k", 5),
        (KIMI, "extended_thinking", {"enabled": True}),
        (NOVA, "response_format", {"type": "json_schema", "json_schema": {"schema": {}}}),
        ("anthropic.claude-sonnet-4-6", "response_format", {"type": "json_object"}),
        (NOVA, "min_p", 0.1),
    ],
)
def test_what_a_family_does_not_take_is_refused_or_left_out_by_name(model: str, field: str, value: Any) -> None:
    outcome = call(bound_request(model, **{field: value}))
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.param, outcome.request) == ("unsupported_parameter", field, None)
    lenient = call(bound_request(model, allow_ignored_params=True, **{field: value}))
    assert lenient.ignored == (field,)
    assert set(lenient.sent) == {"messages"}


def test_the_default_temperature_asks_nothing_of_a_model_that_takes_none() -> None:
    assert "inferenceConfig" not in sent(NEW, temperature=1, top_p=1)
    assert sent(temperature=1)["inferenceConfig"] == {"temperature": 1}


def test_a_temperature_over_one_is_refused_by_its_range() -> None:
    error = call(bound_request(temperature=1.5)).error
    assert error is not None
    assert (error.code, error.param) == ("invalid_value", "temperature")
    assert "0 to 1" in error.message


def test_metadata_goes_as_far_as_the_vendor_takes_it_and_the_rest_is_named() -> None:
    pairs = {"team": "a b", "url": "http://a/?q=1", "flag": True, "o": {"a": 1}, "long": "x" * 257, "ü": "a", "e": ""}
    outcome = call(bound_request(metadata=pairs))
    assert outcome.sent["requestMetadata"] == {"team": "a b", "e": ""}
    assert outcome.ignored == ("metadata",)
    many = call(bound_request(metadata={f"k{at}": "v" for at in range(17)}))
    assert len(many.sent["requestMetadata"]) == 16
    assert many.ignored == ("metadata",)
    assert call(bound_request(metadata={"a": "b"})).ignored == ()


def test_a_tier_that_the_vendor_has_not_is_named() -> None:
    outcome = call(bound_request(service_tier="scale"))
    assert "serviceTier" not in outcome.sent
    assert outcome.ignored == ("service_tier",)
    assert call(bound_request(service_tier="flex")).ignored == call(bound_request(service_tier="auto")).ignored == ()


def test_nova_takes_top_k_in_its_own_place() -> None:
    assert sent(NOVA, top_k=7)["additionalModelRequestFields"] == {"inferenceConfig": {"topK": 7}}


def test_a_tools_schema_always_says_that_it_is_an_object() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {}}}}}
    schema = sent(NOVA, tools=[tool])["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"]
    assert schema == {"type": "object", "properties": {"a": {}}}


def test_strict_tools_go_to_models_with_structured_output() -> None:
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    assert sent(tools=[strict])["toolConfig"]["tools"][0]["toolSpec"]["strict"] is True
    assert (
        sent(tools=[strict])["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"]["additionalProperties"]
        is False
    )
    assert "strict" not in sent(NOVA, tools=[strict])["toolConfig"]["tools"][0]["toolSpec"]


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("anthropic.claude-opus-4-1-20250805-v1:0", "budget"),
        ("anthropic.claude-opus-4-20250514-v1:0", "budget"),
        ("anthropic.claude-opus-4-5-20251101-v1:0", "budget"),
        ("anthropic.claude-opus-4-7", "adaptive"),
        ("anthropic.claude-haiku-5-5", "adaptive"),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", None),
    ],
)
def test_generations_of_claude_are_told_apart_by_their_ids(model: str, thinking: str | None) -> None:
    assert family_of(model).thinking == thinking


@pytest.mark.parametrize(
    ("base_url", "region", "signed"),
    [
        ("https://bedrock-runtime.us-west-2.amazonaws.com", None, "us-west-2"),
        ("https://bedrock-runtime.us-west-2.amazonaws.com", "eu-west-1", "us-west-2"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", None, "us-gov-west-1"),
        ("https://proxy.internal/bedrock", "eu-west-1", "eu-west-1"),
        ("https://proxy.internal/bedrock", None, "us-east-1"),
    ],
)
def test_the_region_is_that_of_the_host_where_it_names_one(base_url: str, region: str | None, signed: str) -> None:
    spec = ProviderSpec(name="aws", kind="bedrock", base_url=base_url, region=region, headers=(("x-team", "a"),))
    dialect = Converse(Bound(spec, KEYS, Transport(Endpoint(base_url)), Fetcher()))
    headers = dict(asyncio.run(dialect.call(bound_request())).headers)
    assert f"/{signed}/bedrock/aws4_request" in headers["authorization"]
    assert headers["x-team"] == "a"
