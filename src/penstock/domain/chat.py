"""The chat request as the data plane accepts it, and as an adapter gets it."""

from typing import Any, Literal

import msgspec

from penstock.domain.answer import Produced
from penstock.domain.catalogue import Timeouts

Json = Any


class FunctionCall(msgspec.Struct, frozen=True):
    """Name and JSON text of the arguments of one call."""

    name: str
    arguments: str = "{}"


class ToolCall(msgspec.Struct, frozen=True):
    """One call that an assistant message of the history made."""

    function: FunctionCall
    id: str = ""
    type: Literal["function"] = "function"
    index: int | None = None


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One turn. ``content`` is text or a list of typed parts; what stands below ``refusal`` is what SDKs echo back of
    an answer: thoughts as we write them, servers of our own dialect and other gateways. Of those a null counts too."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Json]] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning: Json = msgspec.UNSET
    annotations: Json = None
    audio: Json = None
    function_call: Json = None
    reasoning_content: Json = msgspec.UNSET
    reasoning_details: Json = msgspec.UNSET
    thinking_blocks: Json = msgspec.UNSET
    provider_specific_fields: Json = msgspec.UNSET


class FunctionSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A function tool: ``parameters`` is a JSON Schema of an object."""

    name: str
    description: str | None = None
    parameters: dict[str, Json] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool of type function, the only type that chat completions have."""

    function: FunctionSpec
    type: Literal["function"] = "function"


class NamedFunction(msgspec.Struct, frozen=True):
    """The function that a named tool choice points at."""

    name: str


class NamedToolChoice(msgspec.Struct, frozen=True):
    """``tool_choice`` that forces one function."""

    function: NamedFunction
    type: Literal["function"] = "function"


class JsonSchemaSpec(msgspec.Struct, frozen=True):
    """``response_format.json_schema``."""

    name: str = "response"
    schema: dict[str, Json] | None = None
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """``response_format``: text, any JSON object, or a JSON Schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaSpec | None = None


class StreamOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """``stream_options``."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class ExtendedThinking(msgspec.Struct, frozen=True):
    """Heroku's ``extended_thinking`` (heroku-wire.md 2.1)."""

    enabled: bool = False
    budget_tokens: int | None = None
    include_reasoning: bool = False


class ChatRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """POST /v1/chat/completions, parsed and typed. Ranges are checked by the gateway's wire module."""

    model: str
    messages: list[Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    extended_thinking: ExtendedThinking | None = None
    allow_ignored_params: bool | None = None
    modalities: list[str] | None = None
    user: str | None = None
    metadata: Json = None
    store: bool | None = None
    prediction: Json = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    audio: Json = None
    verbosity: str | None = None

    @property
    def max_output(self) -> int | None:
        """The caller's bound on output tokens; the newer field name wins."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def most_output(self) -> int | None:
        """The larger of the caller's bounds: which one counts is up to the upstream."""
        if self.max_tokens is None:
            return self.max_completion_tokens
        return max(self.max_tokens, self.max_completion_tokens or 0)

    @property
    def shows_reasoning(self) -> bool:
        """Whether the client asked to see what the model thinks (heroku-wire.md 2.1)."""
        return self.extended_thinking is not None and self.extended_thinking.include_reasoning

    @property
    def wants_usage_chunk(self) -> bool:
        """Whether a streamed answer ends with a usage chunk."""
        return self.stream_options is not None and self.stream_options.include_usage


class BoundRequest(msgspec.Struct, frozen=True):
    """A chat request bound to one target: what an adapter gets.

    ``raw`` is the client's body as received (for pass-through), ``target_model`` the upstream's model id,
    ``completion_id`` and ``created`` the identity that the answer carries, ``fingerprint`` the deployment's.
    ``prompt_caching`` is false when the client opted out (heroku-wire.md 2.1); ``isolation`` names the app, for caches
    that must not be shared between apps. ``produced`` is for what an adapter saw of an answer that never began.
    """

    chat: ChatRequest
    raw: bytes
    target_model: str
    completion_id: str
    created: int
    fingerprint: str
    timeouts: Timeouts = Timeouts()
    prompt_caching: bool = True
    isolation: str = ""
    produced: Produced | None = None
