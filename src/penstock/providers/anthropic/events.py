"""Reads answers of the Messages API: the events of a stream, the one object of a plain answer, and failures."""

import re
from collections.abc import Iterator, Mapping

import msgspec

from penstock.domain.errors import UpstreamError
from penstock.domain.usage import MAX_TOKENS, Usage
from penstock.providers import faults
from penstock.providers.accounts import ABSENT, merged
from penstock.providers.sse import SseParser
from penstock.providers.translation.parts import Part
from penstock.providers.translation.proofs import Block, Order
from penstock.providers.wire_out import Call, Delta, Finish, Function, Reasoning

# pause_turn ends a turn that wants to be continued, which only the vendor's own tools do (2026-11).
_FINISH: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "refusal": "content_filter",
}


# platform.claude.com, "Claude API errors", 2026-11.
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_TOO_LONG = re.compile(r"prompt is too long|exceeds? (?:the )?(?:model's )?(?:maximum )?context (?:limit|window)")
# Both come as 400 invalid_request_error, and neither is the client's fault.
_UNPAID = re.compile(r"credit balance is too low|reached your specified (?:workspace )?API usage limits", re.IGNORECASE)


class _Details(msgspec.Struct):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: _Details | None = None


class _Piece(msgspec.Struct):
    """A block, or a delta of one or of the message: what a kind does not have is absent."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw()
    partial_json: str = ""
    stop_reason: str | None = None


class _Message(msgspec.Struct):
    type: str = ""
    content: list[_Piece] = []
    stop_reason: str | None = None
    usage: msgspec.Raw = msgspec.Raw()


class _Event(msgspec.Struct):
    """Any event. New kinds may come and are passed over."""

    type: str
    index: int = 0
    delta: _Piece | None = None
    content_block: _Piece | None = None
    message: _Message | None = None
    usage: msgspec.Raw = msgspec.Raw()


_event = msgspec.json.Decoder(_Event)
_message = msgspec.json.Decoder(_Message)
_usage = msgspec.json.Decoder(_Usage)


class _Open:
    """A block of a streamed answer under way. ``call`` is the number of its call, -1 when it is none."""

    __slots__ = ("call", "given", "length", "proof")

    def __init__(self, block: _Piece, call: int) -> None:
        self.call = call
        self.given = _input(block)
        self.length = len(block.thinking)
        self.proof = block.signature


class MessageReader:
    """One streamed answer. ``show`` is whether the client asked to see what the model thinks; ``credential`` is what an
    error must not quote."""

    def __init__(self, *, show: bool, credential: str | None = None) -> None:
        self.done = False
        self._show = show
        self._credential = credential
        self._parser = SseParser()
        self._blocks: dict[int, _Open] = {}
        self._calls = 0
        self._proofs: list[Block] = []
        self._order = Order()
        self._usage = _Usage()
        self._said: bytes | None = None
        self._finish: Finish | None = None

    def feed(self, block: bytes) -> Iterator[Part]:
        """The parts that a block completes, those before a failure first. Raises UpstreamError."""
        try:
            payloads = self._parser.feed(block)
        except ValueError as error:
            raise UpstreamError("upstream_error", f"{error}.") from error
        for payload in payloads:
            if self.done:
                return
            try:
                event = _event.decode(payload)
            except (ValueError, RecursionError) as error:
                raise UpstreamError("upstream_error", "The upstream sent an event that cannot be read.") from error
            if (part := self._part(event, payload)) is not None:
                yield part

    def end(self) -> Iterator[Part]:
        """Nothing: only message_stop ends an answer."""
        return iter(())

    def message(self, message: _Message, reason: str) -> Iterator[Part]:
        """A plain answer: every block begins and ends at once."""
        for index, block in enumerate(message.content):
            yield from filter(None, (self._start(index, block), self._stop(index)))
        yield self._end_of_turn(reason, message.usage)

    def _part(self, event: _Event, payload: bytes) -> Part | None:
        kind = event.type
        if kind == "content_block_delta":
            return self._delta(event.index, event.delta) if event.delta is not None else None
        if kind == "content_block_start":
            return self._start(event.index, event.content_block) if event.content_block is not None else None
        if kind == "content_block_stop":
            return self._stop(event.index)
        if kind == "message_start":
            return self._counted(event.message.usage, estimated=True) if event.message is not None else None
        if kind == "message_delta":
            if self._finish is None and event.delta is not None and event.delta.stop_reason is not None:
                return self._end_of_turn(event.delta.stop_reason, event.usage)
            return self._counted(event.usage, estimated=False)
        if kind == "message_stop":
            if self._finish is None:
                raise UpstreamError("upstream_error", "The upstream ended its answer without a reason.")
            self.done = True
        elif kind == "error":
            raise fault_of(200, {}, faults.read_fault(payload, credential=self._credential))
        return None

    def _start(self, index: int, block: _Piece) -> Part | None:
        if block.type in ("thinking", "redacted_thinking"):
            self._order.thought()
        else:
            self._order.spoke()
        if block.type == "tool_use":
            self._blocks[index] = _Open(block, self._calls)
            self._calls += 1
            return self._shown(Delta(tool_calls=[_call(self._calls - 1, block, "")]))
        if block.type == "text":
            return self._shown(Delta(content=block.text)) if block.text else None
        if block.type == "thinking":
            self._blocks[index] = _Open(block, -1)
            return self._thought(block.thinking)
        if block.type == "redacted_thinking":
            self._proofs.append(Block(-1, block.data))
        return None

    def _delta(self, index: int, delta: _Piece) -> Part | None:
        if delta.text:
            return self._shown(Delta(content=delta.text))
        block = self._blocks.get(index)
        if block is None:
            return None
        if delta.partial_json and block.call >= 0:
            block.given = ""
            return self._shown(_arguments(block.call, delta.partial_json))
        if delta.thinking:
            block.length += len(delta.thinking)
            return self._thought(delta.thinking)
        block.proof += delta.signature
        return None

    def _stop(self, index: int) -> Part | None:
        block = self._blocks.pop(index, None)
        if block is None:
            return None
        if block.call < 0:
            self._proofs.append(Block(block.length, block.proof))
            return None
        # No fragment came: the arguments are what the block began with, an empty object for a call without any.
        return self._shown(_arguments(block.call, block.given)) if block.given else None

    def _end_of_turn(self, reason: str, usage: msgspec.Raw) -> Part:
        # A reason that is newer than this code ends the answer all the same.
        self._finish = _FINISH.get(reason, "tool_calls" if self._calls else "stop")
        counted = self._counted(usage, estimated=False)
        proof = self._order.packed(self._proofs) if self._show else None
        deltas = [Delta(reasoning=Reasoning(signature=proof))] if proof else []
        part = Part(0, deltas, finish=self._finish)
        return part._replace(usage=counted.usage, raw_usage=counted.raw_usage) if counted else part

    def _counted(self, said: msgspec.Raw, *, estimated: bool) -> Part | None:
        """The counts so far. "The token counts shown in the usage field of the message_delta event are cumulative"
        (platform.claude.com, "Streaming messages", 2026-11), and it leaves out or sets to null what message_start has
        said: the vendor's own libraries put what it does say in place of that, and so is the account kept."""
        if bytes(said) in ABSENT:
            return None
        self._said = merged(self._said, said)
        try:
            usage = _usage.decode(said)
        except (ValueError, RecursionError):
            return None  # a good answer is not thrown away for a bad count
        for name in _Usage.__struct_fields__:
            if (value := getattr(usage, name)) is not None:
                setattr(self._usage, name, value)
        estimated = estimated or usage.output_tokens is None
        return Part(0, [], usage=_counts(self._usage, estimated=estimated), raw_usage=self._said or None)

    def _thought(self, text: str) -> Part | None:
        if not text:
            return None
        # Generated and charged also where the client does not see it.
        return Part(0, [Delta(reasoning=Reasoning(thinking=text))] if self._show else [], 1)

    def _shown(self, delta: Delta) -> Part:
        return Part(0, [delta], 1)


def whole(body: bytes, *, show: bool, credential: str | None = None) -> list[Part]:
    """The parts of a plain answer. Raises UpstreamError, also for an error in a 200."""
    try:
        message = _message.decode(body)
    except (ValueError, RecursionError) as error:
        raise UpstreamError("upstream_error", "The upstream's answer cannot be read.") from error
    if message.type == "error":
        raise fault_of(200, {}, faults.read_fault(body, credential=credential))
    if message.type != "message" or message.stop_reason is None:
        raise UpstreamError("upstream_error", "The upstream sent no answer.")
    reader = MessageReader(show=show, credential=credential)
    return list(reader.message(message, message.stop_reason))


def fault_of(status: int, headers: Mapping[str, str], fault: faults.Fault) -> UpstreamError:
    """The public error; ``status`` is 200 where the failure came without one."""
    if status == 200:
        status = _STATUS.get(fault.type or "", 500)
    said = fault.message or ""
    if status == 400 and _UNPAID.search(said):
        status = 402
    elif status == 400 and _TOO_LONG.search(said):
        fault.code = "context_length_exceeded"
    return faults.from_status(status, headers, fault)


def _call(number: int, block: _Piece, arguments: str) -> Call:
    function = Function(name=block.name, arguments=arguments)
    return Call(index=number, id=block.id, type="function", function=function)


def _input(block: _Piece) -> str:
    given = bytes(block.input)
    return "{}" if given in (b"", b"null") else given.decode()


def _arguments(number: int, fragment: str) -> Delta:
    return Delta(tool_calls=[Call(index=number, function=Function(arguments=fragment))])


def _counts(usage: _Usage, *, estimated: bool) -> Usage:
    read, written = _count(usage.cache_read_input_tokens), _count(usage.cache_creation_input_tokens)
    return Usage(
        input_tokens=_count(usage.input_tokens) + read + written,
        output_tokens=_count(usage.output_tokens),
        cached_input_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=_count((usage.output_tokens_details or _Details()).thinking_tokens),
        estimated=estimated,
    )


def _count(said: int | None) -> int:
    """A good answer is not thrown away for a bad count."""
    return min(max(said or 0, 0), MAX_TOKENS)
