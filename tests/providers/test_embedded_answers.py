"""Answers of the embedded engine: wire shape, every sampling parameter, exact usage, refusals."""

import json
from typing import Any

import msgspec
import pytest

from penstock.domain.chat import ChatRequest
from penstock.domain.errors import PenstockError
from penstock.engine.drivers import OPENVINO
from tests.engine.engines import RunningEngine, bound

# An engine loads in up to half a minute on a busy machine, and compiles grammars.
pytestmark = pytest.mark.timeout(600)

# What OpenVINO has no means for: (fields, the parameter that is refused).
BEYOND_OPENVINO: list[tuple[dict[str, Any], str]] = [
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"logit_bias": {"5": -100}}, "logit_bias"),
    ({"logit_bias": {"2": -100}}, "logit_bias"),
    ({"logit_bias": {"2": -100, "0": -99}}, "logit_bias"),
    ({"logit_bias": {"2": -100, "0": -100}, "response_format": {"type": "json_object"}}, "logit_bias"),
    ({"logprobs": True, "top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 1, "temperature": 1}, "top_logprobs"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fields", "param"), BEYOND_OPENVINO)
def test_what_a_driver_has_no_means_for_is_refused(
    engine: RunningEngine, fields: dict[str, Any], param: str, stream: bool
) -> None:
    asked = {"user": "Say hi.", "max_tokens": 40, "stream": stream, **fields}
    if engine.driver is not OPENVINO:
        assert engine.events(**asked)[-1].done
        return
    with pytest.raises(PenstockError, match="openvino") as raised:
        engine.events(**asked)
    assert (raised.value.status, raised.value.code, raised.value.param) == (400, "unsupported_parameter", param)


def test_a_plain_answer_has_the_documented_fields(engine: RunningEngine) -> None:
    answer = engine.ask(user="Say hi.", max_tokens=4)
    assert list(answer) == ["id", "object", "created", "model", "system_fingerprint", "choices", "usage"]
    assert (answer["id"], answer["object"], answer["model"]) == ("chatcmpl-18594288", "chat.completion", "asked-for")
    (choice,) = answer["choices"]
    assert list(choice) == ["index", "message", "finish_reason"]
    assert list(choice["message"]) == ["role", "content", "refusal"]
    assert choice["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage["completion_tokens"] == 4
    assert usage["total_tokens"] == usage["prompt_tokens"] + 4


def test_a_stream_is_role_then_content_then_finish_then_usage(engine: RunningEngine) -> None:
    chunks = engine.chunks(user="Say hi.", max_tokens=4, stream_options={"include_usage": True})
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(set(chunk["choices"][0]["delta"]) == {"content"} for chunk in chunks[1:-2])
    assert chunks[-2]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 4
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


def test_usage_is_not_sent_unasked_but_told_to_the_meter(engine: RunningEngine) -> None:
    assert not any("usage" in chunk for chunk in engine.chunks(user="Say hi."))
    events = engine.events(user="Say hi.", stream=True, max_tokens=5)
    assert events[-1].usage is not None
    assert sum(event.output_tokens for event in events) == events[-1].usage.output_tokens == 5


def test_plain_and_streamed_say_the_same(engine: RunningEngine) -> None:
    fields = {"user": "Name three fruits.", "max_tokens": 40, "seed": 3, "temperature": 0.9}
    streamed = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in engine.chunks(**fields))
    assert streamed == engine.text(**fields)


def test_a_seed_repeats_and_another_differs(engine: RunningEngine) -> None:
    fields = {"user": "Tell me a story.", "temperature": 1.2, "max_tokens": 24}
    first = engine.text(**fields, seed=11)
    assert engine.text(**fields, seed=11) == first
    assert any(engine.text(**fields, seed=seed) != first for seed in (12, 13, 14))


@pytest.mark.parametrize("seed", [-1, 0, 2**32 - 1, 2**63])
def test_every_integer_is_a_seed_that_repeats(engine: RunningEngine, seed: int) -> None:
    fields = {"user": "Tell me a story.", "temperature": 1.2, "max_tokens": 12, "seed": seed}
    assert engine.text(**fields) == engine.text(**fields)


@pytest.mark.parametrize("count", [3, 6])
def test_n_choices_count_every_token_once(engine: RunningEngine, count: int) -> None:
    answer = engine.ask(user="Say hi.", n=count, seed=5, temperature=1.3, max_tokens=6)
    assert [choice["index"] for choice in answer["choices"]] == list(range(count))
    single = engine.ask(user="Say hi.", seed=5, temperature=1.3, max_tokens=6)
    assert answer["choices"][0]["message"] == single["choices"][0]["message"]
    assert answer["usage"]["prompt_tokens"] == single["usage"]["prompt_tokens"]
    events = engine.events(user="Say hi.", n=count, seed=5, temperature=1.3, max_tokens=6, stream=True)
    assert sum(event.output_tokens for event in events) == answer["usage"]["completion_tokens"]


def test_streamed_choices_are_complete_each(engine: RunningEngine) -> None:
    chunks = [chunk["choices"][0] for chunk in engine.chunks(user="Say hi.", n=3, max_tokens=3)]
    for index in range(3):
        own = [choice for choice in chunks if choice["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert [choice["finish_reason"] for choice in own].count("length") == 1
        assert own[-1]["finish_reason"] == "length"


def test_more_than_sixteen_choices_are_refused(engine: RunningEngine) -> None:
    with pytest.raises(PenstockError) as raised:
        engine.ask(user="Say hi.", n=17)
    assert (raised.value.code, raised.value.param) == ("invalid_value", "n")


@pytest.mark.parametrize("as_list", [False, True])
def test_a_stop_string_ends_the_answer_and_is_not_in_it(engine: RunningEngine, as_list: bool) -> None:
    whole = engine.text(user="Count: one two three four", max_tokens=40)
    stop = whole.split()[2]
    answer = engine.ask(user="Count: one two three four", max_tokens=40, stop=[stop, "@@"] if as_list else stop)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["message"]["content"] == whole.partition(stop)[0]


def test_logprobs_have_a_token_with_bytes_and_alternatives_each(engine: RunningEngine) -> None:
    most = 1 if engine.driver is OPENVINO else 3  # more are refused
    answer = engine.ask(user="Say hi.", max_tokens=4, logprobs=True, top_logprobs=most)
    entries = answer["choices"][0]["logprobs"]["content"]
    assert len(entries) == 4
    assert "".join(entry["token"] for entry in entries) == answer["choices"][0]["message"]["content"]
    for entry in entries:
        assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
        assert entry["logprob"] <= 0
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert len(entry["top_logprobs"]) == most
        assert entry["top_logprobs"][0]["token"] == entry["token"]


def test_logprobs_without_alternatives_and_streamed(engine: RunningEngine) -> None:
    chunks = engine.chunks(user="Say hi.", max_tokens=3, logprobs=True)
    entries = [entry for chunk in chunks for entry in chunk["choices"][0].get("logprobs", {}).get("content", [])]
    assert len(entries) == 3
    assert all(entry["top_logprobs"] == [] for entry in entries)


def test_logit_bias_bans_a_token(engine: RunningEngine) -> None:
    first = engine.ask(user="Say hi.", max_tokens=1, logprobs=True)["choices"][0]["logprobs"]["content"][0]["token"]
    with engine.http(key=engine.process.spec.key) as client:
        (token,) = client.post("/tokenize", json={"content": first}).json()["tokens"]
    fields: dict[str, Any] = {"user": "Say hi.", "max_tokens": 1, "logit_bias": {str(token): -100}}
    if engine.driver is OPENVINO:
        with pytest.raises(PenstockError, match="logit_bias"):
            engine.text(**fields)
    else:
        assert engine.text(**fields) != first


def test_an_answer_whose_end_is_banned_goes_on_to_max_tokens(engine: RunningEngine) -> None:
    answer = engine.ask(user="Say hi.", max_tokens=120, logit_bias={"2": -100, "0": -100})
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 120


@pytest.mark.parametrize("key", ["hello", "-1", "1.5", "²"])
def test_a_bad_logit_bias_is_refused(engine: RunningEngine, key: str) -> None:
    with pytest.raises(PenstockError) as raised:
        engine.ask(user="Say hi.", logit_bias={key: 1})
    assert (raised.value.code, raised.value.param) == ("invalid_value", "logit_bias")


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 2, "top_p": 0.5},
        {"temperature": 1.5, "top_k": 1},
        {"temperature": 1, "min_p": 0.9},
        {"presence_penalty": 2},
        {"frequency_penalty": -2},
        {"max_completion_tokens": 3, "max_tokens": 9},
        {"temperature": 0, "top_p": 0},
    ],
)
def test_every_sampling_parameter_is_taken(engine: RunningEngine, fields: dict[str, Any]) -> None:
    answer = engine.ask(**{"user": "Say hi.", "max_tokens": 6, **fields})
    assert answer["usage"]["completion_tokens"] <= fields.get("max_completion_tokens", 6)


def test_top_k_of_one_is_greedy(engine: RunningEngine) -> None:
    assert engine.text(user="Say hi.", temperature=1.8, top_k=1, seed=1) == engine.text(user="Say hi.", temperature=0)


def test_a_penalty_changes_what_repeats(engine: RunningEngine) -> None:
    fields = {"user": "Repeat the word ha many times: ha ha ha ha", "max_tokens": 48}
    assert engine.text(**fields, frequency_penalty=2, presence_penalty=2) != engine.text(**fields)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("extra", [{}, {"n": 3}])
def test_a_prompt_that_does_not_fit_is_refused_with_count_and_limit(
    engine: RunningEngine, stream: bool, extra: dict[str, Any]
) -> None:
    with pytest.raises(PenstockError) as raised:
        engine.events(user="word " * 3000, stream=stream, **extra)
    assert (raised.value.status, raised.value.code, raised.value.param) == (400, "context_length_exceeded", "messages")
    assert "30" in raised.value.message
    assert "1024" in raised.value.message


def test_a_full_context_ends_the_answer_with_length(engine: RunningEngine) -> None:
    answer = engine.ask(user="word " * 900, max_tokens=500, logit_bias={"2": -100, "0": -100})
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] <= 1024


def test_characters_of_several_tokens_are_never_split(engine: RunningEngine) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "^[ぁ-ヶ一-龥가-힣é]{30}$"}}}
    chunks = engine.chunks(user="日本語", max_tokens=150, temperature=1.5, seed=2, response_format=form)
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert "\ufffd" not in text
    assert len(json.loads(text)) == 30


def test_text_parts_are_joined(engine: RunningEngine) -> None:
    parts = [{"type": "text", "text": "Say"}, {"type": "text", "text": "hi."}]
    assert engine.text(messages=[{"role": "user", "content": parts}]) == engine.text(user="Say\nhi.")


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_a_part_that_is_not_text_is_refused_by_place(engine: RunningEngine, kind: str) -> None:
    parts = [{"type": "text", "text": "What is it?"}, {"type": kind, kind: {}}]
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": parts}]
    with pytest.raises(PenstockError) as raised:
        engine.ask(messages=messages)
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "messages[1].content[1]")


@pytest.mark.parametrize("text", ["\x00", "", "�", "<|im_end|>", "a" * 2000, "😀" * 50])
def test_odd_text_is_answered(engine: RunningEngine, text: str) -> None:
    assert engine.ask(user=text, max_tokens=2)["usage"]["completion_tokens"] <= 2


def test_parameters_without_effect_are_named(engine: RunningEngine) -> None:
    fields = {
        "user": "x",
        "reasoning_effort": "low",
        "extended_thinking": {"enabled": True},
        "service_tier": "flex",
        "store": True,
        "prediction": {},
        "modalities": ["text", "audio"],
        "metadata": {"a": "b"},
    }
    named = engine.adapter.ignored(bound(**fields))
    assert named == tuple(sorted(fields.keys() - {"user"}))  # user is the message of these tests


def test_nothing_is_named_when_everything_counts(engine: RunningEngine) -> None:
    fields = {"user": "x", "store": False, "service_tier": "auto", "modalities": ["text"], "n": 2, "seed": 1}
    assert engine.adapter.ignored(bound(**fields, extended_thinking={"enabled": False})) == ()


def test_the_request_type_still_has_every_field_that_we_read() -> None:
    assert {"min_p", "top_k", "logit_bias", "parallel_tool_calls"} <= set(msgspec.structs.asdict(bound(user="x").chat))
    assert isinstance(bound(user="x").chat, ChatRequest)
