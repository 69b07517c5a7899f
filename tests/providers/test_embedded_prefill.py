"""Long prompts beside other answers: the engine reads them in pieces, and who asked sees nothing of it."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.errors import PenstockError, UpstreamError
from penstock.engine.drivers import OPENVINO
from penstock.providers.embedded.adapter import EmbeddedAdapter
from penstock.providers.embedded.prefill import Pace
from penstock.providers.transport import Endpoint, Transport
from tests.engine.engines import RunningEngine, bound, eventually
from tests.upstream import Exchange, ScriptedUpstream

TOTAL, CACHED, LEFT = 900, 40, 168


class Listener:
    """A scripted engine of two slots, the first of which answers somebody else as long as ``others`` says. It has read
    ``LEFT`` tokens of a prompt that is given up."""

    def __init__(self, *, total: int = TOTAL) -> None:
        self.total = total
        self.others = True
        self.slots_status = "200 OK"
        self.slots: list[dict[str, Any]] | None = None
        self.counted = total
        self.asked: list[dict[str, Any]] = []
        self.pieces: list[dict[str, Any]] = []
        self.mark = 0
        self.reading = False
        self.known = CACHED

    async def script(self, exchange: Exchange) -> None:
        """What such an engine answers."""
        body = json.loads(exchange.body or b"{}")
        path = exchange.head.split()[1].decode().removeprefix("/v1")
        if path == "/apply-template":
            await exchange.answer(b'{"prompt":"a long prompt"}')
        elif path == "/tokenize":
            await exchange.answer(json.dumps({"tokens": list(range(self.counted))}).encode())
        elif path == "/slots":
            await exchange.answer(json.dumps(self.state()).encode(), status=self.slots_status)
        elif body["n_predict"] == 0:
            await self.piece(exchange, body)
        else:
            await self.completion(exchange, body)

    def state(self) -> list[dict[str, Any]]:
        """What /slots says."""
        if self.slots is not None:
            return self.slots
        ours = {"id": 1, "is_processing": self.reading, "n_prompt_tokens": self.known}
        written = [{"n_decoded": 7}]
        return [
            {"id": 0, "is_processing": self.others, "params": {"n_discard": 0}, "next_token": written},
            {**ours, "params": {"n_discard": self.mark}, "next_token": [{"n_decoded": 0}]},
            {"id": 2, "is_processing": False},
        ]

    async def piece(self, exchange: Exchange, body: dict[str, Any]) -> None:
        """The beginning of a prompt is read."""
        self.pieces.append(body)
        self.known = len(body["prompt"])
        await exchange.answer(b'{"timings":{"cache_n":0,"prompt_ms":0.05},"stop":true}')

    async def completion(self, exchange: Exchange, body: dict[str, Any]) -> None:
        """A prompt is read and answered, unless the caller goes."""
        self.asked.append(body)
        self.mark, self.reading = body["n_discard"], True
        before = self.known
        await exchange.begin_stream()
        progress = {"total": self.total, "cache": before, "processed": before}
        await exchange.chunk(b"data: %b\n\n" % json.dumps({"prompt_progress": progress}).encode())
        if len(self.asked) == 1 and self.waits_for_hang_up():
            await exchange.hung_up()
            self.known, self.reading = LEFT, False
            raise ConnectionError
        self.reading = False
        last = {"content": "Yes.", "tokens_predicted": 2, "tokens_evaluated": self.total, "stop": True}
        told = {**last, "stop_type": "eos", "timings": {"cache_n": before}}
        await exchange.chunk(b"data: %b\n\n" % json.dumps(told).encode())
        await exchange.chunk(b"")

    def waits_for_hang_up(self) -> bool:
        """Whether this test's prompt is one that is given up."""
        return self.total > CACHED + 64 and self.slots_status == "200 OK" and self.slots is None and self.others


def answered(listener: Listener) -> dict[str, Any]:
    """The plain answer that the adapter makes of what the listener says. Raises PenstockError."""

    async def run() -> dict[str, Any]:
        transport = Transport(Endpoint(upstream.base))
        try:
            adapter = EmbeddedAdapter(transport, key="k", context=1024)
            events = [event async for event in await adapter.open(bound(user="x"))]
        finally:
            await transport.aclose()
        answer: dict[str, Any] = json.loads(events[-1].frame)
        return answer

    with ScriptedUpstream(listener.script) as upstream:
        return asyncio.run(run())


def test_a_long_prompt_beside_an_answer_is_read_in_pieces_by_the_slot_that_began_it() -> None:
    listener = Listener()
    answer = answered(listener)
    assert answer["choices"][0]["message"]["content"] == "Yes."
    sizes = [len(piece["prompt"]) for piece in listener.pieces]
    assert sizes[0] > LEFT
    assert sizes == sorted(set(sizes))
    assert sizes[-1] < TOTAL
    assert all(piece["prompt"] == list(range(size)) for piece, size in zip(listener.pieces, sizes, strict=True))
    assert {(piece["id_slot"], piece["n_discard"]) for piece in listener.pieces} == {(1, listener.mark)}
    # The request is asked twice, and the second one finds nearly all of its prompt.
    assert listener.asked[0] == listener.asked[1]


def test_the_usage_of_a_prompt_in_pieces_tells_what_was_cached_before_them() -> None:
    usage = answered(Listener())["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (TOTAL, 2)
    assert usage["prompt_tokens_details"]["cached_tokens"] == CACHED


def test_once_the_others_have_ended_the_rest_is_read_at_once() -> None:
    class Ends(Listener):
        async def piece(self, exchange: Exchange, body: dict[str, Any]) -> None:
            self.others = len(self.pieces) < 2
            await super().piece(exchange, body)

    listener = Ends()
    assert answered(listener)["choices"]
    assert (len(listener.pieces), len(listener.asked)) == (3, 2)


def test_a_slot_that_another_request_takes_ends_the_pieces() -> None:
    class Taken(Listener):
        async def piece(self, exchange: Exchange, body: dict[str, Any]) -> None:
            await super().piece(exchange, body)
            self.mark = -1

    listener = Taken(total=100_000)
    assert answered(listener)["choices"]
    # Each time for another slot, and not for ever.
    assert (len(listener.pieces), len(listener.asked)) == (3, 4)


def test_a_prompt_that_is_counted_differently_is_asked_for_again_without_pieces() -> None:
    listener = Listener()
    listener.counted -= 1
    assert answered(listener)["choices"]
    assert (len(listener.pieces), len(listener.asked)) == (0, 2)


def test_a_short_prompt_is_read_at_once() -> None:
    listener = Listener(total=CACHED + 64)
    assert answered(listener)["choices"]
    assert (len(listener.pieces), len(listener.asked)) == (0, 1)


def test_with_nobody_else_a_long_prompt_is_read_at_once() -> None:
    listener = Listener()
    listener.others = False
    assert answered(listener)["choices"]
    assert (len(listener.pieces), len(listener.asked)) == (0, 1)


def test_while_others_wait_for_a_slot_a_long_prompt_is_read_at_once() -> None:
    listener = Listener()
    listener.slots = [{"id": 0, "is_processing": True, "next_token": [{"n_decoded": 1}]}]
    assert answered(listener)["choices"]
    assert (len(listener.pieces), len(listener.asked)) == (0, 1)


def test_an_engine_that_does_not_tell_of_its_slots_reads_at_once() -> None:
    listener = Listener()
    listener.slots_status = "501 No"
    assert answered(listener)["choices"]
    assert (len(listener.pieces), len(listener.asked)) == (0, 1)


def test_an_engine_that_fails_at_a_piece_is_an_upstream_error() -> None:
    class Fails(Listener):
        async def piece(self, exchange: Exchange, body: dict[str, Any]) -> None:
            await exchange.answer(b'{"error":{"code":500,"message":"/secret/path"}}', status="500 Oops")

    with pytest.raises(UpstreamError) as raised:
        answered(Fails())
    assert raised.value.code == "upstream_error"
    assert "secret" not in raised.value.message


@given(before_s=st.floats(1e-3, 2.0), each_s=st.floats(1e-4, 0.5), readers=st.integers(1, 4))
def test_pieces_grow_and_shrink_until_answers_keep_half_of_their_pace(
    before_s: float, each_s: float, readers: int
) -> None:
    pace = Pace()
    for _ in range(40):
        size = pace.size(readers)
        assert 1 <= size <= 256
        pace.saw(size, step_s=before_s + size * each_s, before_s=before_s)
    # Two steps, one of which has a piece of every reader, beside two without; a piece has a token at the least.
    mean_s = (2 * before_s + readers * pace.size(readers) * each_s) / 2
    assert mean_s <= 2 * before_s + readers * each_s
    assert mean_s >= 1.2 * before_s or pace.size(readers) >= 250 // readers


@pytest.mark.timeout(600)
def test_a_real_engine_answers_a_long_prompt_beside_another_answer(engine: RunningEngine) -> None:
    endless = {"user": "Tell a story.", "max_tokens": 900, "logit_bias": {"2": -100, "0": -100}}
    beside = engine.run(engine.adapter.open(bound(stream=True, **endless)))
    engine.run(anext(beside))
    long = {"user": "Of mills: " + "the keeper notes each barge. " * 100, "max_tokens": 4}
    waiting = asyncio.run_coroutine_threadsafe(engine.adapter.open(bound(**long)), engine.loop)

    def reads_a_piece() -> bool:
        with engine.http(key=engine.process.spec.key) as client:
            return any(slot.get("params", {}).get("n_predict") == 0 for slot in client.get("/slots").json())

    if engine.driver is not OPENVINO:  # which bounds its steps by engine.batch alone
        eventually(reads_a_piece)

    async def rest() -> dict[str, Any]:
        answer: dict[str, Any] = json.loads([event async for event in waiting.result()][-1].frame)
        return answer

    waiting.result(100)
    usage = engine.run(rest())["usage"]
    engine.run(beside.aclose())
    again = engine.ask(**long)["usage"]
    assert usage["prompt_tokens"] == again["prompt_tokens"]
    if engine.driver is not OPENVINO:
        assert usage["prompt_tokens_details"]["cached_tokens"] < 64 < again["prompt_tokens_details"]["cached_tokens"]


def test_who_goes_while_a_prompt_is_read_in_pieces_ends_them() -> None:
    begun = asyncio.Event()

    class Slow(Listener):
        async def piece(self, exchange: Exchange, body: dict[str, Any]) -> None:
            self.pieces.append(body)
            loop.call_soon_threadsafe(begun.set)
            await exchange.hung_up()

    listener = Slow()

    async def run() -> None:
        transport = Transport(Endpoint(upstream.base))
        try:
            adapter = EmbeddedAdapter(transport, key="k", context=1024)
            task = asyncio.ensure_future(adapter.open(bound(user="x")))
            await begun.wait()
            task.cancel()
            with pytest.raises((asyncio.CancelledError, PenstockError)):
                await task
        finally:
            await transport.aclose()

    loop = asyncio.new_event_loop()
    with ScriptedUpstream(listener.script) as upstream:
        loop.run_until_complete(run())
    loop.close()
    assert (len(listener.pieces), len(listener.asked)) == (1, 1)
