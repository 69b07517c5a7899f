"""Reads the answers of Converse and ConverseStream."""

from collections.abc import Iterator

import msgspec
from msgspec import UNSET, Raw

from penstock.domain.errors import UpstreamError
from penstock.domain.usage import TokenCount, Usage
from penstock.providers.accounts import ABSENT, kept
from penstock.providers.bedrock.failures import Failures
from penstock.providers.bedrock.frames import BrokenFrame, Frames, Message
from penstock.providers.translation.parts import Part
from penstock.providers.translation.proofs import Block, Order
from penstock.providers.wire_out import Call, Delta, Finish, Function, Reasoning

_FINISH: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}


class _ToolUse(msgspec.Struct, rename="camel"):
    name: str = ""
    tool_use_id: str = ""
    type: str = ""  # server_tool_use: the vendor's own tool, no call of ours
    input: Raw = Raw(b"{}")


class _Fragment(msgspec.Struct):
    input: str = ""


class _Thought(msgspec.Struct, frozen=True, rename="camel"):
    text: str = ""
    signature: str = ""
    redacted_content: str = ""


class _Reasoning(msgspec.Struct, rename="camel"):
    reasoning_text: _Thought = _Thought()
    redacted_content: str = ""


class _Block(msgspec.Struct, rename="camel"):
    text: str = ""
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None


class _Delta(msgspec.Struct, rename="camel"):
    text: str = ""
    tool_use: _Fragment | None = None
    reasoning_content: _Thought | None = None


class _Start(msgspec.Struct, rename="camel"):
    tool_use: _ToolUse | None = None


class _Usage(msgspec.Struct, rename="camel"):
    input_tokens: TokenCount | None = None
    output_tokens: TokenCount | None = None
    cache_read_input_tokens: TokenCount | None = None
    cache_write_input_tokens: TokenCount | None = None


class _Event(msgspec.Struct, rename="camel"):
    content_block_index: int = 0
    start: _Start | None = None
    delta: _Delta | None = None
    stop_reason: str = ""
    usage: Raw = Raw()


class _Content(msgspec.Struct):
    content: list[_Block] = []


class _Output(msgspec.Struct):
    message: _Content


class _Answer(msgspec.Struct, rename="camel"):
    output: _Output
    stop_reason: str
    usage: Raw = Raw()


_event = msgspec.json.Decoder(_Event)
_answer = msgspec.json.Decoder(_Answer)
_counts = msgspec.json.Decoder(_Usage)


class Reader:
    """One streamed answer. It is whole once its stop and its usage, which always follows, were seen."""

    def __init__(self, failures: Failures, *, show: bool = True) -> None:
        self.done = False
        self._show = show
        self._failures = failures
        self._frames = Frames()
        self._stopped = self._counted = False
        self._calls: dict[int, int] = {}  # our index of a call by its block's
        self._silent: set[int] = set()  # the blocks of calls whose arguments have not begun
        self._proofs: dict[int, Block] = {}  # length and signature by block
        self._order = Order()

    def feed(self, block: bytes) -> Iterator[Part]:
        """The parts that a block of the body completes."""
        try:
            for message in self._frames.feed(block):
                for part in self._parts(message):
                    yield part if self._show else _discreet(part)
        except BrokenFrame as error:
            raise UpstreamError("upstream_error", "The upstream's stream is broken. Try again.") from error

    def end(self) -> Iterator[Part]:
        """The end of the body adds nothing."""
        return iter(())

    def _parts(self, message: Message) -> Iterator[Part]:
        headers = message.headers
        if headers.get(":message-type") != "event":
            raise self._failures.in_stream(headers, message.payload)
        try:
            event = _event.decode(message.payload)
        except (ValueError, RecursionError) as error:
            raise UpstreamError("upstream_error", "The upstream's stream is not JSON.") from error
        kind = headers.get(":event-type")
        if kind == "contentBlockDelta" and event.delta is not None:
            yield from self._delta(event.content_block_index, event.delta)
        elif kind == "contentBlockStart" and event.start is not None and event.start.tool_use is not None:
            yield from self._call(event.content_block_index, event.start.tool_use)
        elif kind == "contentBlockStop":
            yield from self._ended(event.content_block_index)
        elif kind == "messageStop":
            self._stopped = True
            self.done = self._counted
            for at in sorted(self._silent):
                yield from self._ended(at)
            signature = self._order.packed(list(self._proofs.values()))
            yield from _stop(event.stop_reason, signature, calls=bool(self._calls))
        elif kind == "metadata" and bytes(event.usage) not in ABSENT:
            self._counted = True
            self.done = self._stopped
            yield _account(event.usage)

    def _call(self, at: int, call: _ToolUse) -> Iterator[Part]:
        self._order.spoke()
        if call.type:
            return
        index = self._calls[at] = len(self._calls)
        self._silent.add(at)
        yield Part(0, [_begun(index, call)])

    def _ended(self, at: int) -> Iterator[Part]:
        """A call without arguments comes without fragments, or with empty ones; clients want JSON all the same."""
        if at in self._silent:
            yield self._fragment(at, "{}")

    def _fragment(self, at: int, text: str) -> Part:
        self._silent.discard(at)
        return Part(0, [Delta(tool_calls=[Call(index=self._calls[at], function=Function(arguments=text))])], 1)

    def _delta(self, at: int, delta: _Delta) -> Iterator[Part]:
        if delta.text:
            self._order.spoke()
            yield Part(0, [Delta(content=delta.text)], 1)
        elif delta.tool_use is not None:
            if at in self._calls and delta.tool_use.input:
                yield self._fragment(at, delta.tool_use.input)
        elif (thought := delta.reasoning_content) is not None:
            if at not in self._proofs:
                self._order.thought()
            length, proof = self._proofs.get(at, Block(0, ""))
            if thought.redacted_content:
                self._proofs[at] = Block(-1, proof + thought.redacted_content)
                return
            self._proofs[at] = Block(length + len(thought.text), proof + thought.signature)
            if thought.text:
                yield Part(0, [Delta(reasoning=Reasoning(thinking=thought.text))], 1)


def whole(body: bytes, failures: Failures, *, show: bool = True) -> list[Part]:
    """The parts of a plain answer; without thoughts unless they are to be shown. Raises UpstreamError."""
    try:
        answer = _answer.decode(body)
    except (ValueError, RecursionError) as error:
        raise failures.of(200, {}, body) from error
    deltas: list[Delta] = []
    proofs: list[Block] = []
    order = Order()
    calls = 0
    for block in answer.output.message.content:
        if block.reasoning_content is None:
            order.spoke()
        if block.text:
            deltas.append(Delta(content=block.text))
        elif block.tool_use is not None and not block.tool_use.type:
            call = _begun(calls, block.tool_use)
            arguments = Function(arguments=bytes(block.tool_use.input).decode())
            deltas += [call, Delta(tool_calls=[Call(index=calls, function=arguments)])]
            calls += 1
        elif (thought := block.reasoning_content) is not None:
            order.thought()
            said, hidden = thought.reasoning_text, thought.redacted_content
            proofs.append(Block(-1, hidden) if hidden else Block(len(said.text), said.signature))
            if said.text:
                deltas.append(Delta(reasoning=Reasoning(thinking=said.text)))
    parts = [
        Part(0, deltas, len(deltas)),
        *_stop(answer.stop_reason, order.packed(proofs), calls=calls > 0),
        _account(answer.usage),
    ]
    return parts if show else [_discreet(part) for part in parts]


def _discreet(part: Part) -> Part:
    """The part without thoughts, which count all the same."""
    return part._replace(deltas=[delta for delta in part.deltas if delta.reasoning is UNSET])


def _begun(index: int, call: _ToolUse) -> Delta:
    function = Function(name=call.name, arguments="")
    return Delta(tool_calls=[Call(index=index, id=call.tool_use_id, type="function", function=function)])


def _stop(reason: str, signature: str | None, *, calls: bool) -> Iterator[Part]:
    """The signature of all thoughts, and the finish. A reason that is not known yet is a stop. Whether an answer stops
    for its calls is seen from the calls: models say end_turn beside them, and tool_use without any (2026-11)."""
    if reason.startswith("malformed_"):
        what = reason.removeprefix("malformed_").replace("_", " ")
        raise UpstreamError("upstream_error", f"The upstream's model wrote a malformed {what}. Try again.")
    signed = [] if signature is None else [Delta(reasoning=Reasoning(signature=signature))]
    finish = _FINISH.get(reason, "stop")
    if finish in ("stop", "tool_calls"):
        finish = "tool_calls" if calls else "stop"
    yield Part(0, signed, finish=finish)


def _account(said: Raw) -> Part:
    """In our convention. The vendor's inputTokens are those that were neither read from nor written to the cache (user
    guide, prompt caching, 2026-11). It does not tell thoughts from the rest of the output. A good answer is not thrown
    away for a bad count."""
    try:
        usage = _counts.decode(said)
    except (ValueError, RecursionError):
        return Part(0, [], usage=Usage(estimated=True), raw_usage=kept(said))
    read, write = usage.cache_read_input_tokens or 0, usage.cache_write_input_tokens or 0
    counts = Usage(
        input_tokens=(usage.input_tokens or 0) + read + write,
        output_tokens=usage.output_tokens or 0,
        cached_input_tokens=read,
        cache_write_tokens=write,
        estimated=usage.output_tokens is None or usage.input_tokens is None,
    )
    return Part(0, [], usage=counts, raw_usage=kept(said))
