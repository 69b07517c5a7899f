"""When the engine dies, is not there, or the client goes: typed errors, a free slot, and back again."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from penstock.domain.answer import ChatEvent
from penstock.domain.errors import PenstockError, UpstreamError
from penstock.providers.embedded.adapter import EmbeddedAdapter
from penstock.providers.transport import Endpoint, Transport
from tests.engine.engines import RunningEngine, bound, eventually
from tests.upstream import Exchange, ScriptedUpstream

# An engine loads in up to half a minute on a busy machine, and compiles grammars.
pytestmark = pytest.mark.timeout(600)

# Without its end-of-text tokens the model writes on.
ENDLESS: dict[str, Any] = {"user": "Tell a story.", "max_tokens": 900, "logit_bias": {"2": -100, "0": -100}}


def opened(engine: RunningEngine, **fields: Any) -> AsyncGenerator[ChatEvent, None]:
    """An open stream."""
    return engine.run(engine.adapter.open(bound(stream=True, **fields)))


async def first(events: AsyncGenerator[ChatEvent, None]) -> ChatEvent:
    """The next event."""
    return await anext(events)


def test_a_kill_under_load_is_a_typed_error_then_503_then_answers(fragile_engine: RunningEngine) -> None:
    streams = [opened(fragile_engine, **ENDLESS) for _ in range(2)]
    for events in streams:
        assert fragile_engine.run(first(events)).frame
    pid = fragile_engine.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    async def drain(events: AsyncGenerator[ChatEvent, None]) -> bool:
        return any([event.done async for event in events])

    for events in streams:
        with pytest.raises(UpstreamError) as raised:
            fragile_engine.run(drain(events))
        assert raised.value.code == "upstream_closed"
    # Until the supervisor has seen the end of the child, a request can still meet its socket.
    eventually(lambda: not fragile_engine.process.ready)
    with pytest.raises(PenstockError) as refused:
        fragile_engine.ask(user="hi")
    assert (refused.value.status, refused.value.code, refused.value.retry_after_s) == (503, "engine_not_ready", 2)
    eventually(lambda: fragile_engine.process.ready)
    assert fragile_engine.text(user="Say hi.")


def test_a_plain_request_that_the_kill_cuts_is_an_upstream_error(fragile_engine: RunningEngine) -> None:
    waiting = asyncio.run_coroutine_threadsafe(fragile_engine.adapter.open(bound(**ENDLESS)), fragile_engine.loop)
    eventually(fragile_engine.busy_slots)
    pid = fragile_engine.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(UpstreamError) as raised:
        waiting.result(30)
    assert (raised.value.status, raised.value.code) == (502, "upstream_closed")


def test_closing_a_stream_frees_its_slot(engine: RunningEngine) -> None:
    events = opened(engine, **ENDLESS)
    assert engine.busy_slots() == 1
    engine.run(events.aclose())
    eventually(lambda: engine.busy_slots() == 0)


def test_closing_a_stream_that_was_never_read_frees_its_slot(engine: RunningEngine) -> None:
    events = opened(engine, **ENDLESS, n=3)
    eventually(lambda: engine.busy_slots() == 3)
    engine.run(events.aclose())
    eventually(lambda: engine.busy_slots() == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_while_the_prompt_is_read_frees_its_slot(engine: RunningEngine, stream: bool) -> None:
    # A prompt of its own, so that no slot has it cached and the prefill is long.
    fields = {**ENDLESS, "user": f"{stream} " + "tree bird " * 450}
    waiting = asyncio.run_coroutine_threadsafe(engine.adapter.open(bound(stream=stream, **fields)), engine.loop)
    eventually(engine.busy_slots)
    waiting.cancel()
    eventually(lambda: engine.busy_slots() == 0)


def test_a_client_of_a_plain_answer_that_goes_frees_its_slot(engine: RunningEngine) -> None:
    waiting = asyncio.run_coroutine_threadsafe(engine.adapter.open(bound(**ENDLESS)), engine.loop)
    eventually(engine.busy_slots)
    waiting.cancel()
    eventually(lambda: engine.busy_slots() == 0)


def scripted(base: str) -> PenstockError:
    """The error that the adapter makes of one scripted upstream."""

    async def run() -> PenstockError:
        transport = Transport(Endpoint(base))
        adapter = EmbeddedAdapter(transport, key="k", context=1024)
        try:
            with pytest.raises(PenstockError) as raised:
                async for _ in await adapter.open(bound(user="x", stream=True)):
                    pass
        finally:
            await transport.aclose()
        return raised.value

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (
            "503 Unavailable",
            b'{"error":{"code":503,"message":"Loading model"}}',
            "engine_not_ready",
        ),
        ("500 Oops", b'{"error":{"code":500,"message":"/secret/path failed"}}', "upstream_error"),
        ("400 Bad", b'{"error":{"code":400,"message":"bad file /secret/path"}}', "upstream_refused"),
        ("401 No", b"{}", "upstream_error"),
        ("500 Oops", b"<html>", "upstream_error"),
        ("500 Oops", b"[1]", "upstream_error"),
    ],
)
def test_the_engines_own_errors_become_ours_without_its_paths(status: str, body: bytes, code: str) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body, status=status)

    with ScriptedUpstream(answer) as upstream:
        error = scripted(upstream.base)
    assert error.code == code
    assert "secret" not in error.message


@pytest.mark.parametrize("junk", [b"data: {nonsense\n\n", b"data: [1]\n\n", b'data: {"content": 3}\n\n', b""])
def test_a_stream_that_cannot_be_read_is_an_upstream_error(junk: bytes) -> None:
    async def answer(exchange: Exchange) -> None:
        if b"/apply-template" in exchange.head:
            await exchange.answer(b'{"prompt":"x"}')
            return
        await exchange.begin_stream()
        await exchange.chunk(b'data: {"content":"a","tokens_predicted":1}\n\n' + junk)
        await exchange.chunk(b"")

    with ScriptedUpstream(answer) as upstream:
        error = scripted(upstream.base)
    assert isinstance(error, UpstreamError)
    assert error.code in ("upstream_error", "upstream_closed")


def test_no_socket_at_all_is_not_ready() -> None:
    error = scripted("unix:///nonexistent/engine.sock")
    assert (error.status, error.code, error.retry_after_s) == (503, "engine_not_ready", 2)
