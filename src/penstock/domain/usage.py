"""Token counts of one answer, normalised."""

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens counted, in one convention for all vendors.

    ``input_tokens`` holds all of the prompt, ``cached_input_tokens`` and ``cache_write_tokens`` are parts of it;
    ``output_tokens`` holds all that was generated, ``reasoning_tokens`` is a part of it. ``estimated`` is true when not
    all of it is the upstream's own account: it did not say how many were generated and the deltas were counted, it did
    not say how long the prompt is, or its parts were larger than their whole.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False


def consistent(usage: Usage) -> Usage:
    """The same with no part larger than its whole: what is too much is cut, writes to a cache before reads from it, and
    the counts are marked as estimated. Nothing is ever charged for less than no tokens."""
    read, written = usage.cached_input_tokens, usage.cache_write_tokens
    if read + written <= usage.input_tokens and usage.reasoning_tokens <= usage.output_tokens:
        return usage
    read = min(read, usage.input_tokens)
    return msgspec.structs.replace(
        usage,
        cached_input_tokens=read,
        cache_write_tokens=min(written, usage.input_tokens - read),
        reasoning_tokens=min(usage.reasoning_tokens, usage.output_tokens),
        estimated=True,
    )
