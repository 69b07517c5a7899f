"""Answers that are cut are charged for what was produced by then, no more and no less, and a guess is marked."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from penstock.domain.money import price_nanos
from penstock.domain.usage import Usage
from penstock.gateway.routing.window import estimate
from penstock.gateway.underway import DISCONNECTED, KEY_REVOKED
from penstock.gateway.wire import parse_chat
from penstock.ledger.records import Settled
from penstock.providers.embedded.adapter import EmbeddedAdapter
from penstock.providers.transport import Endpoint, Transport
from penstock.settings.tree import PriceRow
from tests.gateway.conftest import ANSWER, DONE, delta
from tests.gateway.lab import CHAT, Lab, lab, refuses, resets, run, says, stalls, until
from tests.gateway.test_routing_hedge import HEDGED
from tests.providers.lane import make
from tests.providers.vendors import Answer, Vendor
from tests.providers.vendors.anthropic import Double as Anthropic
from tests.providers.vendors.bedrock import Double as Bedrock
from tests.providers.vendors.gemini import Double as Gemini
from tests.upstream import Exchange, Script, ScriptedUpstream

LONG: list[dict[str, Any]] = [{"role": "user", "content": "long " * 200}]
PROMPT = estimate(parse_chat(json.dumps(CHAT | {"messages": LONG}).encode()).chat)
PRICE = PriceRow(input="2", output="10")
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":70,"completion_tokens":9}}\n\n'


class Holding:
    """A script: sends these events, each by itself, and then nothing more until the client goes."""

    def __init__(self, events: Iterable[bytes], kind: str = "text/event-stream") -> None:
        self.events = list(events)
        self.sent = False
        self._kind = kind

    async def __call__(self, exchange: Exchange) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {self._kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        await exchange.send(head.encode())
        for event in self.events:
            await exchange.chunk(event)
        self.sent = True
        await exchange.hung_up()

    async def taken(self) -> None:
        """Wait until the worker has taken all of it from its socket: on loopback what is sent is there."""
        await until(lambda: self.sent)
        for _ in range(20):
            await asyncio.sleep(0)


def settled(worker: Lab) -> Settled:
    """The one settlement there is."""
    (record,) = [record for record in worker.records() if isinstance(record, Settled)]
    return record


def charged(record: Settled) -> Usage:
    """What the settlement says was used; its amount follows from it."""
    usage = Usage(
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        cached_input_tokens=record.cached_input_tokens,
        cache_write_tokens=record.cache_write_tokens,
        estimated=record.estimated,
    )
    assert record.amount_nanos == record.input_tokens * 2_000 + record.output_tokens * 10_000
    return usage


@pytest.mark.parametrize(("reason", "outcome"), [(DISCONNECTED, "disconnected"), (KEY_REVOKED, "key_revoked")])
def test_a_cut_stream_is_charged_for_its_deltas_and_the_estimated_prompt(
    tmp_path: Path, reason: str, outcome: str
) -> None:
    async def test() -> None:
        script = Holding([delta("one"), delta("two"), delta("three")])
        async with lab(tmp_path, {"only": script}, price=PRICE) as worker:
            asking = worker.start(stream=True, messages=LONG)
            await script.taken()
            asking.task.cancel(reason)
            await until(asking.task.done)
            record = settled(worker)
            assert (record.outcome, record.raw_usage) == (outcome, None)
            assert charged(record) == Usage(input_tokens=PROMPT, output_tokens=3, estimated=True)

    run(test)


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_before_the_first_event_is_charged_the_prompt(tmp_path: Path, stream: bool) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": stalls}, price=PRICE) as worker:
            asking = worker.start(stream=stream, messages=LONG)
            await until(lambda: worker.upstreams["only"].requests == 1)
            await asking.hang_up()
            assert charged(settled(worker)) == Usage(input_tokens=PROMPT, estimated=True)

    run(test)


@pytest.mark.parametrize("failing", [resets, refuses("500 Oops")])
def test_a_failure_before_the_first_event_costs_the_client_nothing(tmp_path: Path, failing: Script) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": failing}, price=PRICE, max_attempts=1) as worker:
            await worker.ask(messages=LONG)
            assert charged(settled(worker)) == Usage(estimated=True)

    run(test)


def test_a_stream_that_its_upstream_cuts_is_charged_for_what_arrived(tmp_path: Path) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("one") + delta("two"))
        exchange.close()

    async def test() -> None:
        async with lab(tmp_path, {"only": cut}, price=PRICE) as worker:
            await worker.ask(stream=True, messages=LONG)
            record = settled(worker)
            assert record.outcome == "upstream_closed"
            assert charged(record) == Usage(input_tokens=PROMPT, output_tokens=2, estimated=True)

    run(test)


def test_deltas_count_no_more_than_may_be_generated(tmp_path: Path) -> None:
    """What a budget holds for a request is a bound: an event may hold no token at all."""

    async def test() -> None:
        script = Holding([delta(""), delta("one"), delta("two"), delta("")])
        async with lab(tmp_path, {"only": script}, price=PRICE) as worker:
            asking = worker.start(stream=True, max_tokens=2, messages=LONG)
            await script.taken()
            await asking.hang_up()
            assert charged(settled(worker)) == Usage(input_tokens=PROMPT, output_tokens=2, estimated=True)

    run(test)


def test_an_account_that_came_early_hides_no_deltas(tmp_path: Path) -> None:
    early = b'data: {"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}\n\n'

    async def test() -> None:
        script = Holding([early, delta("one"), delta("two")])
        async with lab(tmp_path, {"only": script}, price=PRICE) as worker:
            asking = worker.start(stream=True, messages=LONG)
            await script.taken()
            await asking.hang_up()
            assert charged(settled(worker)) == Usage(input_tokens=PROMPT, output_tokens=2, estimated=True)

    run(test)


def test_of_two_bounds_the_larger_counts(tmp_path: Path) -> None:
    """Which of them the upstream goes by is up to it."""

    async def test() -> None:
        script = Holding([delta("one"), delta("two"), delta("three")])
        async with lab(tmp_path, {"only": script}, price=PRICE) as worker:
            asking = worker.start(stream=True, max_tokens=40, max_completion_tokens=1, messages=LONG)
            await script.taken()
            await asking.hang_up()
            assert charged(settled(worker)) == Usage(input_tokens=PROMPT, output_tokens=3, estimated=True)

    run(test)


@pytest.mark.parametrize("count", [2**52, 2**80, 100_000_001])
@pytest.mark.parametrize("stream", [False, True])
def test_a_count_that_no_model_reaches_is_no_count(tmp_path: Path, stream: bool, count: int) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": count}

    async def boasts(exchange: Exchange) -> None:
        if stream:
            await exchange.begin_stream()
            said = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
            await exchange.chunk(delta("one") + delta("two") + said + DONE)
            await exchange.chunk(b"")
            return
        choices = [{"index": 0, "message": {"role": "assistant", "content": "12345678"}, "finish_reason": "stop"}]
        await exchange.answer(json.dumps(ANSWER | {"choices": choices, "usage": usage}).encode())

    async def test() -> None:
        async with lab(tmp_path, {"only": boasts}, price=PRICE) as worker:
            answer = await worker.ask(stream=stream, messages=LONG)
            assert answer.status == 200
            record = settled(worker)
            assert charged(record) == Usage(input_tokens=PROMPT, output_tokens=2, estimated=True)
            assert json.loads(record.raw_usage or "") == usage

    run(test)


def test_fragments_of_a_calls_arguments_are_counted(tmp_path: Path) -> None:
    def fragment(text: str) -> bytes:
        call = {"index": 0, "function": {"arguments": text}}
        return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}).encode() + b"\n\n"

    async def test() -> None:
        script = Holding([fragment("{"), fragment('"q"'), fragment(":1"), fragment("}")])
        async with lab(tmp_path, {"only": script}, price=PRICE) as worker:
            asking = worker.start(stream=True)
            await script.taken()
            await asking.hang_up()
            assert charged(settled(worker)).output_tokens == 4

    run(test)


@pytest.mark.parametrize("vendor", [Anthropic(), Bedrock()], ids=["anthropic", "bedrock"])
def test_thoughts_that_nobody_sees_are_charged_when_the_client_goes_meanwhile(tmp_path: Path, vendor: Vendor) -> None:
    """The vendor thinks aloud to us and charges for it, the client did not ask to see it, and hangs up."""
    answer = Answer(text="42", thinking="Six times seven.", pieces=4, usage=(70, 9, 20, 0))
    thinking = [event for event in vendor.events(answer) if b"hink" in event or b"reasoning" in event]
    start = [event for event in vendor.events(answer)[:1] if b"usage" in event]

    async def test() -> None:
        script = Holding([*start, *(one for one in thinking if one not in start)], vendor.stream_type)
        with ScriptedUpstream(script) as upstream:
            adapter, transport = make(vendor, upstream.base)
            async with lab(tmp_path, {}, adapters={"only": adapter}, price=PRICE) as worker:
                asking = worker.start(stream=True, messages=LONG)
                await script.taken()
                await asking.hang_up()
                record = settled(worker)
                assert (asking.heard(), record.outcome, record.provider) == (b"", "disconnected", "only")
                assert (record.output_tokens, record.estimated) == (4, True)
                assert record.input_tokens == (70 if start else PROMPT)
                assert (record.raw_usage is not None) is bool(start)
            await transport.aclose()

    run(test)


def test_gemini_counts_while_it_streams_and_its_count_is_used(tmp_path: Path) -> None:
    """A delta of its may hold many tokens: what it says so far is more than what we count."""
    vendor = Gemini()
    events = [
        event.replace(b'"totalTokenCount": 70', b'"candidatesTokenCount": 33')
        for event in vendor.events(Answer(text="a long answer", pieces=3, usage=(70, 50, 0, 0)))
    ]

    async def test() -> None:
        script = Holding(events[:2])
        async with lab(tmp_path, {"only": script}, providers={"only": {"kind": "gemini"}}) as worker:
            asking = worker.start(stream=True)
            await script.taken()
            await asking.hang_up()
            record = settled(worker)
            assert (record.input_tokens, record.output_tokens, record.estimated) == (70, 33, True)

    run(test)


def test_a_usage_that_has_arrived_is_used_although_the_client_has_gone(tmp_path: Path) -> None:
    """The client takes nothing more, so the end of the answer waits in the gateway when it hangs up."""

    async def test() -> None:
        script = Holding([delta("one"), delta("two"), USAGE, DONE])
        async with lab(tmp_path, {"only": script}, price=PRICE) as worker:
            asking = worker.start(stream=True, messages=LONG, stalled=True)
            await script.taken()
            assert asking.heard()
            await asking.hang_up()
            record = settled(worker)
            assert charged(record) == Usage(input_tokens=70, output_tokens=9)
            assert json.loads(record.raw_usage or "") == {"prompt_tokens": 70, "completion_tokens": 9}

    run(test)


def piece(**fields: Any) -> bytes:
    """One event of the embedded engine."""
    return b"data: " + json.dumps({"stop": False, "tokens_evaluated": 40} | fields).encode() + b"\n\n"


@pytest.mark.parametrize("stream", [False, True])
def test_the_embedded_engine_is_charged_until_the_client_hangs_up(tmp_path: Path, stream: bool) -> None:
    sent = [piece(content=f"w{number} ", tokens_predicted=number) for number in range(1, 7)]
    events = Holding(sent)

    async def engine(exchange: Exchange) -> None:
        if b"/apply-template" in exchange.head:
            await exchange.answer(b'{"prompt":"x"}')
            return
        await events(exchange)

    async def test() -> None:
        with ScriptedUpstream(engine) as upstream:
            transport = Transport(Endpoint(upstream.base.removesuffix("/v1")))
            adapters = {"embedded": EmbeddedAdapter(transport, key="k", context=1024)}
            async with lab(tmp_path, {}, adapters=adapters, price=PRICE) as worker:
                asking = worker.start(stream=stream, messages=LONG)
                await events.taken()
                await asking.hang_up()
                record = settled(worker)
                assert (record.outcome, record.provider) == ("disconnected", "embedded")
                assert charged(record) == Usage(input_tokens=40, output_tokens=6, estimated=True)
            await transport.aclose()

    run(test)


def test_the_embedded_engine_says_what_it_counted(tmp_path: Path) -> None:
    last = piece(content="", tokens_predicted=2, stop=True, stop_type="eos", timings={"cache_n": 30})

    async def engine(exchange: Exchange) -> None:
        if b"/apply-template" in exchange.head:
            await exchange.answer(b'{"prompt":"x"}')
            return
        await exchange.begin_stream()
        await exchange.chunk(piece(content="hi", tokens_predicted=1) + last)
        await exchange.chunk(b"")

    async def test() -> None:
        with ScriptedUpstream(engine) as upstream:
            transport = Transport(Endpoint(upstream.base.removesuffix("/v1")))
            adapters = {"embedded": EmbeddedAdapter(transport, key="k", context=1024)}
            async with lab(tmp_path, {}, adapters=adapters) as worker:
                one = {"tokens_evaluated": 40, "tokens_predicted": 2, "timings": {"cache_n": 30}}
                for stream in (False, True):
                    record = (await worker.ask(stream=stream, n=2)).settled
                    assert json.loads(record.raw_usage or "") == {"completions": [one, one]}
                    counts = (record.input_tokens, record.output_tokens, record.cached_input_tokens, record.estimated)
                    assert counts == (40, 4, 30, False)
            await transport.aclose()

    run(test)


# Two vendors whose prices the built-in table knows, so that targets have a cost.
KEYS = ("OPENAI_API_KEY", "GROQ_API_KEY")
RATED = {"openai": {"model": "gpt-4o-mini"}, "groq": {"model": "llama-3.3-70b-versatile"}}


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vendors' keys, without which they are not in the catalogue."""
    for name in KEYS:
        monkeypatch.setenv(name, "sk-double")


@pytest.mark.usefixtures("keyed")
def test_the_leg_that_lost_a_hedge_costs_the_prompt_that_it_read(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"openai": stalls, "groq": says("Hello.")}, targets=RATED, **HEDGED) as worker:
            first, second = worker.catalogue.models[0].targets
            assert first.rate is not None
            assert second.rate is not None
            for _ in range(20):
                worker.board.health(first.name).speed(streamed=False).add(0.01, worker.clock())
            record = (await worker.ask(messages=LONG)).settled
            assert [leg.outcome for leg in record.attempts] == ["cancelled", "completed"]
            used = Usage(input_tokens=record.input_tokens, output_tokens=record.output_tokens)
            lost = Usage(input_tokens=PROMPT)
            assert record.cost_nanos == price_nanos(used, second.rate) + price_nanos(lost, first.rate)
            assert record.cost_currency == "USD"

    run(test)


@pytest.mark.usefixtures("keyed")
def test_an_attempt_that_failed_by_itself_costs_nothing_more(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"openai": refuses("500 Oops"), "groq": says("Hello.")}, targets=RATED) as worker:
            second = worker.catalogue.models[0].targets[1]
            assert second.rate is not None
            record = (await worker.ask(messages=LONG)).settled
            used = Usage(input_tokens=record.input_tokens, output_tokens=record.output_tokens)
            assert record.cost_nanos == price_nanos(used, second.rate)

    run(test)


@pytest.mark.usefixtures("keyed")
def test_a_call_that_was_left_before_its_first_event_costs_the_prompt_at_the_upstream_too(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"openai": stalls}, targets=RATED, price=PRICE) as worker:
            (target,) = worker.catalogue.models[0].targets
            assert target.rate is not None
            asking = worker.start(messages=LONG)
            await until(lambda: worker.upstreams["openai"].requests == 1)
            await asking.hang_up()
            record = settled(worker)
            assert record.amount_nanos == PROMPT * 2_000
            assert record.cost_nanos == price_nanos(Usage(input_tokens=PROMPT), target.rate)

    run(test)
