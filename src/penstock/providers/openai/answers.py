"""What servers of the OpenAI dialect answer, as far as anybody here looks into it."""

from typing import Any

import msgspec

from penstock.domain.usage import TokenCount


class PromptDetails(msgspec.Struct):
    """What the prompt's count says of caches."""

    cached_tokens: TokenCount | None = None
    cache_write_tokens: TokenCount | None = None


class CompletionDetails(msgspec.Struct):
    """What the completion's count says of thoughts."""

    reasoning_tokens: TokenCount | None = None


class Account(msgspec.Struct):
    """The ``usage`` of an answer."""

    prompt_tokens: TokenCount
    completion_tokens: TokenCount | None = None
    total_tokens: TokenCount | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    prompt_cache_hit_tokens: TokenCount | None = None  # DeepSeek, 2026-11
    cached_tokens: TokenCount | None = None  # Moonshot, Together, 2026-11


class Answer(msgspec.Struct):
    """A whole answer."""

    choices: msgspec.Raw = msgspec.Raw()  # an empty Raw is an absent field; Raw cannot be part of a union
    usage: msgspec.Raw = msgspec.Raw()


class Groq(msgspec.Struct, frozen=True):
    """Groq's own part of a chunk: the usage of the last one, or why the stream stopped (2026-11)."""

    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class Chunk(msgspec.Struct):
    """One event of a streamed answer."""

    choices: list[msgspec.Raw] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    object: Any = None
    x_groq: Groq | None = None
