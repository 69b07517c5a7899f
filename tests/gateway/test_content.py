"""What a worker keeps of requests, for the apps that want it and no other, whatever becomes of the database."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.content import LONGEST, Content
from penstock.domain.ids import secret_hash
from penstock.domain.limits import Policy
from penstock.gateway.content import Contents, Kept
from penstock.gateway.wire import parse_chat
from tests.gateway.conftest import DONE, delta
from tests.gateway.lab import CHAT, KEY, OTHER_KEY, Lab, lab, refuses, run, says, stalls, until
from tests.gateway.test_underway import principal
from tests.upstream import Exchange


class Shelf:
    """Where contents are written. Does not answer while ``away``."""

    def __init__(self) -> None:
        self.found: list[Content] = []
        self.away = False
        self.calls = 0

    def add(self, found: Sequence[Content]) -> int:
        """Keeps them."""
        self.calls += 1
        if self.away:
            raise OSError("away")
        self.found += found
        return len(found)


def keeping(worker: Lab, contents: Contents) -> None:
    """From here on the app of the first key has its contents kept."""
    worker.app.line = msgspec.structs.replace(worker.app.line, contents=contents)
    known, digest = worker.app._keys._known, secret_hash(KEY)
    known[digest] = msgspec.structs.replace(known[digest], policy=Policy(content_days=7))


def kept(answer: bytes = b"", *, stream: bool = False, text: str = "hi", request_id: str = "r") -> Kept:
    """A request with its answer."""
    body = CHAT | {"stream": stream, "messages": [{"role": "user", "content": text}]}
    made = Kept(principal("k"), "m", parse_chat(json.dumps(body).encode()), request_id=request_id)
    made.add(answer)
    return made


@pytest.mark.parametrize("stream", [False, True])
def test_prompt_and_answer_are_kept_as_the_client_knows_them(tmp_path: Path, stream: bool) -> None:
    async def test() -> None:
        shelf = Shelf()
        contents = Contents(shelf.add)
        async with lab(tmp_path, {"first": says("Hello there.")}) as worker:
            keeping(worker, contents)
            answer = await worker.ask(stream=stream)
            assert (await worker.ask(stream=stream, key=OTHER_KEY)).status == 200
            await contents.flush()
            (one,) = shelf.found
            assert (one.request_id, one.app_id, one.model) == (answer.headers["x-request-id"], "a", "m")
            assert (one.outcome, one.key_prefix) == ("completed", KEY)
            assert json.loads(one.request)["messages"] == CHAT["messages"]
            choice = json.loads(one.answer)["choices"][0]
            assert choice["delta" if stream else "message"]["content"] == "Hello there."
            assert (one.request_cut, one.answer_cut) == (False, False)
            assert worker.at_rest()

    run(test)


def test_a_request_that_fails_or_is_cut_is_kept_as_far_as_it_came(tmp_path: Path) -> None:
    async def breaks_off(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("Hel"))
        exchange.reset()

    async def test() -> None:
        shelf = Shelf()
        contents = Contents(shelf.add)
        async with lab(tmp_path, {"first": breaks_off}, max_attempts=1) as worker:
            keeping(worker, contents)
            await worker.ask(stream=True)
            worker.upstreams["first"].script = refuses("400 No")
            await worker.ask()
            worker.upstreams["first"].script = stalls
            asking = worker.start()
            await until(lambda: worker.upstreams["first"].requests == 3)
            await asking.hang_up()
            await worker.ask(model="no-such")
            await contents.flush()
            found = [(one.outcome, "Hel" in one.answer) for one in shelf.found]
            assert found == [("upstream_closed", True), ("upstream_refused", False), ("disconnected", False)]

    run(test)


def test_while_the_database_is_away_the_newest_wait_and_the_oldest_are_dropped_and_counted_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        shelf = Shelf()
        shelf.away = True
        contents = Contents(shelf.add, most=10)
        for number in range(25):
            contents.end(kept(request_id=str(number)), "completed")
            await contents.flush()
        assert len(contents) == 10
        shelf.away = False
        await contents.flush()
        assert [one.request_id for one in shelf.found] == [str(number) for number in range(15, 25)]
        await contents.flush()
        await contents.aclose()

    with caplog.at_level(logging.WARNING):
        run(test)
    assert [record.message for record in caplog.records] == [
        "prompts and answers cannot be kept, tried again later: OSError",
        "the prompts and answers of 15 requests are not kept: too many waited",
    ]


def test_what_waits_is_bounded_by_its_bytes_too() -> None:
    contents = Contents(Shelf().add, most_bytes=10_000)
    for number in range(30):
        contents.end(kept(b"x" * 900, request_id=str(number)), "completed")
    assert 5 < len(contents) < 12
    assert contents._bytes <= 10_000


def test_a_worker_that_stops_stores_what_waits_or_says_how_much_it_loses(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        shelf = Shelf()
        contents = Contents(shelf.add)
        for number in range(120):
            contents.end(kept(request_id=str(number)), "completed")
        await contents.aclose()
        assert (len(shelf.found), shelf.calls) == (120, 3)
        shelf.away = True
        lost = Contents(shelf.add)
        lost.end(kept(text="the secret prompt"), "completed")
        await lost.aclose()

    with caplog.at_level(logging.DEBUG):
        run(test)
    assert "of 1 requests are not kept: the database does not answer" in caplog.text
    assert "secret" not in caplog.text


def test_long_ones_are_cut_and_say_so() -> None:
    one = kept(b'{"a": "' + b"y" * LONGEST, text="ü" * LONGEST).content()
    assert (one.request_cut, one.answer_cut) == (True, True)
    assert LONGEST - 8 < len(one.request.encode()) <= LONGEST
    assert len(one.answer) == LONGEST
    stream = kept(stream=True)
    for _ in range(40):
        stream.add(delta("z" * 100_000) + DONE)
    made = stream.content()
    assert (made.request_cut, made.answer_cut, len(made.answer)) == (False, True, LONGEST)


def test_a_streams_chunks_add_up_to_its_message() -> None:
    def chunk(**change: object) -> bytes:
        choice = {"index": 0, "delta": change, "finish_reason": None}
        return b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"

    def call(index: int, **fields: object) -> dict[str, object]:
        return {"index": index, **fields}

    made = kept(stream=True)
    made.add(chunk(role="assistant", content=""))
    made.add(chunk(reasoning={"thinking": "Let me "}) + chunk(reasoning={"thinking": "see."}))
    made.add(chunk(content="It ") + chunk(content="is."))
    made.add(chunk(tool_calls=[call(0, id="a", type="function", function={"name": "f", "arguments": ""})]))
    made.add(chunk(tool_calls=[call(1, id="b", type="function", function={"name": "g", "arguments": "{"})]))
    made.add(chunk(tool_calls=[call(0, function={"arguments": '{"x"'}), call(1, function={"arguments": "}"})]))
    made.add(chunk(tool_calls=[call(0, function={"arguments": ":1}"})]))
    made.add(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\n' + DONE + b'data: {"cho')
    (choice,) = json.loads(made.content().answer)["choices"]
    message = choice["delta"]
    assert (choice["finish_reason"], message["role"], message["content"]) == ("tool_calls", "assistant", "It is.")
    assert message["reasoning"] == {"thinking": "Let me see."}
    calls = [(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in message["tool_calls"]]
    assert calls == [("a", "f", '{"x":1}'), ("b", "g", "{}")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["choices", "delta", "index", "id"]), inner)
    ),
    max_leaves=8,
)


@given(chunks=st.lists(JSON, max_size=6), tail=st.binary(max_size=20))
@settings(max_examples=200, deadline=None)
def test_whatever_an_upstream_sends_can_be_kept(chunks: list[object], tail: bytes) -> None:
    made = kept(stream=True)
    for chunk in chunks:
        made.add(b"data: " + json.dumps({"choices": chunk}).encode() + b"\n\n")
    made.add(tail)
    json.loads(made.content().answer)
