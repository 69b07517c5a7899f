"""Answers as our clients read them: OpenAI's shapes with Heroku's fields (heroku-wire.md 2.1, 2.8)."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from penstock.domain.catalogue import Catalogue
from penstock.domain.chat import BoundRequest, Json
from penstock.domain.platform import STANDARD_PLAN
from penstock.domain.usage import Usage, consistent

Finish = Literal["stop", "length", "tool_calls", "content_filter"]
DONE = b"data: [DONE]\n\n"


class Function(msgspec.Struct, omit_defaults=True):
    """A call's function; a streamed fragment has no name."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class Call(msgspec.Struct, omit_defaults=True):
    """A tool call, or a fragment of one; only streamed ones have an index."""

    index: int | UnsetType = UNSET
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: Function | UnsetType = UNSET


class Reasoning(msgspec.Struct, omit_defaults=True):
    """What the model thought, or a fragment of it (heroku-wire.md 2.1). ``signature`` proves it to its vendor when a
    client sends the message back."""

    thinking: str | UnsetType = UNSET
    signature: str | UnsetType = UNSET


class Delta(msgspec.Struct, omit_defaults=True):
    """What a chunk adds to its choice."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning: Reasoning | UnsetType = UNSET
    tool_calls: list[Call] | UnsetType = UNSET


class AnswerMessage(msgspec.Struct, omit_defaults=True):
    """The message of a plain answer. ``refusal`` is always there, ``tool_calls`` only when there are any."""

    role: str
    content: str | None
    refusal: None
    reasoning: Reasoning | UnsetType = UNSET
    tool_calls: list[Call] | UnsetType = UNSET


class Choice(msgspec.Struct, omit_defaults=True):
    """One choice of a plain answer."""

    index: int
    message: AnswerMessage
    logprobs: Json | UnsetType = UNSET
    finish_reason: Finish | UnsetType = UNSET


class _PromptDetails(msgspec.Struct, omit_defaults=True):
    cached_tokens: int
    cache_write_tokens: int = 0


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int


class _Usage(msgspec.Struct, omit_defaults=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _PromptDetails
    completion_tokens_details: _CompletionDetails | UnsetType = UNSET


class _Answer(msgspec.Struct):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: _Usage


class _ChunkChoice(msgspec.Struct, omit_defaults=True):
    index: int
    delta: Delta
    logprobs: Json | UnsetType = UNSET
    finish_reason: Finish | UnsetType | None = UNSET


class _Chunk(msgspec.Struct, omit_defaults=True):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[_ChunkChoice]
    usage: _Usage | UnsetType | None = UNSET


_ENCODER = msgspec.json.Encoder()


class ChatWriter:
    """Writes the frames of one answer under the identity that the gateway gave it."""

    def __init__(self, request: BoundRequest) -> None:
        self._head = (request.completion_id, "chat.completion.chunk", request.created, request.chat.model)
        self._fingerprint = request.fingerprint
        # OpenAI sends "usage": null in every other chunk when usage was asked for (API reference, stream_options).
        self._no_usage: UnsetType | None = None if request.chat.wants_usage_chunk else UNSET

    def delta(self, index: int, delta: Delta, *, logprobs: Json | UnsetType = UNSET) -> bytes:
        """One SSE event with a delta; finish_reason is null."""
        return self._event([_ChunkChoice(index, delta, logprobs, None)], self._no_usage)

    def finish(self, index: int, reason: Finish) -> bytes:
        """The last SSE event of a choice: an empty delta and the reason."""
        return self._event([_ChunkChoice(index, Delta(), UNSET, reason)], self._no_usage)

    def usage(self, usage: Usage) -> bytes:
        """The SSE event that carries the usage and no choice."""
        return self._event([], _wire_usage(usage))

    def answer(self, choices: list[Choice], usage: Usage) -> bytes:
        """The whole JSON body of a plain answer."""
        identity, _, created, model = self._head
        answer = _Answer(identity, "chat.completion", created, model, self._fingerprint, choices, _wire_usage(usage))
        return _ENCODER.encode(answer)

    def _event(self, choices: list[_ChunkChoice], usage: _Usage | UnsetType | None) -> bytes:
        identity, kind, created, model = self._head
        chunk = _Chunk(identity, kind, created, model, self._fingerprint, choices, usage)
        return b"data: %b\n\n" % _ENCODER.encode(chunk)


def available_models(catalogue: Catalogue) -> list[dict[str, Any]]:
    """GET /available-models of both planes, a bare array: what is served, and first the default model by the standard
    plan's name, because the AI plugin 1.1.0 looks that up in this list (heroku-wire.md 4.5)."""
    listed = [(model.id, model) for model in catalogue.served]
    if catalogue.default is not None and catalogue.find(STANDARD_PLAN) is None:
        listed.insert(0, (STANDARD_PLAN, catalogue.default))
    return [{"model_id": id_, "type": list(model.type), "regions": list(model.regions)} for id_, model in listed]


def _wire_usage(usage: Usage) -> _Usage:
    usage = consistent(usage)
    total = usage.input_tokens + usage.output_tokens
    return _Usage(
        usage.input_tokens,
        usage.output_tokens,
        total,
        _PromptDetails(usage.cached_input_tokens, usage.cache_write_tokens),
        _CompletionDetails(usage.reasoning_tokens) if usage.reasoning_tokens else UNSET,
    )
