"""Calls the Bedrock adapter against real bytes: what it sends, and what it makes of an answer."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from penstock.domain.answer import ChatEvent
from penstock.domain.chat import BoundRequest, ChatRequest
from penstock.domain.errors import PenstockError
from penstock.providers.registry import make_adapter
from penstock.providers.spec import Bound, Credential, Image, ProviderSpec
from penstock.providers.transport import Endpoint, Transport
from tests.providers.vendors import Answer
from tests.providers.vendors.bedrock import Double
from tests.upstream import Exchange, Script, ScriptedUpstream

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
KEYS = Credential(access_key_id="AKIDEXAMPLE", secret="very/secret+key", session_token="a-token")
BEARER = Credential(secret="ABSK-bearer-secret")
DOUBLE = Double()
PIXEL = b"\x89PNG not really"


class Fetcher:
    """Fetches one picture from everywhere."""

    async def fetch(self, url: str, param: str) -> Image:
        """The picture; the address says its type."""
        assert url.startswith("https://pictures.test/"), param
        return Image(f"image/{url.rpartition('.')[2]}", PIXEL)


class Outcome(NamedTuple):
    """What came of a call: the events or the error, and what the upstream got."""

    events: list[ChatEvent]
    error: PenstockError | None
    request: Exchange | None
    ignored: tuple[str, ...]

    @property
    def sent(self) -> Any:
        """The body that the upstream got."""
        assert self.request is not None, self.error
        return json.loads(self.request.body)

    @property
    def answer(self) -> Any:
        """The plain answer."""
        assert self.error is None, self.error
        return json.loads(self.events[0].frame)

    @property
    def chunks(self) -> list[Any]:
        """The chunks of the streamed answer, so far."""
        lines = b"".join(event.frame for event in self.events).split(b"\n\n")
        return [json.loads(line[6:]) for line in lines if line and line != b"data: [DONE]"]


def bound_request(model: str = MODEL, *, prompt_caching: bool = True, **fields: Any) -> BoundRequest:
    """A request as the pipeline binds it."""
    said = {"model": "public", "messages": [{"role": "user", "content": "hi"}], **fields}
    return BoundRequest(
        chat=msgspec.convert(said, ChatRequest),
        raw=b"",
        target_model=model,
        completion_id="chatcmpl-1",
        created=1,
        fingerprint="fp",
        prompt_caching=prompt_caching,
    )


def call(request: BoundRequest, script: Script | None = None, credential: Credential | None = BEARER) -> Outcome:
    """One call through the adapter, over a real socket; the upstream says hello unless it has a script."""
    seen: list[Exchange] = []

    async def recorded(exchange: Exchange) -> None:
        seen.append(exchange)
        await (script or says(Answer()))(exchange)

    with ScriptedUpstream(recorded) as upstream:
        events, error, ignored = asyncio.run(_calls(f"http://127.0.0.1:{upstream.port}", request, credential))
    return Outcome(events, error, seen[0] if seen else None, ignored)


async def _calls(
    base: str, request: BoundRequest, credential: Credential | None
) -> tuple[list[ChatEvent], PenstockError | None, tuple[str, ...]]:
    spec = ProviderSpec(name="double", kind="bedrock", base_url=base, region="eu-central-1")
    transport = Transport(Endpoint(base))
    adapter = make_adapter(Bound(spec, credential, transport, Fetcher()))
    events: list[ChatEvent] = []
    try:
        stream = await adapter.open(request)
        async for event in stream:
            events.append(event)
        return events, None, adapter.ignored(request)
    except PenstockError as error:
        return events, error, adapter.ignored(request)
    finally:
        await transport.aclose()


def sent(model: str = MODEL, *, prompt_caching: bool = True, **fields: Any) -> Any:
    """The body of the call that such a request becomes."""
    return call(bound_request(model, prompt_caching=prompt_caching, **fields)).sent


def says(answer: Answer) -> Script:
    """An upstream that gives this answer, plain or streamed as it is asked."""

    async def script(exchange: Exchange) -> None:
        if b"/converse-stream " in exchange.head.partition(b"\r\n")[0]:
            await stream_of(DOUBLE.events(answer))(exchange)
        else:
            await exchange.answer(DOUBLE.plain(answer))

    return script


def stream_of(blocks: list[bytes], end: Callable[[Exchange], None] | None = None) -> Script:
    """A stream whose body comes in these blocks, ended as HTTP frames it unless ``end`` does otherwise."""

    async def script(exchange: Exchange) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {DOUBLE.stream_type}\r\ntransfer-encoding: chunked\r\n\r\n"
        await exchange.send(head.encode())
        for block in blocks:
            await exchange.chunk(block)
        if end is None:
            await exchange.chunk(b"")
        else:
            end(exchange)

    return script
