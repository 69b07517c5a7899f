"""What the bench of the engine takes from an answer, on either side."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bench.dialogue import Answer, Bare, Through, ask

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def chunked(*events: Any) -> bytes:
    """A stream of events, each cut in two by the framing."""
    whole = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    parts = (whole[:9].encode(), whole[9:].encode())
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


class Script:
    """Answers every request for an answer with ``answer``, and one for a rendered prompt with its last message."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.bodies: list[dict[str, Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        if b"/apply-template" in head:
            content = json.dumps({"prompt": body["messages"][-1]["content"]}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(content), content))
        else:
            self.bodies.append(body)
            writer.write(self.answer)
        await writer.drain()
        writer.close()


async def answered(script: Script, question: str, tokens: int, **more: Any) -> Answer:
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    async with server:
        side = Through(server.sockets[0].getsockname()[1], {"authorization": "Bearer k"}, "m")
        return await ask(side, question, tokens, **more)


async def answered_bare(script: Script, socket: Path) -> Answer:
    async with await asyncio.start_unix_server(script.serve, socket):
        return await ask(Bare(str(socket), "k"), "why", 7)


def test_an_answer_through_the_gateway_has_its_pieces_and_the_tokens_of_its_usage() -> None:
    role, delta = ({"choices": [{"delta": one}]} for one in ({"role": "assistant"}, {"content": "a"}))
    script = Script(chunked(role, delta, delta, {"usage": {"completion_tokens": 5}}))
    seen: list[float] = []
    answer = asyncio.run(answered(script, "why", 5, system="be short", seen=seen.append))
    assert (len(answer.times), answer.tokens) == (2, 5)
    assert seen == answer.times
    assert script.bodies[0]["stream_options"] == {"include_usage": True}
    assert [one["role"] for one in script.bodies[0]["messages"]] == ["system", "user"]


def test_the_bare_engine_is_asked_with_a_rendered_prompt_for_as_many_tokens(tmp_path: Path) -> None:
    script = Script(chunked({"content": "a"}, {"content": "", "stop": True, "tokens_predicted": 7}))
    answer = asyncio.run(answered_bare(script, tmp_path / "e"))
    assert (len(answer.times), answer.tokens) == (1, 7)
    assert (script.bodies[0]["prompt"], script.bodies[0]["n_predict"]) == ("why", 7)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 429 No\r\n\r\nslow down", chunked({"choices": []})], ids=["429", "empty"]
)
def test_a_refusal_and_an_empty_answer_are_no_measurement(answer: bytes) -> None:
    with pytest.raises(RuntimeError):
        asyncio.run(answered(Script(answer), "why", 1))
