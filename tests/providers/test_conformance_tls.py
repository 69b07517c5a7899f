"""Over TLS an answer is whole by its own end only: a connection that goes without a word proves nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from penstock.cli.interop.authority import Authority
from tests.providers.lane import STREAM, Heard, Lane, Script, make
from tests.providers.vendors import Answer
from tests.upstream import Exchange, ScriptedUpstream

ANSWER = Answer(text="one two three", pieces=3)


class Secured(NamedTuple):
    """One vendor behind TLS: its lane, an adapter that trusts it, and its socket."""

    lane: Lane
    adapter: Any
    upstream: ScriptedUpstream

    def hear(self, script: Script, **fields: Any) -> Heard:
        """One request, answered by the script from the other side of TLS."""
        self.upstream.script = script
        return self.lane.hear(script, adapter=self.adapter, **fields)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture
def secured(lane: Lane, authority: Authority) -> Iterator[Secured]:
    async def nothing(exchange: Exchange) -> None:
        exchange.close()

    with ScriptedUpstream(nothing, tls=authority.context("127.0.0.1")) as upstream:
        ca_file: Path = authority.certificate_path

        async def made() -> Any:
            return make(lane.vendor, upstream.base, ca_file=str(ca_file))

        adapter, transport = lane.runner.run(made())
        yield Secured(lane, adapter, upstream)
        lane.runner.run(transport.aclose())


def head(kind: str, *, chunked: bool) -> bytes:
    """A head whose body ends by its last chunk, or with the connection."""
    framing = "transfer-encoding: chunked" if chunked else "connection: close"
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n".encode()


@pytest.mark.parametrize("chunked", [True, False])
def test_a_stream_over_tls_that_goes_without_a_word_is_no_answer(secured: Secured, chunked: bool) -> None:
    vendor = secured.lane.vendor
    events = vendor.events(ANSWER)

    def cut(count: int, *, politely: bool) -> Heard:
        async def script(exchange: Exchange) -> None:
            await exchange.send(head(vendor.stream_type, chunked=chunked))
            for event in events[:count]:
                await (exchange.chunk(event) if chunked else exchange.send(event))
            if chunked and count == len(events):
                await exchange.chunk(b"")
            if politely:
                exchange.close()
            else:
                exchange.reset()

        return secured.hear(script, **STREAM)

    assert cut(len(events), politely=True).whole.text == ANSWER.text
    for count in range(len(events)):
        heard = cut(count, politely=False)
        assert not heard.done
        assert heard.error is not None
        assert heard.error.code in ("upstream_closed", "upstream_error")


def test_a_plain_answer_over_tls_that_goes_without_a_word_is_no_answer(secured: Secured) -> None:
    body = secured.lane.vendor.plain(ANSWER)

    async def script(exchange: Exchange) -> None:
        await exchange.send(head("application/json", chunked=False) + body[: len(body) // 2])
        exchange.reset()

    heard = secured.hear(script)
    assert not heard.done
    assert heard.error is not None
    assert heard.error.code in ("upstream_closed", "upstream_error")
