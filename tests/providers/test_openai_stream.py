"""The relay of an OpenAI stream: the same for the client however the bytes arrive, and truthful about its end."""

import asyncio
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.answer import ChatEvent
from penstock.domain.errors import PenstockError
from penstock.domain.usage import Usage
from penstock.providers.openai.events import Manner, Relay
from penstock.providers.spec import Quirks
from tests.providers.asking import KEY, Heard, answering, ask, spec, streaming

DONE = b"data: [DONE]\n\n"
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


def said(text: str, finish: str | None = None, **fields: Any) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **fields)


FINISH = said("", "stop")
USAGE = event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9})
FAILED = event(error={"message": f"overloaded, key {KEY}", "code": 503})
COUNTED = Usage(input_tokens=7, output_tokens=2)


class Blocks:
    """A body that arrives in these blocks."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self.blocks = blocks

    async def block(self) -> bytes:
        return next(self.blocks, b"")

    def begun(self) -> None: ...

    def let_go(self) -> None: ...

    def close(self) -> None: ...


def relayed(blocks: list[bytes], manner: Manner) -> Heard:
    """The relay alone: what the socket tests show for some splits holds for any."""
    heard = Heard()

    async def go() -> None:
        stream: Any = Relay(Blocks(iter(blocks)), manner)  # type: ignore[arg-type]
        try:
            await stream.prime()
            heard.opened = True
            got: ChatEvent
            async for got in stream:
                heard.body += got.frame
                heard.tokens += got.output_tokens
                heard.usage = got.usage or heard.usage
                heard.done = got.done
        except PenstockError as error:
            heard.error = error

    asyncio.run(go())
    return heard


pieces = st.sampled_from(
    [
        said("Hé 🌊"),
        said('say [DONE] and "error": {"usage": {'),
        said("a", usage=None),
        said("b", usage={"prompt_tokens": 3, "completion_tokens": 1}),
        said("c", x_groq={"usage": {"prompt_tokens": 4, "completion_tokens": 1}}),
        event(choices=[{"index": 0, "delta": {"reasoning": "hm"}}]),
        event(choices=[{"index": 0, "delta": {"reasoning_content": "hm", "content": None}}]),
        event(choices=[], prompt_filter_results=[{"prompt_index": 0}]),
        event(choices=[{"index": 0, "delta": {"content": "d"}}], error=None),
        FINISH,
        USAGE,
        FAILED,
        DONE,
        b": ping\n\n",
        b":\n",
        b"\n",
        b"\xef\xbb\xbf",
        b"event: x\nid: 1\n",
        b'data:{"choices":[{"delta":{}}]}\n\n',
        b'data: {"choices":\ndata: [{"delta":{"content":"e"}}]}\n\n',
        b"data: [DONE] \n\n",
        b"data: hello\n\n",
        b'data: {"choices": [{"del\n\n',
        b"data: 7\n\n",
        b"data:\n\n",
        b"data: [1]\n\n",
        b'data: {"object":"error","message":"gone"}\n\n',
    ]
)
manners = st.builds(Manner, st.booleans(), st.just(KEY), st.booleans(), st.booleans())


@settings(max_examples=400, deadline=None)
@given(
    events=st.lists(pieces, max_size=8), breaks=st.sampled_from([b"\n", b"\r\n", b"\r"]), manner=manners, data=st.data()
)
def test_any_split_of_the_same_bytes_gives_the_same_answer(
    events: list[bytes], breaks: bytes, manner: Manner, data: st.DataObject
) -> None:
    stream = b"".join(events).replace(b"\n", breaks)
    whole = relayed([stream] if stream else [], manner)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=20)) - {0, len(stream)})
    blocks = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)]) if start < end]
    assert relayed(blocks, manner).facts == whole.facts
    assert relayed([stream[at : at + 1] for at in range(len(stream))], manner).facts == whole.facts


@given(events=st.lists(pieces, max_size=8), manner=manners)
def test_line_breaks_of_any_kind_read_the_same(events: list[bytes], manner: Manner) -> None:
    stream = b"".join(events)
    assert relayed([stream.replace(b"\n", b"\r\n")], manner).facts == relayed([stream], manner).facts


@pytest.mark.parametrize(
    "wire",
    [
        b'\xef\xbb\xbfdata: {"choices":[1]}\n\ndata: [DONE]\n\n',
        b'data:{"choices":[1]}\n\ndata:[DONE]\n\n',
        b': one\nevent: chunk\nid: 7\ndata: {"choices":[1]} \n\n: two\n\ndata: [DONE] \n\n',
        b'\n\ndata: {"choices":[1]}\n\n\n\ndata: [DONE]\n\n',
        b'data: {"choices":[1]}\rdata:\r\rdata: [DONE]\r\r',
    ],
)
def test_events_in_any_dress_reach_the_client_in_one(wire: bytes) -> None:
    heard = relayed([wire], Manner(keep_usage=True))
    assert (heard.body, heard.done) == (b'data: {"choices":[1]}\n\ndata: [DONE]\n\n', True)


def test_an_event_of_several_data_lines_is_written_in_one() -> None:
    heard = relayed([b'data: {"choices":\ndata: [1]}\n\ndata: [DONE]\n\n'], Manner(keep_usage=True))
    assert heard.body == b'data: {"choices": [1]}\n\ndata: [DONE]\n\n'


def test_what_came_before_a_failure_is_delivered_before_it() -> None:
    heard = ask(spec(), streaming([said("a") + said("b") + FAILED + said("c") + DONE]), **STREAM)
    assert heard.body == said("a") + said("b")
    assert heard.error is not None
    assert heard.error.code == "upstream_overloaded"
    assert KEY not in heard.error.message
    assert not heard.done


def test_a_failure_that_comes_first_is_no_first_event() -> None:
    heard = ask(spec(), streaming([b": wait\n\n" + FAILED]), **STREAM)
    assert not heard.opened
    assert heard.error is not None
    assert heard.error.code == "upstream_overloaded"


@pytest.mark.parametrize(
    ("wire", "counted"),
    [
        ([said("a"), FINISH, USAGE, DONE], COUNTED),
        ([said("a"), USAGE, FINISH, DONE], COUNTED),
        ([said("a"), said("", "stop", x_groq={"usage": {"prompt_tokens": 7, "completion_tokens": 2}}), DONE], COUNTED),
        ([said("a", "stop", usage={"prompt_tokens": 7, "completion_tokens": 2}), DONE], COUNTED),
        ([said("a", usage=None), FINISH, DONE], None),
        ([said("a", usage={"prompt_tokens": "many"}), FINISH, DONE], None),
    ],
)
def test_the_usage_is_found_wherever_a_server_puts_it(wire: list[bytes], counted: Usage | None) -> None:
    heard = ask(spec(), streaming([b"".join(wire)]), **STREAM)
    assert (heard.usage, heard.body, heard.done) == (counted, b"".join(wire), True)


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 14,
                "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(input_tokens=9, output_tokens=5, cached_input_tokens=4, cache_write_tokens=2, reasoning_tokens=3),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 1},
            Usage(input_tokens=9, output_tokens=5, cached_input_tokens=8),
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 17,
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(input_tokens=9, output_tokens=8, reasoning_tokens=3),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": None, "prompt_tokens_details": None},
            Usage(input_tokens=9, estimated=True),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "cached_tokens": 99},
            Usage(input_tokens=9, output_tokens=1, cached_input_tokens=99),  # the settlement cuts it, and says so
        ),
        ({"prompt_tokens": -1}, None),
    ],
)
def test_usage_is_read_as_each_server_writes_it(wire: dict[str, Any], usage: Usage | None) -> None:
    body = json.dumps({"choices": [{"message": {"content": "hi"}}], "usage": wire}).encode()
    heard = ask(spec(), answering(body))
    assert (heard.usage, heard.body) == (usage, body)


def test_a_stream_without_done_is_cut_unless_the_server_is_known_to_leave_it_out() -> None:
    wire = [said("a"), FINISH, USAGE]
    strict = ask(spec(), streaming(wire), **STREAM)
    assert strict.body == b"".join(wire)
    assert not strict.done
    lenient = spec(quirks=Quirks(done_mark=False))
    heard = ask(lenient, streaming(wire), **STREAM)
    assert (heard.body, heard.usage, heard.done) == (b"".join(wire) + DONE, COUNTED, True)
    assert not ask(lenient, streaming([said("a")]), **STREAM).done
    assert not ask(lenient, streaming(wire), n=2, **STREAM).done


def test_done_counts_without_the_empty_line_behind_it_and_nothing_after_it_does() -> None:
    assert ask(spec(), streaming([said("a") + b"data: [DONE]"]), **STREAM).body == said("a") + DONE
    assert ask(spec(), streaming([said("a") + DONE + said("b") + b"garbage"]), **STREAM).body == said("a") + DONE


def test_a_first_chunk_without_choices_waits_for_one_that_says_something() -> None:
    filtered = event(choices=[], prompt_filter_results=[{"prompt_index": 0, "content_filter_results": {}}])
    silent = ask(spec(), streaming([filtered]), **STREAM)
    assert not silent.opened
    assert silent.error is not None
    assert silent.error.code == "upstream_closed"
    heard = ask(spec(), streaming([filtered, said("a"), DONE]), **STREAM)
    assert (heard.body, heard.tokens) == (filtered + said("a") + DONE, 1)
    assert relayed([filtered, said("a"), DONE], Manner(keep_usage=True)).body == heard.body


def test_an_error_in_place_of_a_stream_gives_the_upstreams_own_words() -> None:
    body = json.dumps({"error": {"message": f"slow down, {KEY}", "type": "rate_limit_error"}}).encode()
    heard = ask(spec(), answering(body), stream=True)
    assert heard.error is not None
    assert (heard.error.code, heard.error.retry_after_s) == ("upstream_rate_limited", 1)
    assert "slow down" in heard.error.message
    assert KEY not in heard.error.message
    heard = ask(spec(), answering(b'{"choices":[]}'), stream=True)
    assert heard.error is not None
    assert "without a stream" in heard.error.message


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_as_text_become_our_object_where_the_profile_says_so(name: str) -> None:
    server = spec(quirks=Quirks(reasoning_field="reasoning"))
    wire = event(choices=[{"index": 0, "delta": {"content": "", name: "hm 🌊"}}])
    heard = ask(server, streaming([wire + said("a") + DONE]), **STREAM)
    first = json.loads(heard.body.split(b"\n\n")[0][6:])
    assert first["choices"][0]["delta"] == {"content": "", "reasoning": {"thinking": "hm 🌊"}}
    assert heard.body.endswith(said("a") + DONE)
    answer = {"choices": [{"index": 0, "message": {"content": "a", name: "hm"}}]}
    heard = ask(server, answering(json.dumps(answer).encode()))
    assert json.loads(heard.body)["choices"][0]["message"] == {"content": "a", "reasoning": {"thinking": "hm"}}
    assert ask(spec(), streaming([wire + DONE]), **STREAM).body == wire + DONE


def test_a_groq_error_within_a_chunk_is_a_failure() -> None:
    heard = ask(spec(), streaming([said("a"), event(choices=[], x_groq={"error": "over capacity"})]), **STREAM)
    assert heard.body == said("a")
    assert heard.error is not None
    assert "over capacity" in heard.error.message
