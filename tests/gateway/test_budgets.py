"""Budgets at one worker: money is held for the worst case, settled to the price, and never overshot."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.catalogue import Model, Rate
from penstock.domain.limits import Scope, Shared
from penstock.domain.money import shown, worst_price
from penstock.gateway.limits.bounds import EFFORTS, Pricing, bounds, input_bound
from penstock.gateway.routing.window import estimate
from penstock.gateway.wire import parse_chat
from penstock.ledger.records import Admitted
from penstock.providers.anthropic.claude import claude
from penstock.providers.anthropic.thinking import BUDGETS, room
from penstock.settings.tree import LimitsSettings, PriceRow
from tests.gateway.allowances import WHO, Governed, budget, principal, row
from tests.gateway.conftest import ANSWER
from tests.gateway.lab import CHAT, KEY, Answered, in_turn, lab, refuses, run, says, stalls, until
from tests.upstream import Exchange

# 3 for a million tokens in, 15 for a million out: an answer of 9 and 3 tokens costs 0.000072.
PRICE = PriceRow(input=3, output=15)
# What the meter takes the prompt of CHAT for.
PROMPT = estimate(parse_chat(json.dumps(CHAT).encode()).chat)
SENT: list[dict[str, Any]] = []


async def spends(exchange: Exchange) -> None:
    """Answers with a usage, and as long as it may."""
    body = json.loads(exchange.body)
    SENT.append(body)
    most = body.get("max_tokens") or body.get("max_completion_tokens")
    usage = {"prompt_tokens": 9, "completion_tokens": min(most or 10**6, 3), "total_tokens": 12}
    choices = [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "length"}]
    await exchange.answer(json.dumps(ANSWER | {"usage": usage, "choices": choices}).encode())


def message(answer: Answered) -> str:
    return str(json.loads(answer.body)["message"])


def least(max_tokens: int) -> str:
    """What the lab's request needs at least, in money: its prompt's bound and one token."""
    size = len(json.dumps(CHAT | {"max_tokens": max_tokens}).encode())
    return shown((size + 64 * len(CHAT["messages"]) + 1024) * 3_000 + 15_000)


def spent(limits: Governed) -> dict[str, int]:
    return {name: units for name, units in limits.leases.spent.items() if units}


@pytest.mark.parametrize("scope", list(Scope))
def test_money_is_held_while_a_request_runs_and_settles_to_its_price(tmp_path: Path, scope: Scope) -> None:
    async def test() -> None:
        its = budget("50", scope=scope)
        of_model = scope is Scope.MODEL
        limits = Governed(shared=Shared(revision=1, budgets=(its,)) if of_model else None)
        who = principal(budgets=() if of_model else [its])
        script = in_turn(stalls, spends)
        async with lab(tmp_path, {"a": script}, governor=limits, principals={KEY: who}, price=PRICE) as it:
            first = it.start(max_tokens=1000)
            await until(lambda: it.upstreams["a"].requests == 1)
            counter = f"b:{its.id}:2026-11-01"
            held = limits.open_units()[counter]
            assert 15 * 1000 * 1000 < held < 15 * 1000 * 1000 + 3000 * 2000
            await first.hang_up()
            read = PROMPT * 3 * 1000  # whoever leaves pays for the prompt
            assert (limits.open_units(), spent(limits)) == ({}, {counter: read})
            answer = await it.ask(max_tokens=1000)
            assert answer.settled.amount_nanos == (9 * 3 + 3 * 15) * 1000
            assert (limits.open_units(), spent(limits)) == ({}, {counter: read + answer.settled.amount_nanos})
            assert {r.money for r in it.records() if isinstance(r, Admitted)} == {(counter,)}

    run(test)


def test_a_request_without_a_bound_is_sent_the_one_that_is_held_for(tmp_path: Path) -> None:
    async def test() -> None:
        SENT.clear()
        limits = Governed(settings=LimitsSettings(assumed_output_tokens=700))
        who = principal(budgets=[budget("50")])
        async with lab(tmp_path, {"a": spends}, governor=limits, principals={KEY: who}, price=PRICE) as it:
            assert (await it.ask()).headers["penstock-max-tokens"] == "700; default"
            assert "penstock-max-tokens" not in (await it.ask(max_tokens=5)).headers
            assert (await it.ask(max_completion_tokens=6)).status == 200
        assert [one.get("max_tokens") for one in SENT] == [700, 5, None]
        assert SENT[2]["max_completion_tokens"] == 6
        async with lab(
            tmp_path / "b", {"a": spends}, governor=limits, principals={KEY: who}, price=PRICE, max_output=64
        ) as it:
            assert (await it.ask()).headers["penstock-max-tokens"] == "64; default"

    run(test)


def test_what_is_left_of_a_budget_caps_the_answer_and_then_refuses(tmp_path: Path) -> None:
    async def test() -> None:
        SENT.clear()
        limits = Governed()
        who = principal(budgets=[budget("0.01")])  # the prompt's bound of some 1,150 tokens is 0.0035 of it
        async with lab(tmp_path, {"a": spends}, governor=limits, principals={KEY: who}, price=PRICE) as it:
            capped = await it.ask(max_tokens=1000)
            told = capped.headers["penstock-max-tokens"]
            assert told.endswith("; budget")
            assert 300 < int(told.split(";")[0]) == SENT[0]["max_tokens"] < 600
            assert json.loads(capped.body)["choices"][0]["finish_reason"] == "length"
            assert limits.open_units() == {}
            limits.leases.spent["b:app-month:2026-11-01"] = 9_000_000
            refused = await it.ask(max_tokens=1000)
            assert (refused.status, refused.code) == (429, "budget_exceeded")
            assert message(refused).startswith(
                "The app shop may spend 0.01 USD a month; of that 0.001 USD is left, and "
            )
            anew = "It begins anew at 2026-12-01T00:00Z, in 648000 s; the operator can raise it."
            assert message(refused).endswith(f"this request needs {least(1000)} USD at least. {anew}")
            assert refused.headers["retry-after"] == "648000"
            assert refused.headers["x-should-retry"] == "false"
            assert len(it.records()) == 2

    run(test)


def test_money_that_open_requests_hold_is_worth_a_short_wait(tmp_path: Path) -> None:
    async def test() -> None:
        limits = Governed()
        who = principal(budgets=[budget("0.02", period="total")])
        script = in_turn(stalls, spends)
        async with lab(tmp_path, {"a": script}, governor=limits, principals={KEY: who}, price=PRICE) as it:
            first = it.start(max_tokens=1000)
            await until(lambda: it.upstreams["a"].requests == 1)
            refused = await it.ask(max_tokens=1000)
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            assert refused.headers["x-should-retry"] == "true"
            (held,) = limits.open_units().values()
            said = f"Requests that are open, or have just ended, hold {shown(held)} USD: try again when one has ended."
            assert message(refused).endswith(said)
            await first.hang_up()
            assert (await it.ask(max_tokens=1000)).status == 200
            limits.leases.spent["b:app-total:"] = 20_000_000
            never = await it.ask(max_tokens=1000)
            assert never.headers["x-should-retry"] == "false"
            assert message(never).endswith("It does not begin anew: the operator can raise it.")

    run(test)


@pytest.mark.parametrize("period", ["day", "total"])
def test_a_request_that_no_unused_budget_holds_is_told_so_and_what_it_needs(tmp_path: Path, period: Any) -> None:
    async def test() -> None:
        limits = Governed()
        who = principal(budgets=[budget("0.003", period=period)])
        async with lab(
            tmp_path, {"a": in_turn(stalls, spends)}, governor=limits, principals={KEY: who}, price=PRICE
        ) as it:
            refused = await it.ask(max_tokens=1)
            assert (refused.code, refused.headers["x-should-retry"]) == ("budget_exceeded", "false")
            assert f"this request needs {least(1)} USD at least" in message(refused)
            never = "Even unused the budget is too small for it: waiting never helps, the operator can raise it."
            assert message(refused).endswith(never)

    run(test)


def test_of_several_budgets_the_poorest_decides_and_all_hold_the_same(tmp_path: Path) -> None:
    async def test() -> None:
        limits = Governed()
        rows = [budget("50"), budget("0.01", scope=Scope.KEY, period="day"), budget("9", scope=Scope.ADDON)]
        who = principal(budgets=rows)
        script = in_turn(stalls, spends)
        async with lab(tmp_path, {"a": script}, governor=limits, principals={KEY: who}, price=PRICE) as it:
            first = it.start(max_tokens=1000)
            await until(lambda: it.upstreams["a"].requests == 1)
            assert limits.open_units() == {
                "b:key-day:2026-11-23": 10_000_000,
                "b:addon-month:2026-11-01": 10_000_000,
                "b:app-month:2026-11-01": 10_000_000,
            }
            refused = await it.ask()
            assert message(refused).startswith(f"{WHO[Scope.KEY]} may spend 0.01 USD a day")
            await first.hang_up()
            assert limits.open_units() == {}
            await it.ask(max_tokens=1000)
            assert set(spent(limits).values()) == {PROMPT * 3 * 1000 + 72_000}

    run(test)


def test_a_later_budget_that_is_poorer_frees_what_the_earlier_ones_held(tmp_path: Path) -> None:
    async def test() -> None:
        limits = Governed()
        who = principal(budgets=[budget("9", scope=Scope.KEY), budget("0.01")])
        script = in_turn(stalls, spends)
        async with lab(tmp_path, {"a": script}, governor=limits, principals={KEY: who}, price=PRICE) as it:
            first = it.start(max_tokens=1000)
            await until(lambda: it.upstreams["a"].requests == 1)
            assert set(limits.open_units().values()) == {10_000_000}
            await first.hang_up()
            assert limits.open_units() == {}

    run(test)


def test_all_choices_are_held_for(tmp_path: Path) -> None:
    async def test() -> None:
        limits = Governed()
        who = principal(budgets=[budget("50")])
        script = in_turn(stalls, stalls)
        async with lab(tmp_path, {"a": script}, governor=limits, principals={KEY: who}, price=PRICE) as it:
            holds = []
            for n in (1, 4):
                asking = it.start(max_tokens=1000, n=n)
                await until(lambda n=n: it.upstreams["a"].requests == (1 if n == 1 else 2))  # type: ignore[misc]
                holds.append(sum(limits.open_units().values()))
                await asking.hang_up()
            assert 45_000_000 <= holds[1] - holds[0] <= 45_100_000

    run(test)


def test_a_failure_a_cut_stream_and_a_refusal_of_the_journal_leave_no_money_held(tmp_path: Path) -> None:
    async def test() -> None:
        limits = Governed()
        who = principal(budgets=[budget("50")], limits=[row(Scope.KEY, concurrent_requests=3)])
        script = in_turn(refuses("400 Bad"), stalls, spends)
        async with lab(tmp_path, {"a": script}, governor=limits, principals={KEY: who}, price=PRICE) as it:
            assert (await it.ask()).status == 400
            assert (limits.open_units(), spent(limits)) == ({}, {})
            limits.leases.known.clear()
            limits.leases.stuck = "b:"
            waiting = it.start()
            await until(lambda: limits.leases.waiting == 1)
            await waiting.hang_up()
            assert (limits.open_units(), spent(limits)) == ({}, {})
            limits.leases.stuck = None
            it.app.line.journal.close()
            assert (await it.ask()).code == "journal_unavailable"
            assert (limits.open_units(), spent(limits)) == ({}, {})

    run(test)


def test_a_default_budget_is_each_objects_own_unless_it_has_one_for_the_same(tmp_path: Path) -> None:
    async def test() -> None:
        limits = Governed(
            budget=[
                {"scope": "app", "period": "month", "amount": "5"},
                {"scope": "app", "period": "day", "amount": 1, "model": "m"},
                {"scope": "app", "period": "week", "amount": "2.5", "currency": "EUR"},
                {"scope": "model", "period": "day", "amount": 9},
                {"scope": "model", "period": "day", "amount": 7, "model": "m"},
            ]
        )
        async with lab(tmp_path, {"a": spends}, governor=limits, price=PRICE) as it:
            model = it.app.line.catalogue.get("m")

            def found(**fields: Any) -> list[tuple[Scope, str, str, int]]:
                allowance = it.app.line.governor.allowance(principal(**fields), model)
                assert allowance is not None
                budgets = [rule.counter.budget for rule in allowance.rules.money]
                return [(b.scope, b.period, b.origin, b.amount_nanos // 10**9) for b in budgets if b]

            app, of_model = Scope.APP, (Scope.MODEL, "day", "default", 7)
            assert found() == [(app, "day", "default", 1), (app, "month", "default", 5), of_model]
            own = [budget("8"), budget("3", period="week", currency="EUR")]
            assert found(budgets=own) == [(app, "month", "operator", 8), (app, "day", "default", 1), of_model]
            ids = {
                it.app.line.governor.allowance(principal(key_id=key, app_id=app_id), model).rules.money[0].counter.id  # type: ignore[union-attr]
                for key, app_id in (("k1", "a1"), ("k2", "a1"), ("k1", "a2"))
            }
            assert len(ids) == 2

    run(test)


def test_a_budget_in_another_currency_of_another_model_or_without_a_price_does_not_count(tmp_path: Path) -> None:
    async def test() -> None:
        limits = Governed()
        rows = [budget("0", currency="EUR"), budget("0", scope=Scope.KEY, model="another")]
        async with lab(
            tmp_path, {"a": spends}, governor=limits, principals={KEY: principal(budgets=rows)}, price=PRICE
        ) as it:
            assert (await it.ask()).status == 200
        free = principal(budgets=[budget("0")])
        async with lab(tmp_path / "b", {"a": spends}, governor=limits, principals={KEY: free}) as it:
            assert (await it.ask()).status == 200
        async with lab(tmp_path / "c", {"a": spends}, governor=limits, principals={KEY: free}, price=PRICE) as it:
            assert (await it.ask()).code == "budget_exceeded"

    run(test)


def test_with_the_next_period_the_budget_is_whole_again_and_the_journal_is_in_it(tmp_path: Path) -> None:
    async def test() -> None:
        limits = Governed()
        who = principal(budgets=[budget("0.03", period="day")])
        async with lab(tmp_path, {"a": spends}, governor=limits, principals={KEY: who}, price=PRICE) as it:
            assert (await it.ask(max_tokens=10)).status == 200
            limits.leases.spent["b:app-day:2026-11-23"] = 30_000_000
            assert (await it.ask(max_tokens=10)).code == "budget_exceeded"
            limits.now = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
            assert (await it.ask(max_tokens=10)).status == 200
            admitted = [record for record in it.records() if isinstance(record, Admitted)]
            assert [record.money for record in admitted] == [("b:app-day:2026-11-23",), ("b:app-day:2026-11-24",)]
            for record in admitted:
                day = datetime.fromtimestamp(record.admitted_at, UTC).date().isoformat()
                assert record.money[0].endswith(day)

    run(test)


RATES = st.builds(
    Rate,
    input=st.decimals(0, 1000, places=4),
    output=st.decimals(0, 1000, places=4),
    cached_input=st.none() | st.decimals(0, 1000, places=6),
    cache_write=st.none() | st.decimals(0, 1000, places=6),
)
TOKENS = st.integers(0, 10**7)


@given(rate=RATES, entry=TOKENS, output=TOKENS)
def test_the_price_in_whole_numbers_is_the_worst_price(rate: Rate, entry: int, output: int) -> None:
    assert Pricing(rate).worst(entry, output) == worst_price(rate, input_tokens=entry, output_tokens=output)


@given(rate=RATES, entry=TOKENS, amount=st.integers(0, 10**15))
def test_what_an_amount_affords_is_paid_by_it_and_one_token_more_is_not(rate: Rate, entry: int, amount: int) -> None:
    pricing = Pricing(rate)
    tokens = pricing.affords(amount, entry)
    if tokens is None:
        assert rate.output == 0
    elif pricing.worst(entry, 0) <= amount:
        assert pricing.worst(entry, tokens) <= amount < pricing.worst(entry, tokens + 1)


ASKED = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 40_000),
        "n": st.integers(1, 5),
        "reasoning_effort": st.sampled_from(["none", *EFFORTS]),
        "extended_thinking": st.fixed_dictionaries(
            {"enabled": st.booleans()}, optional={"budget_tokens": st.integers(1_024, 50_000)}
        ),
    },
)


@given(fields=ASKED, tokens=st.integers(1, 100_000), limit=st.none() | st.integers(1, 90_000))
def test_no_adapter_makes_more_of_a_bound_than_was_held_for(
    fields: dict[str, Any], tokens: int, limit: int | None
) -> None:
    parsed = parse_chat(json.dumps(CHAT | fields).encode())
    made = bounds(parsed, Model(id="m", owner="x"), limit=limit, assumed=8_192)
    if made is None:
        return
    if limit is not None and parsed.chat.extended_thinking is not None:
        assert made.whole <= limit
    for one in (made, *([made.within(tokens)] if made.least <= tokens < made.whole else [])):
        sent = one.asked if one.send is None else one.send
        assert sent is not None
        assert 0 < sent <= (one.asked or sent)
        raised, _ = room(sent, one.thinking, claude("claude-sonnet-4-5"))
        assert raised <= one.output
        assert one is made or one.whole <= tokens


def test_the_efforts_are_at_least_those_of_every_vendor() -> None:
    assert all(EFFORTS[name] >= tokens for name, tokens in BUDGETS.items() if name in EFFORTS)


def test_a_prompt_counts_its_bytes_what_they_do_not_show_and_no_more_than_the_window() -> None:
    def bound(content: Any, window: int | None = None) -> int:
        parsed = parse_chat(json.dumps(CHAT | {"messages": [{"role": "user", "content": content}]}).encode())
        return input_bound(parsed, Model(id="m", owner="x", context_window=window)) - len(parsed.raw)

    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    data = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert bound("hi") == 64 + 1024
    low = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}
    video = {"type": "video_url", "video_url": {"url": "https://example.com/hour.mp4"}}
    file = {"type": "file", "file": {"file_id": "file-1"}}
    assert bound([image, data, low]) == 64 + 1024 + 2 * 49_152 + 4096
    assert bound([{"type": "text", "text": "hi"}, video]) == 64 + 1024 + 2_097_152
    assert (
        bound([file], 1_000_000) + len(json.dumps(CHAT | {"messages": [{"role": "user", "content": [file]}]})) == 10**6
    )
    assert bound("hi" * 9_000, 500) < 0


def test_amounts_are_compared_as_decimals() -> None:
    assert Pricing(Rate(input=Decimal("0.0375"), output=Decimal("1E-7"))).worst(1, 1) == 38
    assert Pricing(Rate(input=Decimal("1E+1"), output=Decimal(0))).worst(1, 10**9) == 10_000


def test_a_thousand_requests_at_once_never_hold_more_than_the_budget(tmp_path: Path) -> None:
    async def test() -> None:
        limits = Governed()
        who = principal(budgets=[budget("0.1")])
        async with lab(
            tmp_path, {"a": says("Hello.")}, governor=limits, principals={KEY: who}, price=PRICE, max_output=100
        ) as it:
            answers = await asyncio.gather(*(it.ask() for _ in range(200)))
            assert {one.status for one in answers} <= {200, 429}
            assert limits.open_units() == {}
            total = sum(one.settled.amount_nanos for one in answers if one.status == 200)
            assert spent(limits) == {"b:app-month:2026-11-01": total}

    run(test)
