"""Which target is tried first, by each strategy, and which targets are too small for a prompt."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from penstock.domain.catalogue import Strategy, Target
from penstock.domain.chat import ChatRequest
from penstock.domain.errors import PenstockError
from penstock.gateway.routing.breaker import BreakerRules
from penstock.gateway.routing.health import Health
from penstock.gateway.routing.strategies import Ask, in_order
from penstock.gateway.routing.window import estimate, fitting
from tests.gateway.lab import Clock, LeastDice, lab, run, says


class Field:
    """Targets a, b, c ... with a health each, under one clock."""

    def __init__(self, *weights: int) -> None:
        self.clock = Clock()
        self.targets = [Target(provider="abcdefgh"[at], model="m", weight=weight) for at, weight in enumerate(weights)]
        self.healths = [Health(target.name, BreakerRules(), self.clock, lambda: None) for target in self.targets]

    def order(
        self, strategy: Strategy, chat: ChatRequest, *, app: str = "app", dice: random.Random | None = None
    ) -> str:
        """The providers' letters in the order in which they are tried."""
        ask = Ask(chat, app, self.healths, dice or LeastDice())
        return "".join(target.provider for target in in_order(strategy, self.targets, ask))

    def knows(self, at: int, seconds: float) -> None:
        """The target's stream took so long for its first event, just now."""
        self.healths[at].speed(streamed=True).add(seconds, self.clock())


def chat(*texts: str, roles: Sequence[str] = (), **fields: object) -> ChatRequest:
    """A streamed request whose messages are these texts, by the user and the assistant in turn or by ``roles``."""
    spoken = roles or ["user", "assistant"] * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(spoken, texts, strict=False)]
    return msgspec.convert({"model": "m", "messages": messages, "stream": True} | fields, ChatRequest)


HI = chat("hi")


def test_ordered_is_as_written() -> None:
    assert Field(1, 9, 0).order("ordered", HI) == "abc"


def test_weighted_draws_by_weight_and_weight_0_only_stands_by() -> None:
    field, dice = Field(6, 0, 3, 1), random.Random(1)
    orders = [field.order("weighted", HI, dice=dice) for _ in range(20_000)]
    assert {order[-1] for order in orders} == {"b"}
    first = Counter(order[0] for order in orders)
    assert [round(first[letter] / 20_000, 1) for letter in "acd"] == [0.6, 0.3, 0.1]
    # What is left is drawn by weight as well: after a, c comes three times as often as d.
    second = Counter(order[1] for order in orders if order[0] == "a")
    assert round(second["c"] / second["d"]) == 3


def test_least_outstanding_takes_the_idlest_and_draws_among_equals() -> None:
    field = Field(1, 1, 1)
    field.healths[0].outstanding, field.healths[1].outstanding = 5, 2
    assert field.order("least_outstanding", HI) == "cba"
    field.healths[2].outstanding = 2
    dice = random.Random(1)
    assert {field.order("least_outstanding", HI, dice=dice) for _ in range(50)} == {"bca", "cba"}


def test_lowest_ttft_takes_the_fastest_and_explores_one_request_at_a_time() -> None:
    field = Field(1, 1, 1)
    field.knows(0, 0.5)
    field.knows(1, 0.2)
    assert field.order("lowest_ttft", HI) == "cba"  # nothing is known of c
    field.healths[2].outstanding = 1
    assert field.order("lowest_ttft", HI) == "bac"
    field.knows(2, 0.1)
    assert field.order("lowest_ttft", HI) == "cba"


def test_lowest_ttft_compares_streams_with_streams() -> None:
    field = Field(1, 1)
    for at, seconds in ((0, 9.0), (1, 1.0)):
        field.healths[at].speed(streamed=False).add(seconds, field.clock())
    field.knows(0, 0.1)
    field.knows(1, 0.2)
    assert field.order("lowest_ttft", HI) == "ab"
    assert field.order("lowest_ttft", chat("hi", stream=False)) == "ba"


def test_lowest_ttft_tries_a_slow_target_again_once_its_time_is_stale_by_one_request() -> None:
    field = Field(1, 1)
    field.knows(0, 0.1)
    field.knows(1, 0.9)
    tried = []
    for _ in range(100):
        field.clock.now += 10
        order = field.order("lowest_ttft", HI)
        tried.append(order[0])
        if order[0] == "a":
            field.knows(0, 0.1)  # b's answer has not come yet
    assert 1 <= tried.count("b") <= 6
    assert "bb" not in "".join(tried)


def test_prefix_keeps_a_conversation_at_its_target_as_it_grows() -> None:
    field, roles = Field(1, 1, 1, 1), ["system", "user", "assistant", "user"]
    first = field.order("prefix", chat("Be brief.", "Hello", roles=roles))
    assert field.order("prefix", chat("Be brief.", "Hello", "Hi!", "And now?", roles=roles)) == first


def test_prefix_spreads_conversations_and_isolates_apps() -> None:
    field = Field(1, 1, 1, 1)
    asked = [chat("Be brief.", f"Question {number}", roles=["system", "user"]) for number in range(400)]
    first = [field.order("prefix", one)[0] for one in asked]
    assert all(70 < count < 130 for count in Counter(first).values())
    other = [field.order("prefix", one, app="other")[0] for one in asked]
    assert 70 < sum(a == b for a, b in zip(first, other, strict=True)) < 130  # a quarter by chance
    tools = [{"type": "function", "function": {"name": "f"}}]
    with_tools = [
        field.order("prefix", chat("Be brief.", f"Question {n}", roles=["system", "user"], tools=tools))[0]
        for n in range(400)
    ]
    assert with_tools != first


def test_prefix_passes_an_overloaded_target_over_and_comes_back() -> None:
    field = Field(1, 1, 1)
    usual = field.order("prefix", HI)
    busy = field.healths["abc".index(usual[0])]
    busy.outstanding = 2  # of 2 in all: the mean is 1
    assert field.order("prefix", HI) == usual[1:] + usual[0]
    for health in field.healths:
        health.outstanding = 2
    assert field.order("prefix", HI) == usual


def test_prefix_moves_only_the_conversations_of_a_target_that_goes() -> None:
    field, less = Field(1, 1, 1, 1), Field(1, 1, 1)
    asked = [chat(f"Question {number}") for number in range(200)]
    for one in asked:
        before = field.order("prefix", one)
        assert less.order("prefix", one) == before.replace("d", "")


def test_every_strategy_tries_every_target_once() -> None:
    field = Field(1, 2, 0, 4)
    strategies: tuple[Strategy, ...] = ("ordered", "weighted", "least_outstanding", "lowest_ttft", "prefix")
    for strategy in strategies:
        assert sorted(field.order(strategy, HI, dice=random.Random(1))) == ["a", "b", "c", "d"]


def test_a_models_strategy_is_the_one_that_is_used(tmp_path: Path) -> None:
    async def test() -> None:
        targets = {"first": {"weight": 0}, "second": {"weight": 1}}
        scripts = {"first": says("a"), "second": says("b")}
        async with lab(tmp_path, scripts, targets=targets, strategy="weighted") as worker:
            assert (await worker.ask()).headers["penstock-target"] == "second/up"

    run(test)


def windows(*sizes: int | None) -> list[Target]:
    """Targets with such windows."""
    return [Target(provider=f"p{at}", model="m", context_window=size) for at, size in enumerate(sizes)]


def test_a_body_smaller_than_every_window_is_not_looked_at() -> None:
    targets = windows(1000, None)
    assert fitting(targets, HI, 1000) is targets


def test_targets_that_are_too_small_are_skipped_and_unknown_ones_are_not() -> None:
    asked = chat("x" * 4000)
    targets = windows(900, 1100, None)
    assert fitting(targets, asked, 4100) == targets[1:]


def test_when_none_fits_the_error_tells_both_numbers() -> None:
    with pytest.raises(PenstockError) as raised:
        fitting(windows(100, 900), chat("x" * 4000), 4100)
    assert (raised.value.status, raised.value.code, raised.value.param) == (400, "context_length_exceeded", "messages")
    assert "about 1004 tokens" in raised.value.message
    assert "holds 900" in raised.value.message


def test_the_estimate_counts_text_tools_calls_and_images() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"a": "x" * 400}}}]
    assert estimate(chat("x" * 400)) == 104
    assert estimate(chat("\u00fc" * 200)) == 104  # bytes, not characters
    assert 200 < estimate(chat("x" * 400, tools=tools)) < 250
    parts = [{"type": "text", "text": "x" * 40}, {"type": "image_url", "image_url": {"url": "data:" + "x" * 9000}}]
    assert (
        estimate(msgspec.structs.replace(HI, messages=[msgspec.structs.replace(HI.messages[0], content=parts)])) == 1014
    )
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "x" * 399}}
    spoken = msgspec.convert(
        {"model": "m", "messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]}, ChatRequest
    )
    assert estimate(spoken) == 104


def test_a_prompt_that_fits_nowhere_calls_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        small = {"first": {"context_window": 50}, "second": {"context_window": 3000}}
        async with lab(tmp_path, {"first": says("a"), "second": says("b")}, targets=small) as worker:
            long = [{"role": "user", "content": "x" * 400}]
            assert (await worker.ask(messages=long)).legs == [("second/up", "completed")]
            answer = await worker.ask(messages=[{"role": "user", "content": "x" * 20_000}])
            assert (answer.status, answer.code) == (400, "context_length_exceeded")
            assert [upstream.requests for upstream in worker.upstreams.values()] == [0, 1]

    run(test)
