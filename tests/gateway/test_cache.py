"""The exact cache: opt-in, for deterministic requests, marked, and priced as the settings say."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.catalogue import Model, Rate
from penstock.domain.chat import ChatRequest, Message
from penstock.domain.errors import PenstockError
from penstock.domain.ids import secret_hash
from penstock.domain.limits import Policy, Scope
from penstock.domain.money import price_nanos
from penstock.domain.platform import Principal
from penstock.domain.usage import Usage
from penstock.gateway.replay.cache import cache_key
from penstock.gateway.replay.wishes import DEFAULT_TTL_S, deterministic, read_wish
from penstock.settings.tree import CacheSettings, LimitsSettings, PriceRow
from tests.gateway import allowances
from tests.gateway.lab import KEY, OTHER_KEY, Lab, in_turn, refuses, resets, run, says, until
from tests.gateway.repeats import KEYED, Steps, answers, body_of, worker
from tests.gateway.test_underway import principal

ON = {"penstock-cache": "on"}
PRICED: dict[str, Any] = {"price": PriceRow(input="1", output="3")}


async def ask(lab: Lab, said: str = "on", **fields: Any) -> Any:
    """A deterministic request that opts in, once what was made before is kept."""
    await lab.app._replay._cache.aclose()  # type: ignore[union-attr]
    return await lab.ask(headers={"penstock-cache": said}, **{"temperature": 0} | fields)


def forget(lab: Lab) -> None:
    """The worker's memory is lost, as in a new one."""
    lab.app._replay._cache._held.clear()  # type: ignore[union-attr]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("remembered", [False, True])
def test_the_same_request_is_answered_out_of_the_cache(tmp_path: Path, stream: bool, remembered: bool) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, in_turn(says("first"), says("second")), kept, **PRICED) as lab:
                first = await ask(lab, stream=stream)
                assert first.headers["penstock-cache"] == "miss"
                if not remembered:
                    await lab.app._replay._cache.aclose()  # type: ignore[union-attr]
                    forget(lab)
                again = await ask(lab, stream=stream)
                assert (again.status, again.body) == (200, first.body)
                assert again.headers["penstock-cache"] == "hit; age=0"
                assert again.headers["x-request-id"] != first.headers["x-request-id"]
                assert "penstock-target" not in again.headers
                assert lab.upstreams["one"].requests == 1

    run(test)


@pytest.mark.parametrize("percent", [0, 25, 100])
def test_a_cached_answer_is_settled_at_its_share_of_the_price(tmp_path: Path, percent: int) -> None:
    async def test() -> None:
        with answers(tmp_path, cache=CacheSettings(price_percent=percent)) as kept:
            async with worker(tmp_path, says("first"), kept, **PRICED) as lab:
                first, again = (await ask(lab)).settled, (await ask(lab)).settled
                assert (first.cached_answer, again.cached_answer) == (False, True)
                assert (again.outcome, again.cost_nanos, again.provider) == ("completed", 0, None)
                assert (again.input_tokens, again.output_tokens) == (first.input_tokens, first.output_tokens) == (7, 2)
                assert first.amount_nanos == 13_000
                assert again.amount_nanos == 13_000 * percent // 100

    run(test)


def test_a_share_of_a_price_is_rounded_once() -> None:
    rate = msgspec.convert({"input": "0.003", "output": "0.003"}, Rate)
    assert price_nanos(Usage(input_tokens=1, output_tokens=0), rate) == 3
    assert price_nanos(Usage(input_tokens=1, output_tokens=0), rate, percent=50) == 2
    assert price_nanos(Usage(input_tokens=3, output_tokens=0), rate, percent=50) == 4


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"stream": True},
        {"temperature": 0, "max_tokens": 5},
        {"messages": [{"role": "user", "content": "ho"}]},
    ],
)
def test_another_request_is_another_answer(tmp_path: Path, other: dict[str, Any]) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("hello"), kept) as lab:
                await ask(lab)
                assert (await ask(lab, **other)).headers["penstock-cache"] == "miss"

    run(test)


def test_who_asks_makes_no_difference_within_an_app(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("hello"), kept) as lab:
                await ask(lab, user="one", metadata={"a": "1"})
                assert (await ask(lab, user="two")).headers["penstock-cache"].startswith("hit")
                assert (await ask(lab, key=OTHER_KEY)).headers["penstock-cache"].startswith("hit")

    run(test)


def test_apps_share_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("hello"), kept) as lab:
                await ask(lab)
                stranger = msgspec.structs.replace(principal(OTHER_KEY), app_id="another")
                lab.app._keys._known[secret_hash(OTHER_KEY)] = stranger
                assert (await ask(lab, key=OTHER_KEY)).headers["penstock-cache"] == "miss"

    run(test)


def test_a_policy_opts_an_app_in_and_a_request_out(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("hello"), kept) as lab:
                assert "penstock-cache" not in (await lab.ask(temperature=0)).headers
                cached = msgspec.structs.replace(principal(KEY), policy=Policy(cache_ttl_s=60))
                lab.app._keys._known[secret_hash(KEY)] = cached
                assert (await lab.ask(temperature=0)).headers["penstock-cache"] == "miss"
                assert (await lab.ask(temperature=0)).headers["penstock-cache"] == "hit; age=0"
                assert "penstock-cache" not in (await ask(lab, "off")).headers
                assert (await lab.ask(temperature=1)).headers["penstock-cache"] == "bypass"

    run(test)


def test_failures_and_cut_streams_are_not_cached(tmp_path: Path) -> None:
    async def test() -> None:
        script = in_turn(refuses("400 Bad Request"), says("good"))
        with answers(tmp_path) as kept:
            async with worker(tmp_path, script, kept) as lab:
                assert (await ask(lab)).status == 400
                assert (await ask(lab)).headers["penstock-cache"] == "miss"

    run(test)


def test_a_stream_whose_client_has_gone_is_not_cached(tmp_path: Path) -> None:
    async def test() -> None:
        steps = Steps()
        with answers(tmp_path) as kept:
            async with worker(tmp_path, steps, kept) as lab:
                asked = lab.start(headers=ON, stream=True, temperature=0)
                await until(lambda: steps.calls == 1)
                steps.say("one")
                await until(lambda: b"one" in body_of(asked))
                await asked.hang_up()
                again = lab.start(headers=ON, stream=True, temperature=0)
                await until(lambda: steps.calls == 2)
                steps.say("two", "end")
                assert (await again.answer()).headers["penstock-cache"] == "miss"

    run(test)


def test_an_answer_that_is_too_large_is_not_cached(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path, cache=CacheSettings(max_answer_bytes=10)) as kept:
            async with worker(tmp_path, says("hello"), kept) as lab:
                await ask(lab)
                assert (await ask(lab)).headers["penstock-cache"] == "miss"

    run(test)


def test_an_older_answer_than_wished_for_is_made_anew(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path, cache=CacheSettings(max_ttl_s=0.001)) as kept:
            async with worker(tmp_path, says("hello"), kept) as lab:
                await ask(lab, "ttl=600")
                assert (await ask(lab, "ttl=600")).headers["penstock-cache"] == "miss"

    run(test)


def test_cached_answers_are_shared_by_workers(tmp_path: Path) -> None:
    async def test() -> None:
        (tmp_path / "b").mkdir()
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("here"), kept) as one, worker(tmp_path / "b", resets, kept) as other:
                # The target has the same name at both, as at two workers of one configuration.
                first = await ask(one, stream=True)
                await one.app._replay._cache.aclose()  # type: ignore[union-attr]
                again = await ask(other, stream=True)
                assert again.body == first.body
                assert again.settled.cached_answer

    run(test)


def test_a_key_and_the_cache_go_together(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("hello"), kept) as lab:
                first = await ask(lab, stream=True)
                keyed = await lab.ask(headers=ON | KEYED, stream=True, temperature=0)
                assert keyed.headers["penstock-cache"].startswith("hit")
                assert keyed.body.startswith(b"id: 1\n")
                assert (
                    b"".join(line for line in keyed.body.splitlines(keepends=True) if line[:3] != b"id:") == first.body
                )
                assert (await lab.ask(headers=ON | KEYED, stream=True, temperature=0)).body == keyed.body
                assert len(lab.records()) == 4

    run(test)


def test_what_is_cached_can_be_read_by_who_knows_the_request_alone(tmp_path: Path) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("a-secret-word"), kept) as lab:
                await ask(lab, messages=[{"role": "user", "content": "a-secret-question"}])
                await lab.app._replay._cache.aclose()  # type: ignore[union-attr]

    run(test)
    stored = b"".join(file.read_bytes() for file in tmp_path.glob("penstock.db*"))
    assert b"cache" in stored
    assert b"a-secret-word" not in stored
    assert b"a-secret-question" not in stored


@pytest.mark.parametrize("said", [b"ttl=1001", b"ttl=999999999999", b"ttl=" + b"9" * 5000])
def test_a_longer_time_than_the_bound_counts_as_the_bound(said: bytes) -> None:
    wish = read_wish(said, Policy(), ChatRequest(model="m", messages=[]), max_ttl_s=1000)
    assert wish is not None
    assert wish.ttl_s == 1000
    with pytest.raises(PenstockError, match=r"at most 1000 count \(cache.max_ttl_s\)"):
        read_wish(b"ttl=0", Policy(), ChatRequest(model="m", messages=[]), max_ttl_s=1000)


@pytest.mark.parametrize("said", ["", "yes", "ttl=0", "ttl=-1", "ttl=1.5", "ttl=", "on, off"])
def test_a_malformed_header_is_refused_by_name(tmp_path: Path, said: str) -> None:
    async def test() -> None:
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("hello"), kept) as lab:
                refused = await ask(lab, said)
                assert refused.status == 400
                assert b"Penstock-Cache" in refused.body
                assert lab.upstreams["one"].requests == 0

    run(test)


@given(st.binary(max_size=20), st.none() | st.integers(1, 10**6))
def test_any_header_is_understood_or_refused(said: bytes, ttl_s: int | None) -> None:
    chat = ChatRequest("m", [Message("user", "hi")], temperature=0.0)
    try:
        wish = read_wish(said, Policy(cache_ttl_s=ttl_s), chat, max_ttl_s=1000)
    except PenstockError as error:
        wish, code = None, error.code
        assert code == "invalid_request"
    assert wish is None or 0 < wish.ttl_s <= 1000


def test_on_means_the_apps_time_or_an_hour() -> None:
    chat = ChatRequest("m", [Message("user", "hi")], temperature=0.0)
    for policy, ttl_s in ((Policy(), DEFAULT_TTL_S), (Policy(cache_ttl_s=5), 5)):
        wish = read_wish(b"On", policy, chat, max_ttl_s=1e9)
        assert wish is not None
        assert wish.ttl_s == ttl_s


def test_only_what_is_meant_to_be_the_same_is_deterministic() -> None:
    chat = ChatRequest("m", [Message("user", "hi")])
    may = msgspec.structs.replace
    assert [
        deterministic(chat),
        deterministic(may(chat, temperature=0.1)),
        deterministic(may(chat, temperature=0.0, n=2)),
        deterministic(may(chat, temperature=0.0)),
        deterministic(may(chat, temperature=1.0, seed=7, n=1)),
    ] == [False, False, False, True, True]


def test_another_price_or_target_is_another_key() -> None:
    chat = ChatRequest("m", [Message("user", "hi")], temperature=0.0)
    model = Model(id="m", owner="o", rate=msgspec.convert({"input": "1", "output": "2"}, Rate))
    dearer = msgspec.structs.replace(model, rate=msgspec.convert({"input": "1", "output": "3"}, Rate))
    stand_in = msgspec.structs.replace(model, stand_in="small")
    keys = [cache_key("a", one, chat, prompt_caching=True).id for one in (model, dearer, stand_in)]
    keys.append(cache_key("b", model, chat, prompt_caching=True).id)
    assert len(set(keys)) == 4
    asked = msgspec.structs.replace(chat, user="x", metadata={"k": 1}, prompt_cache_key="y")
    assert cache_key("a", model, asked, prompt_caching=True).id == keys[0]


@pytest.mark.parametrize(
    ("bound", "why"),
    [
        (allowances.principal(limits=[allowances.row(Scope.KEY, max_tokens=5)]), "5; limit"),
        (allowances.principal(budgets=[allowances.budget("50")]), "4096; default"),
    ],
)
def test_what_has_a_bound_of_ours_is_neither_kept_nor_given_from_the_cache(
    tmp_path: Path, bound: Principal, why: str
) -> None:
    async def test() -> None:
        free = allowances.principal()
        given = allowances.Governed(settings=LimitsSettings(heroku_defaults=False, assumed_output_tokens=4096))
        with answers(tmp_path) as kept:
            async with worker(tmp_path, says("hello"), kept, governor=given, **PRICED) as lab:
                for who, told in (
                    (bound, "miss"),
                    (bound, "miss"),
                    (free, "miss"),
                    (free, "hit; age=0"),
                    (bound, "miss"),
                ):
                    lab.know(KEY, who)
                    answer = await ask(lab)
                    assert answer.headers["penstock-cache"] == told
                    assert answer.headers.get("penstock-max-tokens") == (why if who is bound else None)

    run(test)
