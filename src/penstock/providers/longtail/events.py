"""The library's answers, which are OpenAI's shapes as Python objects, as our parts."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from penstock.domain.chat import BoundRequest, Json
from penstock.domain.errors import UpstreamError
from penstock.domain.usage import Usage
from penstock.providers.accounts import kept
from penstock.providers.translation.parts import Part
from penstock.providers.wire_out import Call, Delta, Finish, Function, Reasoning

# Ours, and what providers say instead that the library hands through.
_FINISHES: dict[str, Finish] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "model_length"), "length"),
    **dict.fromkeys(("tool_calls", "function_call", "tool_use"), "tool_calls"),
    "content_filter": "content_filter",
}


class Choices:
    """The choices of one answer as they come. A streamed one is whole when every choice has ended and then the
    library's stream did: the library does not tell whether the upstream's own mark came."""

    def __init__(self, request: BoundRequest) -> None:
        self.done = False
        self._finished: set[int] = set()
        self._open = set(range(request.chat.n or 1))
        self._calls: set[tuple[int, int]] = set()
        self._completion_id = request.completion_id

    def whole(self, answer: Any) -> list[Part]:
        """The parts of a plain answer. Raises UpstreamError."""
        parts = list(self._parts(answer, "message"))
        if self._open - self._finished:
            raise UpstreamError("upstream_error", "The upstream sent no whole answer.")
        return parts

    def feed(self, chunk: Any) -> Iterable[Part]:
        """The parts of a streamed chunk. Raises UpstreamError."""
        return self._parts(chunk, "delta")

    def end(self) -> Iterable[Part]:
        """The library's stream has ended."""
        self.done = not self._open - self._finished
        return []

    def _parts(self, answer: Any, said: str) -> Iterator[Part]:
        try:
            for choice in answer.choices or ():
                yield self._part(choice, getattr(choice, said))
            if answer.usage is not None:
                yield Part(0, [], usage=_usage(answer.usage), raw_usage=_raw(answer.usage))
        except (AttributeError, TypeError) as error:
            raise UpstreamError("upstream_error", "The upstream's answer cannot be read.") from error

    def _part(self, choice: Any, said: Any) -> Part:
        self._open.add(choice.index)
        deltas = list(self._deltas(choice.index, said))
        finish = self._finish(choice) if choice.finish_reason else None
        logprobs: Json = choice.logprobs.model_dump() if choice.logprobs and choice.logprobs.content else UNSET
        return Part(choice.index, deltas, len(deltas), logprobs, finish)

    def _deltas(self, choice: int, said: Any) -> Iterator[Delta]:
        if said.reasoning is not None and said.reasoning.content:
            yield Delta(reasoning=Reasoning(thinking=said.reasoning.content))
        if said.content:
            yield Delta(content=said.content)
        for at, call in enumerate(said.tool_calls or ()):
            number, function = getattr(call, "index", at), call.function
            if (choice, number) not in self._calls:
                self._calls.add((choice, number))
                identity = call.id or f"call_{self._completion_id[-12:]}_{choice}_{number}"
                yield Delta(tool_calls=[Call(number, identity, "function", Function(function.name or "", ""))])
            if function and function.arguments:
                yield Delta(tool_calls=[Call(number, function=Function(arguments=function.arguments))])

    def _finish(self, choice: Any) -> Finish:
        finish = _FINISHES.get(choice.finish_reason)
        if finish is None:
            reason = str(choice.finish_reason)[:60]
            raise UpstreamError("upstream_error", f"The upstream gave up on its answer ({reason}).")
        self._finished.add(choice.index)
        return finish


def _raw(usage: Any) -> bytes | None:
    """The account as the library hands it on: it reads the provider's, keeps what it does not know, and fills up what
    is not there with nulls, which are taken out again."""
    return kept(msgspec.Raw(msgspec.json.encode(usage.model_dump(mode="json", exclude_none=True))))


def _usage(usage: Any) -> Usage:
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    return Usage(
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        cached_input_tokens=(prompt.cached_tokens if prompt else 0) or 0,
        reasoning_tokens=(completion.reasoning_tokens if completion else 0) or 0,
        estimated=usage.completion_tokens is None,
    )
