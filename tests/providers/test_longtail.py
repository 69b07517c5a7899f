"""The long tail: any-llm's providers over real bytes, held to the same truth as our own adapters."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from openai import OpenAI

from penstock.domain.answer import ChatEvent
from penstock.domain.catalogue import Timeouts
from penstock.domain.chat import BoundRequest, ChatRequest
from penstock.domain.errors import PenstockError
from penstock.domain.usage import Usage
from penstock.providers.longtail.adapter import Bounds, LibraryError, LongtailAdapter, make
from penstock.providers.longtail.request import FIELDS
from penstock.providers.spec import Bound, Credential, Image, ProviderSpec
from penstock.providers.transport import Endpoint, Transport, TransportLimits
from tests.providers.vendors import REFUSALS, Answer
from tests.providers.vendors.longtail import KEY, Double, chunk, refusal
from tests.server import running
from tests.upstream import Exchange, Script, ScriptedUpstream

DOUBLE = Double()
NO_BOUNDS = Timeouts()
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALLS = Answer(text="", calls=(("c1", "weather", '{"city":"Oslo"}'), ("c2", "now", "{}")), finish="tool_calls")


class Outcome(NamedTuple):
    """What came of a call, and the request as the upstream saw it."""

    events: list[ChatEvent]
    failure: PenstockError | None
    seen: list[Exchange]

    @property
    def sent(self) -> Any:
        return json.loads(self.seen[0].body)

    @property
    def body(self) -> Any:
        assert self.failure is None, self.failure
        return json.loads(self.events[0].frame)

    @property
    def deltas(self) -> list[Any]:
        data = b"".join(found.frame for found in self.events).split(b"\n\n")
        chunks = [json.loads(one.removeprefix(b"data: ")) for one in data if one and b"[DONE]" not in one]
        return [choice["delta"] | {"finish": choice["finish_reason"]} for one in chunks for choice in one["choices"]]

    @property
    def done(self) -> bool:
        return bool(self.events) and self.events[-1].done


class Pictures:
    """Fetches one picture whatever the address."""

    async def fetch(self, url: str, param: str) -> Image:
        return Image("image/png", b"pixels")


def adapter(base: str, name: str = "deepinfra", key: str | None = KEY, **fields: Any) -> LongtailAdapter:
    spec = ProviderSpec(name="tail", kind="any-llm", base_url=base, library_provider=name, **fields)
    credential = Credential(secret=key) if key else None
    return make(Bound(spec, credential, Transport(Endpoint("http://127.0.0.1:9")), Pictures()))


def request(timeouts: Timeouts = NO_BOUNDS, **fields: Any) -> BoundRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields
    chat = msgspec.convert(body, ChatRequest)
    return BoundRequest(chat, json.dumps(body).encode(), "upstream-name", "chatcmpl-1", 1, "fp", timeouts)


def with_upstream(script: Script, client: Callable[[str], Awaitable[None]]) -> list[Exchange]:
    seen: list[Exchange] = []

    async def watched(exchange: Exchange) -> None:
        seen.append(exchange)
        await script(exchange)

    async def go() -> None:
        await client(upstream.base)

    with ScriptedUpstream(watched) as upstream:
        asyncio.run(go())
    return seen


def call(script: Script, *, timeouts: Timeouts = NO_BOUNDS, key: str | None = KEY, **fields: Any) -> Outcome:
    """One request with these fields."""
    events: list[ChatEvent] = []
    failures: list[PenstockError] = []

    async def client(base: str) -> None:
        try:
            stream = await adapter(base, key=key).open(request(timeouts, **fields))
            events.extend([found async for found in stream])
            await stream.aclose()
        except PenstockError as error:
            failures.append(error)

    seen = with_upstream(script, client)
    return Outcome(events, failures[0] if failures else None, seen)


def plainly(
    body: bytes = DOUBLE.plain(Answer()), status: str = "200 OK", headers: dict[str, str] | None = None
) -> Script:
    async def script(exchange: Exchange) -> None:
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items() if name != "content-type")
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{extra}content-length: {len(body)}\r\n\r\n"
        await exchange.send(head.encode() + body)

    return script


def streamed(*blocks: bytes, cut: bool = False) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for block in blocks:
            await exchange.chunk(block)
        if cut:
            exchange.close()
        else:
            await exchange.chunk(b"")

    return script


def test_the_table_has_every_parameter_of_a_request() -> None:
    names = set(ChatRequest.__struct_fields__) - {"model", "messages", "stream", "allow_ignored_params"}
    assert set(FIELDS) == names


def test_a_plain_answer_is_read_and_its_request_said() -> None:
    outcome = call(plainly(), max_tokens=5, temperature=0.5, tools=[TOOL], tool_choice="auto", seed=3, user="me")
    assert outcome.body["choices"][0]["message"]["content"] == "Hello wörld 🌊"
    assert outcome.body["id"] == "chatcmpl-1"
    assert outcome.events[0].usage == Usage(input_tokens=7, output_tokens=2, cached_input_tokens=3)
    assert outcome.seen[0].header("authorization") == f"Bearer {KEY}"
    sent = outcome.sent
    assert sent["model"] == "upstream-name"
    assert sent["messages"] == [{"role": "user", "content": "hi"}]
    assert (sent["max_completion_tokens"], sent["temperature"], sent["seed"]) == (5, 0.5, 3)
    assert (sent["tools"], sent["tool_choice"]) == ([TOOL], "auto")
    assert "user" not in sent


def test_a_history_of_another_vendor_is_said_so_that_any_takes_it() -> None:
    long = "call_1_sig_" + "a" * 400
    made = {"id": long, "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    answer, result, refused = call(
        plainly(),
        messages=[
            {"role": "assistant", "content": None, "tool_calls": [made], "reasoning_content": "hm"},
            {"role": "tool", "tool_call_id": long, "content": "1"},
            {"role": "assistant", "content": None, "refusal": "I cannot."},
        ],
    ).sent["messages"]
    assert len(answer["tool_calls"][0]["id"]) <= 40
    assert answer == {"role": "assistant", "tool_calls": [made | {"id": result["tool_call_id"]}]}
    assert refused == {"role": "assistant", "content": "I cannot."}


def test_thinking_that_is_off_wins_over_an_effort() -> None:
    outcome = call(plainly(), reasoning_effort="high", extended_thinking={"enabled": False})
    assert "reasoning_effort" not in outcome.sent


def test_a_streamed_answer_is_relayed_with_thoughts_and_usage() -> None:
    outcome = call(streamed(*DOUBLE.events(Answer(thinking="let me see"))), stream=True)
    assert outcome.done
    assert "".join(delta.get("content") or "" for delta in outcome.deltas) == "Hello wörld 🌊"
    assert "".join(delta.get("reasoning", {}).get("thinking", "") for delta in outcome.deltas) == "let me see"
    assert outcome.deltas[-1]["finish"] == "stop"
    assert outcome.events[-1].usage == Usage(input_tokens=7, output_tokens=2, cached_input_tokens=3)


def test_calls_are_put_together_from_their_fragments() -> None:
    plain = call(plainly(DOUBLE.plain(CALLS))).body["choices"][0]
    assert [made["function"]["arguments"] for made in plain["message"]["tool_calls"]] == ['{"city":"Oslo"}', "{}"]
    outcome = call(streamed(*DOUBLE.events(CALLS)), stream=True)
    calls = [made for delta in outcome.deltas for made in delta.get("tool_calls", ())]
    assert calls[0] == {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    texts = ["".join(one["function"]["arguments"] for one in calls if one["index"] == at) for at in (0, 1)]
    assert texts == ['{"city":"Oslo"}', "{}"]


@pytest.mark.parametrize(("budget", "effort"), [(1024, "low"), (None, "medium"), (8193, "high")])
def test_extended_thinking_is_asked_for_as_an_effort(budget: int | None, effort: str) -> None:
    assert (
        call(plainly(), extended_thinking={"enabled": True, "budget_tokens": budget}).sent["reasoning_effort"] == effort
    )
    assert "reasoning_effort" not in call(plainly(), extended_thinking={"enabled": False}).sent


def test_a_picture_goes_as_data_and_never_as_an_address() -> None:
    content = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]
    sent = call(plainly(), messages=[{"role": "user", "content": content}]).sent
    url = sent["messages"][0]["content"][1]["image_url"]["url"]
    assert url == "data:image/png;base64,cGl4ZWxz"


@pytest.mark.parametrize("cut", [True, False])
def test_a_stream_that_ends_before_its_last_event_is_never_whole(cut: bool) -> None:
    events = DOUBLE.events(Answer())
    for kept in range(len(events)):
        outcome = call(streamed(*events[:kept], cut=cut), stream=True)
        assert not outcome.done
        if cut or kept <= 1:
            assert outcome.failure is not None
            assert outcome.failure.code == "upstream_closed"


def test_an_ending_that_nobody_knows_is_a_failure() -> None:
    outcome = call(streamed(chunk({"content": "x"}), chunk({}, "exploded")), stream=True)
    assert outcome.failure is not None
    assert outcome.failure.code == "upstream_error"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "code"),
    REFUSALS,
)
def test_an_error_is_one_of_ours_and_is_not_tried_again(kind: str, code: str, stream: bool) -> None:
    status, headers, body = DOUBLE.error(kind)
    outcome = call(plainly(body, f"{status} No", headers), stream=stream)
    assert outcome.failure is not None
    assert outcome.failure.code == code
    assert len(outcome.seen) == 1
    if kind == "rate_limited":
        assert outcome.failure.retry_after_s == 7
    if kind == "invalid":
        assert outcome.failure.message == "The upstream refused the request: Bad value."


def test_an_error_in_the_middle_of_a_stream_fails_it() -> None:
    outcome = call(streamed(chunk({"content": "x"}), DOUBLE.error_event()), stream=True)
    assert outcome.failure is not None
    assert outcome.failure.code == "upstream_overloaded"
    assert not outcome.done


@pytest.mark.parametrize("body", [b"{}", b"[]", b"not json", json.dumps(refusal("internal")).encode()])
def test_a_plain_answer_that_is_none_is_the_upstream_s_failure(body: bytes) -> None:
    failure = call(plainly(body)).failure
    assert failure is not None
    assert failure.code == "upstream_error"


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_in_a_200_is_told_in_its_own_words(stream: bool) -> None:
    failure = call(plainly(DOUBLE.error("overloaded")[2]), stream=stream).failure
    assert failure is not None
    assert (failure.code, failure.message) == ("upstream_overloaded", "The upstream is overloaded: Busy.")


def test_a_plain_answer_is_not_passed_off_as_a_stream() -> None:
    failure = call(plainly(), stream=True).failure
    assert failure is not None
    assert failure.code == "upstream_error"


def test_an_error_never_quotes_the_key() -> None:
    body = json.dumps({"error": {"message": f"the key {KEY} is bad", "type": "x"}}).encode()
    failure = call(plainly(body, "400 No")).failure
    assert failure is not None
    assert KEY not in failure.message
    assert "[masked]" in failure.message


def test_a_redirect_is_not_followed() -> None:
    outcome = call(plainly(b"", "307 Go", {"location": "/elsewhere"}))
    assert outcome.failure is not None
    assert len(outcome.seen) == 1


def test_an_upstream_that_is_not_there_is_an_error_that_says_so() -> None:
    async def go() -> None:
        await adapter("http://127.0.0.1:9/v1").open(request())

    with pytest.raises(PenstockError) as caught:
        asyncio.run(go())
    assert (caught.value.code, caught.value.retry_after_s) == ("upstream_error", 2)


@pytest.mark.parametrize(
    ("timeouts", "stream"),
    [(Timeouts(total_s=0.2), False), (Timeouts(first_token_s=0.2), True), (Timeouts(idle_s=0.2), True)],
)
def test_an_upstream_that_stalls_is_given_up(timeouts: Timeouts, stream: bool) -> None:
    async def stall(exchange: Exchange) -> None:
        if stream:
            await exchange.begin_stream()
            await exchange.chunk(b": wait\n\n")
        await exchange.hung_up()

    outcome = call(stall, timeouts=timeouts, stream=stream)
    assert outcome.failure is not None
    assert outcome.failure.code == "upstream_timeout"


@pytest.mark.parametrize("begun", [False, True])
def test_a_caller_that_goes_away_hangs_up_on_the_upstream(begun: bool) -> None:
    gone = asyncio.Event()
    waiting, closed = threading.Event(), threading.Event()

    async def script(exchange: Exchange) -> None:
        if begun:
            await exchange.begin_stream()
            await exchange.chunk(chunk({"content": "x"}))
        waiting.set()
        await exchange.hung_up()
        closed.set()

    async def client(base: str) -> None:
        made = adapter(base)
        task = asyncio.create_task(consume(made))
        await asyncio.to_thread(waiting.wait, 10)
        if begun:
            await gone.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(closed.wait, 10)

    async def consume(made: LongtailAdapter) -> None:
        stream = await made.open(request(stream=True))
        try:
            async for _ in stream:
                gone.set()
        finally:
            await stream.aclose()

    with_upstream(script, client)


def test_a_stream_that_is_given_up_between_events_is_hung_up_on() -> None:
    closed = threading.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(chunk({"content": "x"}))
        await exchange.hung_up()
        closed.set()

    async def client(base: str) -> None:
        stream = await adapter(base).open(request(stream=True))
        await anext(aiter(stream))
        await stream.aclose()
        assert await asyncio.to_thread(closed.wait, 10)

    with_upstream(script, client)


def test_the_bound_on_the_first_token_ends_with_it() -> None:
    async def turns() -> str:
        for _ in range(5):
            await asyncio.sleep(0)
        return "here"

    async def go() -> None:
        bounds = Bounds(request(Timeouts(first_token_s=1e-9), stream=True), TransportLimits(), None)
        with pytest.raises(PenstockError):
            await bounds.next(turns())
        bounds.begun()
        assert await bounds.next(turns()) == "here"

    asyncio.run(go())


def test_no_other_provider_s_key_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPINFRA_API_KEY", "sk-of-someone-else")
    outcome = call(plainly(), key=None)
    assert outcome.failure is None
    assert outcome.seen[0].header("authorization") == "Bearer no-key-required"


def test_a_parameter_that_the_library_knows_the_provider_lacks_is_refused() -> None:
    async def go() -> None:
        made = adapter("http://127.0.0.1:9/v1", "liner")
        await made.open(request(n=2))

    with pytest.raises(PenstockError) as caught:
        asyncio.run(go())
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "n")


def test_headers_of_the_row_are_sent() -> None:
    async def client(base: str) -> None:
        await adapter(base, headers=(("x-team", "blue"),)).open(request())

    (seen,) = with_upstream(plainly(), client)
    assert seen.header("x-team") == "blue"


@pytest.mark.parametrize(
    ("base", "name", "fields", "said"),
    [
        ("", "deepinfra", {}, "needs base_url"),
        ("http://127.0.0.1:9", "nobody", {}, "any-llm cannot make its provider 'nobody'"),
        ("http://127.0.0.1:9", "anthropic", {"proxy": "http://127.0.0.1:9"}, "headers, proxy and ca_file"),
    ],
)
def test_a_row_that_cannot_work_is_one_line_that_names_it(
    base: str, name: str, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(LibraryError) as caught:
        adapter(base, name, **fields)
    assert str(caught.value).startswith("[[provider]] 'tail' (kind any-llm)")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


WITHOUT = """
import sys
sys.modules["any_llm"] = None
from penstock.providers.longtail.adapter import LibraryError, make
from penstock.providers.spec import Bound, ProviderSpec
try:
    make(Bound(ProviderSpec(name="t", kind="any-llm", base_url="http://x"), None, None, None))
except LibraryError as error:
    print(error)
"""


def test_without_the_library_one_line_says_how_to_get_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert (
        done.stdout == "[[provider]] 't' (kind any-llm) needs a library, in the clone: pip install -e '.[providers]'\n"
    )


def test_the_library_is_not_loaded_before_a_provider_needs_it() -> None:
    code = "import sys, penstock.providers.longtail.adapter; print('any_llm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


CONFIG = """
[engine]
enabled = false
[gateway]
workers = 1
{row}
[[model]]
id = "tail"
targets = [{{ provider = "double", model = "org/model" }}]
"""


def test_a_tool_is_called_and_its_result_answered_from_through_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talk(exchange: Exchange) -> None:
        messages = json.loads(exchange.body)["messages"]
        answer = CALLS if len(messages) == 1 else Answer(text=f"It is {messages[-1]['content']}.")
        await streamed(*DOUBLE.events(answer))(exchange)

    for name, value in DOUBLE.environ.items():
        monkeypatch.setenv(name, value)
    with ScriptedUpstream(talk) as upstream:
        config = tmp_path / "penstock.toml"
        config.write_text(CONFIG.format(row=DOUBLE.row(upstream.base)))
        with running(tmp_path / "home", "--config", str(config)) as server:
            client = OpenAI(base_url=f"{server.gateway}/v1", api_key=server.config_var("hello", "INFERENCE_KEY"))
            messages: list[Any] = [{"role": "user", "content": "Weather in Oslo?"}]
            with client.chat.completions.stream(model="tail", messages=messages, tools=[TOOL]) as stream:
                answer = stream.get_final_completion().choices[0]
            assert answer.finish_reason == "tool_calls"
            assert answer.message.tool_calls
            assert [made.id for made in answer.message.tool_calls] == ["c1", "c2"]
            messages += [answer.message.model_dump(exclude_none=True, include={"role", "tool_calls"})]
            messages += [{"role": "tool", "tool_call_id": one, "content": "grey"} for one in ("c1", "c2")]
            with client.chat.completions.stream(model="tail", messages=messages, tools=[TOOL]) as stream:
                assert stream.get_final_completion().choices[0].message.content == "It is grey."
