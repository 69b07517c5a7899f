"""Reads the counts of tokens as servers of the OpenAI dialect write them."""

import msgspec

from penstock.domain.usage import Usage
from penstock.providers.accounts import ABSENT, kept
from penstock.providers.openai.answers import Account, CompletionDetails, PromptDetails

_decoder = msgspec.json.Decoder(Account)
_NO_PROMPT, _NO_COMPLETION = PromptDetails(), CompletionDetails()


def account(*said: msgspec.Raw) -> tuple[Usage | None, bytes | None]:
    """The meter's counts, and the account that they come from: the first that can be read of those that were given,
    else no counts, and the first that is there."""
    raw: bytes | None = None
    for one in said:
        if (usage := read_usage(one)) is not None:
            return usage, kept(one)
        raw = raw or kept(one)
    return None, raw


def read_usage(raw: msgspec.Raw) -> Usage | None:
    """The meter's counts from ``usage`` as the dialect writes it; None when it is absent or makes no sense.

    A good answer is not thrown away for a bad count: the meter then estimates, and says so. It counts the deltas of an
    account without the completion.
    """
    if bytes(raw) in ABSENT:
        return None
    try:
        wire = _decoder.decode(raw)
    except (ValueError, RecursionError):
        return None
    prompt, completion = wire.prompt_tokens_details or _NO_PROMPT, wire.completion_tokens_details or _NO_COMPLETION
    output = wire.completion_tokens or 0
    thought = completion.reasoning_tokens or 0
    # xAI counts thoughts beside the completion and in the total (2026-11); all others count them in the completion.
    if thought and wire.total_tokens == wire.prompt_tokens + output + thought:
        output += thought
    cached = prompt.cached_tokens or wire.prompt_cache_hit_tokens or wire.cached_tokens or 0
    return Usage(
        input_tokens=wire.prompt_tokens,
        output_tokens=output,
        cached_input_tokens=cached,
        cache_write_tokens=prompt.cache_write_tokens or 0,
        reasoning_tokens=thought,
        estimated=wire.completion_tokens is None,
    )
