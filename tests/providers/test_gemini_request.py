"""What Gemini is asked: every parameter in its words, and what cannot be said is refused."""

from typing import Any

import pytest

from penstock.domain.chat import ChatRequest
from penstock.providers.gemini.request import FIELDS
from tests.providers.gemini_calls import call, plainly, sent
from tests.providers.vendors.gemini import KEY

WEATHER = {"type": "function", "function": {"name": "weather", "description": "Now", "parameters": {"type": "object"}}}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
BIG = {"enabled": True, "budget_tokens": 60_000}
SIGNED = "call_1_sig_Ab-_ww"


def called(identity: str, name: str = "weather", arguments: str = '{"city":"Oslo"}') -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def history(*calls: dict[str, Any], answer: Any = "rain") -> list[dict[str, Any]]:
    results = [{"role": "tool", "tool_call_id": made["id"], "content": answer} for made in calls]
    return [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": list(calls)}, *results]


def test_the_table_has_every_parameter_of_a_request() -> None:
    names = set(ChatRequest.__struct_fields__) - {"model", "messages", "stream", "allow_ignored_params"}
    assert set(FIELDS) == names


def test_a_plain_request_names_the_model_in_the_path_and_the_key_in_a_header() -> None:
    outcome = call(plainly(), model="gemini-2.5-pro")
    assert outcome.line == "POST /v1/models/gemini-2.5-pro:generateContent HTTP/1.1"
    assert f"\r\nx-goog-api-key: {KEY}\r\n" in outcome.head
    assert "\r\nx-goog-user-project: p\r\n" in outcome.head
    assert outcome.sent == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def test_a_streamed_request_asks_for_server_sent_events() -> None:
    line = call(plainly(), stream=True, model="tunedModels/a b?").line
    assert line == "POST /v1/tunedModels/a%20b%3F:streamGenerateContent?alt=sse HTTP/1.1"


def test_instructions_stand_apart_and_roles_are_gemini_s() -> None:
    body = sent(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": "In Norse."},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "hei"},
            {"role": "user", "content": "bye"},
        ]
    )
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "In Norse."}]}
    assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]


def test_images_go_inline_and_linked_ones_are_fetched() -> None:
    links = [PIXEL, "https://pictures.test/a.png"]
    content = [{"type": "image_url", "image_url": {"url": link}} for link in links]
    parts = sent(messages=[{"role": "user", "content": content}])["contents"][0]["parts"]
    assert parts[0] == {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    fetched = "aHR0cHM6Ly9waWN0dXJlcy50ZXN0L2EucG5nIGZvciBtZXNzYWdlc1swXS5jb250ZW50WzFdLmltYWdlX3VybC51cmw="
    assert parts[1] == {"inlineData": {"mimeType": "image/png", "data": fetched}}


@pytest.mark.parametrize("kind", ["image/jpg", "IMAGE/JPG"])
def test_a_jpeg_by_its_short_name_goes_by_its_right_one(kind: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": f"data:{kind};base64,QUJD"}}]
    (part,) = sent(messages=[{"role": "user", "content": content}])["contents"][0]["parts"]
    assert part == {"inlineData": {"mimeType": "image/jpeg", "data": "QUJD"}}


def test_sampling_and_bounds_become_a_generation_config() -> None:
    body = sent(
        max_tokens=9,
        max_completion_tokens=5,
        temperature=1.5,
        top_p=0.5,
        top_k=4,
        stop="END",
        seed=7,
        n=2,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logprobs=True,
        top_logprobs=3,
    )
    assert body["generationConfig"] == {
        "maxOutputTokens": 5,
        "temperature": 1.5,
        "topP": 0.5,
        "topK": 4,
        "stopSequences": ["END"],
        "seed": 7,
        "candidateCount": 2,
        "presencePenalty": 0.5,
        "frequencyPenalty": -0.5,
        "responseLogprobs": True,
        "logprobs": 3,
    }


def test_a_schema_for_the_answer_goes_as_json_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    config = {"responseMimeType": "application/json", "responseJsonSchema": schema}
    assert sent(response_format=wanted)["generationConfig"] == config
    assert sent(response_format={"type": "json_object"})["generationConfig"] == {"responseMimeType": "application/json"}
    assert "generationConfig" not in sent(response_format={"type": "text"})


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "weather"}}, {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
    ],
)
def test_a_tool_choice_is_a_mode_of_function_calling(choice: Any, config: dict[str, Any]) -> None:
    body = sent(tools=[WEATHER], tool_choice=choice)
    assert body["toolConfig"] == {"functionCallingConfig": config}
    declared = {"name": "weather", "description": "Now", "parametersJsonSchema": {"type": "object"}}
    assert body["tools"] == [{"functionDeclarations": [declared]}]


def test_a_strict_tool_is_validated_where_the_model_can() -> None:
    strict = {"type": "function", "function": {"name": "weather", "strict": True}}
    config = sent(tools=[strict], model="gemini-2.5-flash")["toolConfig"]
    assert config == {"functionCallingConfig": {"mode": "VALIDATED"}}
    assert "toolConfig" not in sent(tools=[strict], model="gemini-2.0-flash")


def test_calls_and_results_go_back_with_their_names_ids_and_signatures() -> None:
    body = sent(messages=history(called(SIGNED), called("call_2"), answer='{"sky":"grey"}'), model="gemini-3-pro")
    model, user = body["contents"][1:]
    arguments = {"city": "Oslo"}
    assert model["parts"] == [
        {"functionCall": {"id": "call_1", "name": "weather", "args": arguments}, "thoughtSignature": "Ab+/ww=="},
        {"functionCall": {"id": "call_2", "name": "weather", "args": arguments}},
    ]
    answers = [part["functionResponse"] for part in user["parts"]]
    assert answers == [{"id": f"call_{n}", "name": "weather", "response": {"sky": "grey"}} for n in (1, 2)]


def test_text_from_a_tool_is_its_output() -> None:
    user = sent(messages=history(called("c"), answer="rain"))["contents"][2]
    assert user["parts"][0]["functionResponse"]["response"] == {"output": "rain"}


@pytest.mark.parametrize("answer", ['{"id":12345678901234567}', '{"a":{"$ref":"#/x"}}', '{"a":"unfinished'])
def test_an_answer_that_an_object_of_theirs_cannot_hold_stays_text(answer: str) -> None:
    user = sent(messages=history(called("c"), answer=answer))["contents"][2]
    assert user["parts"][0]["functionResponse"]["response"] == {"output": answer}


def test_only_the_first_call_of_another_model_gets_the_documented_stand_in_for_a_signature() -> None:
    skip = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
    messages = history(called("a"), called("b"))
    parts = sent(messages=messages, model="gemini-3-pro")["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [skip, None]
    parts = sent(messages=messages, model="gemini-2.5-pro")["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [None, None]


def test_a_picture_from_a_tool_stands_inside_its_result_since_gemini_3() -> None:
    picture = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    inline = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    messages = history(called("c"), answer=picture)
    (part,) = sent(messages=messages)["contents"][2]["parts"]
    assert part["functionResponse"]["parts"] == [inline]
    assert sent(messages=messages, model="gemini-2.5-pro")["contents"][2]["parts"][1] == inline


def test_a_linked_picture_from_a_tool_is_fetched_too() -> None:
    picture = [{"type": "image_url", "image_url": {"url": "https://pictures.test/b.png"}}]
    (part,) = sent(messages=history(called("c"), answer=picture))["contents"][2]["parts"]
    assert part["functionResponse"]["parts"][0]["inlineData"]["mimeType"] == "image/png"


def test_a_result_of_no_call_is_refused() -> None:
    failure = call(plainly(), messages=[{"role": "tool", "tool_call_id": "x", "content": "y"}]).failure
    assert failure is not None
    assert (failure.code, failure.param) == ("invalid_value", "messages")


def test_only_gemini_s_own_signature_of_a_text_goes_back() -> None:
    def parts(signature: str) -> Any:
        reasoning = {"thinking": "hm", "signature": signature}
        turns = [{"role": "assistant", "content": "x", "reasoning": reasoning}, {"role": "user", "content": "y"}]
        return sent(messages=turns)["contents"][0]["parts"]

    assert parts("gemini:QUJD") == [{"text": "x", "thoughtSignature": "QUJD"}]
    assert parts("EqQBCgIYAg") == [{"text": "x"}]


def test_the_signature_of_a_thought_stands_for_that_of_a_call_that_has_none() -> None:
    messages = history(called("c"))
    messages[1]["reasoning"] = {"thinking": "hm", "signature": "gemini:QUJD"}
    (part,) = sent(messages=messages)["contents"][1]["parts"]
    assert part["thoughtSignature"] == "QUJD"


@pytest.mark.parametrize(
    ("model", "fields", "config"),
    [
        ("gemini-2.5-flash", {"reasoning_effort": "none"}, {"thinkingBudget": 0}),
        ("gemini-2.5-pro", {"reasoning_effort": "none"}, {"thinkingBudget": 128}),
        ("models/gemini-2.5-pro", {"reasoning_effort": "high"}, {"thinkingBudget": 24576}),
        ("gemini-3-flash", {"reasoning_effort": "minimal"}, {"thinkingLevel": "MINIMAL"}),
        ("gemini-3.1-pro-preview", {"reasoning_effort": "none"}, {"thinkingLevel": "LOW"}),
        ("gemini-3-pro-preview", {"reasoning_effort": "medium"}, {"thinkingLevel": "HIGH"}),
        ("gemini-9-new", {"reasoning_effort": "xhigh"}, {"thinkingLevel": "HIGH"}),
        ("gemini-2.5-flash", {"extended_thinking": {"enabled": True}}, {"thinkingBudget": -1}),
        (
            "gemini-2.5-flash",
            {"extended_thinking": {"enabled": True, "budget_tokens": 2000, "include_reasoning": True}},
            {"thinkingBudget": 2000, "includeThoughts": True},
        ),
        (
            "gemini-3-flash",
            {"extended_thinking": {"enabled": True, "budget_tokens": 8000, "include_reasoning": True}},
            {"thinkingLevel": "MEDIUM", "includeThoughts": True},
        ),
        ("gemini-3-flash", {"extended_thinking": {"enabled": True, "budget_tokens": 30000}}, {"thinkingLevel": "HIGH"}),
        ("gemini-2.5-flash", {"extended_thinking": BIG}, {"thinkingBudget": 24576}),
        ("gemini-2.5-pro", {"extended_thinking": BIG}, {"thinkingBudget": 32768}),
        ("gemini-2.5-flash", {"extended_thinking": {"enabled": False}}, {"thinkingBudget": 0}),
        (
            "gemini-2.5-flash",
            {"extended_thinking": {"enabled": False, "include_reasoning": True}, "reasoning_effort": "high"},
            {"thinkingBudget": 0},
        ),
        ("gemini-2.5-pro", {"extended_thinking": {"enabled": False}}, {"thinkingBudget": 128}),
        ("gemini-3.1-pro", {"extended_thinking": {"enabled": False}}, {"thinkingLevel": "LOW"}),
    ],
)
def test_thinking_is_asked_for_as_the_model_s_generation_takes_it(
    model: str, fields: dict[str, Any], config: dict[str, Any]
) -> None:
    assert sent(model=model, **fields)["generationConfig"] == {"thinkingConfig": config}


def test_a_model_that_does_not_think_is_not_asked_to_stop() -> None:
    off = {"enabled": False, "include_reasoning": True}
    assert "generationConfig" not in sent(extended_thinking=off, model="gemini-2.0-flash")


@pytest.mark.parametrize("fields", [{"min_p": 0.1}, {"parallel_tool_calls": False}, {"modalities": ["audio"]}])
def test_what_gemini_lacks_is_refused_unless_it_may_be_ignored(fields: dict[str, Any]) -> None:
    failure = call(plainly(), **fields).failure
    assert failure is not None
    assert (failure.code, failure.param) == ("unsupported_parameter", next(iter(fields)))
    assert call(plainly(), allow_ignored_params=True, **fields).failure is None


def test_parallel_calls_may_be_asked_for() -> None:
    assert call(plainly(), parallel_tool_calls=True).failure is None
