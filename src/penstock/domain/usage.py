"""Token counts of one answer, normalised."""

from typing import Annotated

import msgspec

# No model reads or writes so much for one answer: a count beyond it is no count.
MAX_TOKENS = 100_000_000
TokenCount = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]


class Usage(msgspec.Struct, frozen=True, gc=False, kw_only=True):
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
    """The same with no part larger than its whole, and no count below nothing or above MAX_TOKENS: what is too much is
    cut, writes to a cache before reads from it, and the counts are marked as estimated."""
    entry, output = usage.input_tokens, usage.output_tokens
    read, written, thought = usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens
    fits = read + written <= entry <= MAX_TOKENS and thought <= output <= MAX_TOKENS
    if fits and read >= 0 and written >= 0 and thought >= 0:
        return usage
    entry, output = _within(entry, MAX_TOKENS), _within(output, MAX_TOKENS)
    read = _within(read, entry)
    return Usage(
        input_tokens=entry,
        output_tokens=output,
        cached_input_tokens=read,
        cache_write_tokens=_within(written, entry - read),
        reasoning_tokens=_within(thought, output),
        estimated=True,
    )


def _within(count: int, most: int) -> int:
    return min(max(count, 0), most)
