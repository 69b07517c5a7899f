"""One call of the Gemini adapter against a scripted upstream."""

import asyncio
import json
from typing import Any, NamedTuple

import msgspec

from penstock.domain.answer import ChatEvent
from penstock.domain.chat import BoundRequest, ChatRequest
from penstock.domain.errors import PenstockError
from penstock.providers.gemini.adapter import make
from penstock.providers.spec import Bound, Credential, Image, ProviderSpec
from penstock.providers.transport import Endpoint, Transport
from tests.providers.vendors.gemini import KEY, response
from tests.upstream import Exchange, Script, ScriptedUpstream

PLAIN = json.dumps(response([{"text": "ok"}], "STOP")).encode()
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


class Outcome(NamedTuple):
    """What came of a call: its events up to the failure, if any, and the request as the upstream saw it."""

    events: list[ChatEvent]
    failure: PenstockError | None
    line: str
    head: str
    sent: dict[str, Any]

    @property
    def message(self) -> dict[str, Any]:
        """The message of a plain answer."""
        return self.body["choices"][0]["message"]  # type: ignore[no-any-return]

    @property
    def body(self) -> dict[str, Any]:
        """A plain answer."""
        assert self.failure is None, self.failure
        return json.loads(self.events[0].frame)  # type: ignore[no-any-return]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The chunks of a streamed answer."""
        data = b"".join(event.frame for event in self.events).split(b"\n\n")
        return [json.loads(chunk.removeprefix(b"data: ")) for chunk in data if chunk and b"[DONE]" not in chunk]

    @property
    def done(self) -> bool:
        """Whether the answer is a complete one."""
        return bool(self.events) and self.events[-1].done


class Pictures:
    """Fetches one picture whatever the address."""

    async def fetch(self, url: str, param: str) -> Image:
        return Image("image/png", f"{url} for {param}".encode())


def call(script: Script, *, model: str = "gemini-3-flash", **fields: Any) -> Outcome:
    """One request with these fields."""
    seen: list[Exchange] = []

    async def watched(exchange: Exchange) -> None:
        seen.append(exchange)
        await script(exchange)

    async def go() -> tuple[list[ChatEvent], PenstockError | None]:
        spec = ProviderSpec(name="g", kind="gemini", base_url=upstream.base, headers=(("x-goog-user-project", "p"),))
        transport = Transport(Endpoint(upstream.base))
        events: list[ChatEvent] = []
        chat = msgspec.convert(ASK | fields, ChatRequest)
        request = BoundRequest(chat, b"", model, "chatcmpl-1", 1, "fp")
        try:
            stream = await make(Bound(spec, Credential(secret=KEY), transport, Pictures())).open(request)
            events += [event async for event in stream]
        except PenstockError as error:
            return events, error
        finally:
            await transport.aclose()
        return events, None

    with ScriptedUpstream(watched) as upstream:
        events, failure = asyncio.run(go())
    head = seen[0].head.decode() if seen else ""
    sent = json.loads(seen[0].body) if seen else {}
    return Outcome(events, failure, head.partition("\r\n")[0], head, sent)


def plainly(body: bytes = PLAIN, status: str = "200 OK") -> Script:
    """A script that answers with this body."""

    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, status=status)

    return script


def streamed(*blocks: bytes, cut: bool = False) -> Script:
    """A script that streams these blocks; ``cut`` drops the connection instead of ending the body."""

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for block in blocks:
            await exchange.chunk(block)
        if cut:
            exchange.close()
        else:
            await exchange.chunk(b"")

    return script


def sent(**fields: Any) -> dict[str, Any]:
    """The body that Gemini gets for a request with these fields."""
    outcome = call(plainly(), **fields)
    assert outcome.failure is None, outcome.failure
    return outcome.sent
