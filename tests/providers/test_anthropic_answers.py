"""Answers of the Messages API as a client gets them, over real sockets: whole, streamed, and failed."""

import asyncio
import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.chat import BoundRequest, ChatRequest
from penstock.domain.errors import UpstreamError
from penstock.domain.usage import Usage
from penstock.providers.anthropic.adapter import make
from penstock.providers.anthropic.events import MessageReader, whole
from penstock.providers.images import ImageFetcher
from penstock.providers.spec import Bound, Credential, ProviderSpec
from penstock.providers.translation.parts import folded
from penstock.providers.transport import Endpoint, Transport
from tests.providers.vendors import REFUSALS, Answer
from tests.providers.vendors.anthropic import MODEL, SIGNATURE, Double, event
from tests.upstream import Exchange, Script, ScriptedUpstream

DOUBLE = Double()
KEY = "sk-ant-api03-double-of-a-key"
CALLS = (("toolu_1", "weather", '{"city":"Oslo"}'), ("toolu_2", "time", "{}"))
ALL = Answer(thinking="Well, 🤔.", calls=CALLS, finish="tool_calls", usage=(20, 9, 8, 5))


class Got(NamedTuple):
    """What came of a request: the events' JSON or the one answer, the meter's usage, whether it was complete."""

    said: list[dict[str, Any]]
    usage: Usage | None
    done: bool
    tokens: int
    error: UpstreamError | None

    def deltas(self, name: str) -> list[Any]:
        """The values of a field of the deltas, in order."""
        return [c["delta"][name] for one in self.said for c in one["choices"] if c["delta"].get(name) is not None]


def bound_request(**fields: Any) -> BoundRequest:
    base = {"model": "public", "messages": [{"role": "user", "content": "Hi"}]}
    return BoundRequest(msgspec.convert(base | fields, ChatRequest), b"", MODEL, "chatcmpl-1", 0, "fp")


def ask(script: Script, spec: dict[str, Any] | None = None, **fields: Any) -> Got:
    """One request through the adapter. A failure before the first event is raised, a later one is kept."""

    async def go() -> Got:
        base = f"http://127.0.0.1:{upstream.port}"
        row = ProviderSpec(name="double", kind="anthropic", base_url=base, **(spec or {}))
        transport = Transport(Endpoint(base))
        adapter = make(Bound(row, Credential(secret=KEY), transport, ImageFetcher()))
        frames, usage, done, tokens, error = b"", None, False, 0, None
        try:
            events = await adapter.open(bound_request(**fields))
            try:
                async for one in events:
                    frames += one.frame
                    usage, done, tokens = one.usage or usage, done or one.done, tokens + one.output_tokens
            except UpstreamError as caught:
                error = caught
            await events.aclose()
        finally:
            await transport.aclose()
        lines = (
            [line[6:] for line in frames.split(b"\n") if line.startswith(b"data: ")]
            if fields.get("stream")
            else [frames]
        )
        return Got([json.loads(line) for line in lines if line != b"[DONE]"], usage, done, tokens, error)

    with ScriptedUpstream(script) as upstream:
        return asyncio.run(go())


def plainly(body: bytes, *, status: str = "200 OK", headers: Iterable[tuple[str, str]] = ()) -> Script:
    async def script(exchange: Exchange) -> None:
        more = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{more}content-length: {len(body)}\r\n\r\n"
        await exchange.send(head.encode() + body)

    return script


def streaming(events: Iterable[bytes], *, whole: bool = True) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for one in events:
            await exchange.chunk(one)
        if whole:
            await exchange.chunk(b"")
        else:
            exchange.close()

    return script


SHOWN = {"extended_thinking": {"enabled": True, "include_reasoning": True}}


def test_a_plain_answer_has_text_calls_thoughts_and_usage() -> None:
    got = ask(plainly(DOUBLE.plain(ALL)), **SHOWN)
    choice = got.said[0]["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == ALL.text
    assert choice["message"]["reasoning"] == {"thinking": ALL.thinking, "signature": SIGNATURE}
    assert [
        (c["id"], c["function"]["name"], json.loads(c["function"]["arguments"]))
        for c in choice["message"]["tool_calls"]
    ] == [
        ("toolu_1", "weather", {"city": "Oslo"}),
        ("toolu_2", "time", {}),
    ]
    assert got.done
    assert got.usage == Usage(input_tokens=20, output_tokens=9, cached_input_tokens=8, cache_write_tokens=5)


def test_a_streamed_answer_says_what_the_plain_one_does() -> None:
    got = ask(streaming(DOUBLE.events(ALL)), stream=True, **SHOWN)
    assert "".join(got.deltas("content")) == ALL.text
    thoughts = got.deltas("reasoning")
    assert "".join(one.get("thinking", "") for one in thoughts) == ALL.thinking
    assert [one["signature"] for one in thoughts if "signature" in one] == [SIGNATURE]
    calls = [call for calls in got.deltas("tool_calls") for call in calls]
    assert [(c["index"], c["id"], c["function"]["name"]) for c in calls if "id" in c] == [
        (0, "toolu_1", "weather"),
        (1, "toolu_2", "time"),
    ]
    arguments = ["".join(c["function"]["arguments"] for c in calls if c["index"] == index) for index in (0, 1)]
    assert [json.loads(text) for text in arguments] == [{"city": "Oslo"}, {}]
    assert got.said[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert got.done
    assert got.usage == Usage(input_tokens=20, output_tokens=9, cached_input_tokens=8, cache_write_tokens=5)


@pytest.mark.parametrize("asked", [{}, {"reasoning_effort": "low"}, {"extended_thinking": {"enabled": True}}])
def test_thoughts_are_shown_to_nobody_who_did_not_ask(asked: dict[str, Any]) -> None:
    assert "reasoning" not in ask(plainly(DOUBLE.plain(ALL)), **asked).said[0]["choices"][0]["message"]
    streamed = ask(streaming(DOUBLE.events(ALL)), stream=True, **asked)
    assert streamed.deltas("reasoning") == []
    assert streamed.tokens > len(streamed.deltas("content")) + len(streamed.deltas("tool_calls"))


def test_encrypted_thoughts_come_as_a_signature_alone() -> None:
    block = {"type": "redacted_thinking", "data": "opaque"}
    plain = json.loads(DOUBLE.plain(Answer()))
    plain["content"].insert(0, block)
    message = ask(plainly(json.dumps(plain).encode()), **SHOWN).said[0]["choices"][0]["message"]
    assert message["reasoning"] == {"thinking": "", "signature": 'blocks:[[-1,"opaque"]]'}
    start, *rest = DOUBLE.events(Answer())
    redacted = [event("content_block_start", index=9, content_block=block), event("content_block_stop", index=9)]
    got = ask(streaming([start, *redacted, *rest]), stream=True, **SHOWN)
    assert got.deltas("reasoning") == [{"signature": 'blocks:[[-1,"opaque"]]'}]
    assert "".join(got.deltas("content")) == Answer().text


def test_thoughts_between_what_was_said_have_no_signature_because_they_would_come_back_before_it() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "sig"}
    plain = json.loads(DOUBLE.plain(Answer()))
    plain["content"] += [thought]
    message = ask(plainly(json.dumps(plain).encode()), **SHOWN).said[0]["choices"][0]["message"]
    assert message["reasoning"] == {"thinking": "Hm."}
    *events, delta, stop = DOUBLE.events(Answer())
    late = [event("content_block_start", index=9, content_block=thought), event("content_block_stop", index=9)]
    got = ask(streaming([*events, *late, delta, stop]), stream=True, **SHOWN)
    assert got.done
    assert got.deltas("reasoning") == [{"thinking": "Hm."}]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("refusal", "content_filter"),
        ("reason_of_tomorrow", "stop"),
    ],
)
def test_every_stop_reason_has_a_finish_reason(reason: str, finish: str) -> None:
    body = json.loads(DOUBLE.plain(Answer())) | {"stop_reason": reason}
    assert ask(plainly(json.dumps(body).encode())).said[0]["choices"][0]["finish_reason"] == finish
    events = [one.replace(b"end_turn", reason.encode()) for one in DOUBLE.events(Answer())]
    assert ask(streaming(events), stream=True).said[-1]["choices"][0]["finish_reason"] == finish


def test_pings_comments_citations_and_unknown_events_say_nothing() -> None:
    citation = {"type": "citations_delta", "citation": {"type": "char_location", "cited_text": "x"}}
    noise = [*DOUBLE.noise(), event("content_block_delta", index=0, delta=citation)]
    events = [one for each in DOUBLE.events(ALL) for one in (*noise, each)]
    assert ask(streaming(events), stream=True) == ask(streaming(DOUBLE.events(ALL)), stream=True)


def test_arguments_that_stand_in_the_blocks_beginning_are_kept() -> None:
    events = [one.replace(b'"input": {}', b'"input": {"zone":1}') for one in DOUBLE.events(Answer(calls=CALLS[1:]))]
    calls = [call for calls in ask(streaming(events), stream=True).deltas("tool_calls") for call in calls]
    assert "".join(call["function"]["arguments"] for call in calls) == '{"zone":1}'


def test_blocks_of_the_vendors_own_tools_are_not_calls() -> None:
    block = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    fragment = {"type": "input_json_delta", "partial_json": '{"q":1}'}
    start, *rest = DOUBLE.events(Answer())
    extra = [
        event("content_block_start", index=7, content_block=block),
        event("content_block_delta", index=7, delta=fragment),
    ]
    assert ask(streaming([start, *extra, *rest]), stream=True).deltas("tool_calls") == []


@pytest.mark.parametrize("cut", range(1, len(DOUBLE.events(ALL))))
def test_a_stream_that_is_cut_is_never_a_complete_answer(cut: int) -> None:
    events = DOUBLE.events(ALL)[:cut]
    if cut <= 2:  # before the first words
        with pytest.raises(UpstreamError) as caught:
            ask(streaming(events), stream=True, **SHOWN)
        assert caught.value.code == "upstream_closed"
        return
    assert not ask(streaming(events), stream=True, **SHOWN).done


def test_an_error_in_the_stream_comes_after_what_was_said_before_it() -> None:
    events = [*DOUBLE.events(Answer())[:3], DOUBLE.error_event()]
    got = ask(streaming([b"".join(events)]), stream=True)
    assert got.deltas("content")
    assert got.error is not None
    assert got.error.code == "upstream_overloaded"
    assert not got.done


def test_an_end_without_a_reason_is_no_end() -> None:
    events = DOUBLE.events(Answer())
    got = ask(streaming([*events[:-2], events[-1]]), stream=True)
    assert got.error is not None
    assert got.error.code == "upstream_error"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "code"),
    REFUSALS,
)
def test_every_refusal_has_our_code(kind: str, code: str, stream: bool) -> None:
    status, headers, body = DOUBLE.error(kind)
    with pytest.raises(UpstreamError) as caught:
        ask(plainly(body, status=f"{status} Refused", headers=headers.items()), stream=stream)
    assert caught.value.code == code
    assert caught.value.retry_after_s == {"rate_limited": 7, "overloaded": 1}.get(kind)


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_in_a_200_is_an_error(stream: bool) -> None:
    with pytest.raises(UpstreamError) as caught:
        ask(plainly(DOUBLE.error("rate_limited")[2]), stream=stream)
    assert caught.value.code == "upstream_rate_limited"


def test_an_empty_purse_is_the_operators_fault() -> None:
    said = {"type": "invalid_request_error", "message": "Your credit balance is too low to access the Anthropic API."}
    body = json.dumps({"type": "error", "error": said}).encode()
    with pytest.raises(UpstreamError) as caught:
        ask(plainly(body, status="400 Bad Request"))
    assert caught.value.code == "upstream_misconfigured"


def test_a_prompt_and_a_bound_that_do_not_fit_together_are_too_long() -> None:
    words = "input length and `max_tokens` exceed context limit: 199000 + 8192 > 200000, decrease either and try again"
    body = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": words}}).encode()
    with pytest.raises(UpstreamError) as caught:
        ask(plainly(body, status="400 Bad Request"))
    assert caught.value.code == "context_length_exceeded"


def test_counts_of_thoughts_are_kept_and_absurd_ones_harm_nobody() -> None:
    counts = {"input_tokens": -3, "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}}
    body = json.loads(DOUBLE.plain(Answer())) | {"usage": counts}
    assert ask(plainly(json.dumps(body).encode())).usage == Usage(output_tokens=9, reasoning_tokens=4)


def test_the_inputs_counts_are_there_before_the_answer_is_over() -> None:
    events = DOUBLE.events(ALL)[:-2]
    usage = ask(streaming(events), stream=True).usage
    assert usage == Usage(input_tokens=20, output_tokens=1, cached_input_tokens=8, cache_write_tokens=5, estimated=True)


@pytest.mark.parametrize("body", [b"", b'{"type":"mess', b"{}", b'{"type":"message","content":[]}', b"[]"])
def test_a_plain_answer_that_is_none_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamError):
        ask(plainly(body))


def heard(spec: dict[str, Any]) -> Exchange:
    exchanges: list[Exchange] = []

    async def script(exchange: Exchange) -> None:
        exchanges.append(exchange)
        await exchange.answer(DOUBLE.plain(Answer()))

    ask(script, spec)
    return exchanges[0]


def test_the_call_has_the_vendors_path_version_and_key() -> None:
    exchange = heard({"headers": (("Anthropic-Beta", "one"),)})
    assert exchange.head.startswith(b"POST /v1/messages HTTP/1.1\r\n")
    assert exchange.header("x-api-key") == KEY
    assert exchange.header("anthropic-version") == "2023-06-01"
    assert exchange.header("anthropic-beta") == "one"
    assert exchange.header("authorization") is None


def test_a_row_may_ask_for_a_bearer_token_and_another_version() -> None:
    exchange = heard({"auth": "bearer", "api_version": "2027-01-01"})
    assert exchange.header("authorization") == f"Bearer {KEY}"
    assert exchange.header("x-api-key") is None
    assert exchange.header("anthropic-version") == "2027-01-01"


def test_an_error_that_quotes_the_credential_is_masked() -> None:
    body = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": f"no {KEY}"}}).encode()
    with pytest.raises(UpstreamError) as caught:
        ask(plainly(body, status="400 Bad Request"))
    assert KEY not in caught.value.message


@given(st.lists(st.integers(min_value=0, max_value=4_000), max_size=12), st.booleans())
def test_any_split_of_the_same_bytes_gives_the_same_parts(cuts: list[int], crlf: bool) -> None:
    data = b"".join(DOUBLE.events(ALL))
    data = data.replace(b"\n", b"\r\n") if crlf else data
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reader = MessageReader(show=True)
    parts = [part for at, to in pairwise(edges) for part in reader.feed(data[at:to])]
    assert reader.done
    assert parts == list(MessageReader(show=True).feed(b"".join(DOUBLE.events(ALL))))


@given(
    st.text(max_size=40),
    st.text(max_size=20),
    st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3), max_size=3),
    st.integers(min_value=1, max_value=7),
)
def test_a_stream_folds_into_the_plain_answer(text: str, thoughts: str, inputs: list[Any], pieces: int) -> None:
    calls = tuple((f"toolu_{at}", "f", json.dumps(given_, ensure_ascii=False)) for at, given_ in enumerate(inputs))
    answer = Answer(text=text, thinking=thoughts, calls=calls, finish="stop", pieces=pieces)
    reader = MessageReader(show=True)
    streamed = folded(bound_request(), list(reader.feed(b"".join(DOUBLE.events(answer)))))
    assert streamed.frame == folded(bound_request(), whole(DOUBLE.plain(answer), show=True)).frame
