"""What Gemini answers, in our dialect: truthful endings, calls, thoughts, usage, errors."""

import base64
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.usage import Usage
from penstock.providers.gemini import signatures
from penstock.providers.gemini.events import GeminiReader
from penstock.providers.translation.parts import Part
from tests.providers.gemini_calls import call, plainly, streamed
from tests.providers.vendors import REFUSALS, Answer
from tests.providers.vendors.gemini import KEY, Double, event, response

DOUBLE = Double()
SIGNATURE = "Ab+/w9=="
CALL = {"functionCall": {"name": "weather", "args": {"city": "Oslo", "big": 12345678901234567890}}}
THINK = {"extended_thinking": {"enabled": True, "include_reasoning": True}}


def whole(*parts: dict[str, Any], finish: str = "STOP", **extra: Any) -> Any:
    """The answer to a plain request."""
    return call(plainly(json.dumps(response(list(parts), finish) | extra).encode()))


def test_a_plain_answer_has_its_text_finish_and_usage() -> None:
    outcome = call(plainly(DOUBLE.plain(Answer())))
    assert outcome.message["content"] == "Hello wörld 🌊"
    assert outcome.body["choices"][0]["finish_reason"] == "stop"
    assert outcome.events[0].usage == Usage(input_tokens=7, output_tokens=2, cached_input_tokens=3)


def test_a_streamed_answer_ends_when_the_body_does() -> None:
    outcome = call(streamed(*DOUBLE.events(Answer())), stream=True)
    assert outcome.done
    text = "".join(choice["delta"].get("content") or "" for chunk in outcome.chunks for choice in chunk["choices"])
    assert text == "Hello wörld 🌊"
    assert outcome.chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert outcome.events[-1].usage == Usage(input_tokens=7, output_tokens=2, cached_input_tokens=3)


def test_thoughts_count_as_output_and_results_of_tools_as_input() -> None:
    counts = {"promptTokenCount": 10, "toolUsePromptTokenCount": 5, "candidatesTokenCount": 3, "thoughtsTokenCount": 20}
    usage = whole({"text": "x"}, usageMetadata=counts).events[0].usage
    assert usage == Usage(input_tokens=15, output_tokens=23, reasoning_tokens=20)


def test_counts_before_the_finish_are_an_estimate_and_the_last_ones_stand() -> None:
    early = DOUBLE.usage_early(Answer(pieces=1))
    assert early is not None
    parts, done = read(b"".join(early), [])
    assert done
    assert [part.usage.estimated for part in parts if part.usage] == [True, False]


def test_a_count_that_makes_no_sense_costs_no_answer() -> None:
    usage = whole({"text": "x"}, usageMetadata={"promptTokenCount": -1}).events[0].usage
    assert usage == Usage(estimated=True)


def test_calls_get_ids_that_differ_and_hold_their_signature() -> None:
    outcome = whole(CALL | {"thoughtSignature": SIGNATURE}, CALL, finish="STOP")
    first, second = outcome.message["tool_calls"]
    assert outcome.body["choices"][0]["finish_reason"] == "tool_calls"
    assert outcome.message["content"] is None
    assert json.loads(first["function"]["arguments"]) == CALL["functionCall"]["args"]
    assert first["id"] != second["id"]
    assert signatures.split_id(first["id"])[1] == SIGNATURE
    assert signatures.split_id(second["id"]) == (second["id"], None)


def test_a_streamed_call_begins_with_its_id_and_its_arguments_follow() -> None:
    one = event(response([{"functionCall": {"id": "g1", "name": "now"}}]))
    two = event(response([CALL], "STOP"))
    chunks = call(streamed(one, two), stream=True).chunks
    calls = [made for chunk in chunks for choice in chunk["choices"] for made in choice["delta"].get("tool_calls", ())]
    assert calls[0] == {"index": 0, "id": "g1", "type": "function", "function": {"name": "now", "arguments": ""}}
    assert calls[1] == {"index": 0, "function": {"arguments": "{}"}}
    assert [made["index"] for made in calls] == [0, 0, 1, 1]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_thoughts_are_reasoning_and_a_signature_goes_along() -> None:
    thought, said = {"text": "hm", "thought": True}, {"text": "yes", "thoughtSignature": SIGNATURE}
    message = whole(thought, said).message
    assert message["reasoning"] == {"thinking": "hm", "signature": f"gemini:{SIGNATURE}"}
    assert message["content"] == "yes"
    assert "reasoning" not in whole(said).message


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("MAX_TOKENS", "length"),
        *((reason, "content_filter") for reason in ("SAFETY", "RECITATION", "PROHIBITED_CONTENT", "SPII", "BLOCKLIST")),
    ],
)
def test_every_ending_is_told_as_it_was(reason: str, finish: str) -> None:
    assert whole({"text": "x"}, finish=reason).body["choices"][0]["finish_reason"] == finish
    outcome = call(streamed(event(response([{"text": "x"}], reason))), stream=True)
    assert outcome.chunks[-1]["choices"][0]["finish_reason"] == finish


def test_a_call_that_was_cut_off_is_not_a_finished_one() -> None:
    assert whole(CALL, finish="MAX_TOKENS").body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "OTHER", "UNEXPECTED_TOOL_CALL", "NEW_REASON"])
def test_an_ending_that_is_none_is_a_failure(reason: str) -> None:
    made = response([{"text": "x"}], reason)
    made["candidates"][0]["finishMessage"] = f"bad {KEY}"
    plain, stream = call(plainly(json.dumps(made).encode())), call(streamed(event(made)), stream=True)
    for outcome in (plain, stream):
        assert outcome.failure is not None
        assert outcome.failure.code == "upstream_error"
        assert outcome.failure.message == f"The upstream gave up on its answer ({reason}): bad [masked]"
        assert not outcome.done


@pytest.mark.parametrize("n", [None, 2])
def test_a_prompt_that_was_blocked_is_filtered_content(n: int | None) -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}
    assert call(plainly(json.dumps(blocked).encode())).body["choices"][0]["finish_reason"] == "content_filter"
    outcome = call(streamed(event(blocked)), stream=True, n=n)
    assert outcome.done
    finishes = [choice["finish_reason"] for chunk in outcome.chunks for choice in chunk["choices"]]
    assert finishes.count("content_filter") == (n or 1)


def test_probabilities_come_in_our_shape() -> None:
    made = response([{"text": "ö"}], "STOP")
    chosen = {"token": "ö", "tokenId": 3, "logProbability": -0.25}
    top = [{"candidates": [chosen, {"token": "o", "logProbability": -2.0}]}]
    made["candidates"][0]["logprobsResult"] = {"chosenCandidates": [chosen], "topCandidates": top}
    expected = {"token": "ö", "logprob": -0.25, "bytes": [195, 182]}
    other = {"token": "o", "logprob": -2.0, "bytes": [111]}
    entry = expected | {"top_logprobs": [expected, other]}
    assert call(plainly(json.dumps(made).encode())).body["choices"][0]["logprobs"]["content"] == [entry]
    assert call(streamed(event(made)), stream=True).chunks[1]["choices"][0]["logprobs"]["content"] == [entry]


@pytest.mark.parametrize("answer", [Answer(), Answer(text="", calls=(("i", "f", "{}"),), finish="tool_calls")])
@pytest.mark.parametrize("cut", [True, False])
def test_a_stream_that_ends_before_its_last_event_is_never_whole(answer: Answer, cut: bool) -> None:
    events = DOUBLE.events(answer)
    for kept in range(len(events)):
        outcome = call(streamed(*events[:kept], cut=cut), stream=True)
        assert not outcome.done


def test_a_stream_that_ends_within_an_event_is_not_whole() -> None:
    data = b"".join(DOUBLE.events(Answer()))
    assert read(data, [])[1]
    assert not read(data + b'data: {"usageMeta', [])[1]


def test_a_stream_is_not_whole_before_every_choice_has_ended() -> None:
    first = event(response([{"text": "x"}], "STOP"))
    second = event(response([{"text": "y"}], "STOP", index=1))
    assert not call(streamed(first), stream=True, n=2).done
    assert call(streamed(first, second), stream=True, n=2).done


@pytest.mark.parametrize("body", [b"{}", b"[]", b"not json", json.dumps(response([{"text": "x"}])).encode()])
def test_a_plain_answer_that_is_not_whole_is_a_failure(body: bytes) -> None:
    failure = call(plainly(body)).failure
    assert failure is not None
    assert failure.code == "upstream_error"


@pytest.mark.parametrize(
    ("kind", "code"),
    REFUSALS,
)
def test_an_error_is_one_of_ours_however_it_comes(kind: str, code: str) -> None:
    status, _, body = DOUBLE.error(kind)
    refused = call(plainly(body, f"{status} No"))
    listed = call(plainly(b"[" + body + b"]", f"{status} No"), stream=True)
    within = call(plainly(body))
    instead = call(plainly(body), stream=True)
    midway = call(streamed(event(response([{"text": "x"}])), event(json.loads(body))), stream=True)
    for outcome in (refused, listed, within, instead, midway):
        assert outcome.failure is not None
        assert outcome.failure.code == code
        assert not outcome.done
        if kind == "rate_limited":
            assert outcome.failure.retry_after_s == 7


def test_a_project_that_may_not_use_the_api_is_the_operator_s_concern() -> None:
    error = {"code": 400, "message": "User location is not supported.", "status": "FAILED_PRECONDITION"}
    failure = call(plainly(json.dumps({"error": error}).encode(), "400 No")).failure
    assert failure is not None
    assert (failure.code, "location" in failure.message) == ("upstream_misconfigured", False)


def test_an_account_without_money_is_no_limit_that_passes() -> None:
    error = {"code": 429, "message": "Your prepayment credits are depleted.", "status": "RESOURCE_EXHAUSTED"}
    failure = call(plainly(json.dumps({"error": error}).encode(), "429 No")).failure
    assert failure is not None
    assert (failure.code, failure.retry_after_s) == ("upstream_misconfigured", None)


def test_an_error_never_quotes_the_key() -> None:
    error = {"code": 400, "message": f"bad {KEY} there", "status": "INVALID_ARGUMENT"}
    failure = call(plainly(json.dumps({"error": error}).encode(), "400 No")).failure
    assert failure is not None
    assert KEY not in failure.message
    assert "[masked]" in failure.message


def read(data: bytes, cuts: list[int]) -> tuple[list[Part], bool]:
    reader = GeminiReader(1, None)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    parts = [part for at, to in pairwise(edges) for part in reader.feed(data[at:to])]
    return [*parts, *reader.end()], reader.done


@given(st.lists(st.integers(0, 10_000), max_size=12), st.text(max_size=20))
@settings(max_examples=150, deadline=None)
def test_any_cut_of_the_same_bytes_gives_the_same_parts(cuts: list[int], text: str) -> None:
    answer = Answer(text=text, thinking="hm ö", calls=(("", "f", '{"a": "🌊"}'),), finish="tool_calls")
    data = b"".join([*DOUBLE.noise(), *DOUBLE.events(answer), *DOUBLE.noise()[:1]])
    parts, done = read(data, cuts)
    assert done
    assert parts == read(data, [])[0]


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=300), st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True))
def test_a_signature_comes_back_out_of_its_id_as_it_was(signature: bytes, identity: str) -> None:
    packed = base64.b64encode(signature).decode()
    if "_sig_" not in identity:
        assert signatures.split_id(signatures.call_id(identity, packed)) == (identity, packed)
    assert signatures.split_id(signatures.call_id(None, packed, 1))[1] == packed
