"""What every translated answer is made of: parts of choices, written as a stream or folded into one plain answer."""

from collections.abc import Iterable
from typing import NamedTuple

from msgspec import UNSET, UnsetType

from penstock.domain.answer import ChatEvent
from penstock.domain.chat import BoundRequest, Json
from penstock.domain.usage import Usage
from penstock.providers.accounts import BYTES_PER_TOKEN
from penstock.providers.wire_out import (
    DONE,
    AnswerMessage,
    Call,
    ChatWriter,
    Choice,
    Delta,
    Finish,
    Function,
    Reasoning,
)


class Part(NamedTuple):
    """What one event of an upstream adds to a choice: deltas, the tokens behind them (for the meter's estimate), their
    probabilities, the finish reason, the usage known so far (the last one counts) and the upstream's own account of it.
    """

    choice: int
    deltas: list[Delta]
    tokens: int = 0
    logprobs: Json = UNSET
    finish: Finish | None = None
    usage: Usage | None = None
    raw_usage: bytes | None = None


class Frames:
    """Writes the parts of one streamed answer; each choice begins with its role."""

    __slots__ = ("_begun", "_wants_usage", "_writer")

    def __init__(self, request: BoundRequest) -> None:
        self._writer = ChatWriter(request)
        self._begun: set[int] = set()
        self._wants_usage = request.chat.wants_usage_chunk

    def part(self, part: Part) -> bytes:
        """The events of one part; empty when it shows nothing to a client."""
        frames: list[bytes] = []
        if part.choice not in self._begun and (part.deltas or part.finish):
            self._begun.add(part.choice)
            calls = bool(part.deltas) and part.deltas[0].tool_calls is not UNSET
            frames.append(self._writer.delta(part.choice, Delta(role="assistant", content=None if calls else "")))
        for at, delta in enumerate(part.deltas):
            frames.append(self._writer.delta(part.choice, delta, logprobs=part.logprobs if at == 0 else UNSET))
        if part.finish is not None:
            frames.append(self._writer.finish(part.choice, part.finish))
        return b"".join(frames)

    def last(self, usage: Usage) -> bytes:
        """The usage, when it was asked for, and the end of the stream."""
        return (self._writer.usage(usage) if self._wants_usage else b"") + DONE


class Fold:
    """Collects the parts of one choice into the message of a plain answer."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._signature: str | None = None
        self._calls: dict[int, tuple[str, str, list[str]]] = {}
        self._entries: list[Json] = []
        self._has_logprobs = False
        self._finish: Finish = "stop"

    def add(self, part: Part) -> None:
        """Take the next part."""
        for delta in part.deltas:
            self._add_delta(delta)
        if part.logprobs is not UNSET:
            self._has_logprobs = True
            self._entries += part.logprobs["content"]
        if part.finish is not None:
            self._finish = part.finish

    def choice(self, index: int) -> Choice:
        """The choice as it goes to the client; content is null when there is nothing but calls."""
        text = "".join(self._texts)
        calls = [
            Call(id=identity, type="function", function=Function(name=name, arguments="".join(fragments)))
            for identity, name, fragments in self._calls.values()
        ]
        message = AnswerMessage(
            role="assistant",
            content=None if calls and not text else text,
            refusal=None,
            reasoning=self._reasoning(),
            tool_calls=calls or UNSET,
        )
        logprobs = {"content": self._entries, "refusal": None} if self._has_logprobs else UNSET
        return Choice(index, message, logprobs, self._finish)

    @property
    def size(self) -> int:
        """Bytes of text, thoughts and calls."""
        calls = [text for _, name, fragments in self._calls.values() for text in (name, *fragments)]
        return sum(len(text.encode("utf-8", "replace")) for text in (*self._texts, *self._thoughts, *calls))

    def _reasoning(self) -> Reasoning | UnsetType:
        if not self._thoughts and self._signature is None:
            return UNSET
        return Reasoning("".join(self._thoughts), UNSET if self._signature is None else self._signature)

    def _add_delta(self, delta: Delta) -> None:
        if isinstance(delta.content, str):
            self._texts.append(delta.content)
        if isinstance(delta.reasoning, Reasoning):
            self._add_reasoning(delta.reasoning)
        if isinstance(delta.tool_calls, list):
            for call in delta.tool_calls:
                self._add_call(call)

    def _add_reasoning(self, reasoning: Reasoning) -> None:
        if isinstance(reasoning.thinking, str):
            self._thoughts.append(reasoning.thinking)
        if isinstance(reasoning.signature, str):
            self._signature = reasoning.signature

    def _add_call(self, call: Call) -> None:
        """A call begins with its id; its arguments follow under the same index, also between those of other calls."""
        function = call.function if isinstance(call.function, Function) else Function()
        index = call.index if isinstance(call.index, int) else len(self._calls)
        if isinstance(call.id, str):
            self._calls[index] = (call.id, function.name if isinstance(function.name, str) else "", [])
        if isinstance(function.arguments, str):
            self._calls[index][2].append(function.arguments)


def folded(request: BoundRequest, parts: Iterable[Part]) -> ChatEvent:
    """One plain answer from all its parts."""
    folds, tokens, usage, raw = dict[int, Fold](), 0, Usage(estimated=True), None
    for part in parts:
        folds.setdefault(part.choice, Fold()).add(part)
        tokens += part.tokens
        usage, raw = part.usage or usage, part.raw_usage or raw
    if usage.estimated:  # of a plain answer a delta may be all of its text
        tokens = max(tokens, -(-sum(fold.size for fold in folds.values()) // BYTES_PER_TOKEN))
    choices = [folds[index].choice(index) for index in sorted(folds)]
    return ChatEvent(ChatWriter(request).answer(choices, usage), tokens, usage, done=True, raw_usage=raw)
