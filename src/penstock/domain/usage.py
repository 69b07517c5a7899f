"""Token counts of one answer, normalised."""

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens counted, in one convention for all vendors.

    ``input_tokens`` holds all of the prompt, ``cached_input_tokens`` and ``cache_write_tokens`` are parts of it;
    ``output_tokens`` holds all that was generated, ``reasoning_tokens`` is a part of it. ``estimated`` is true when the
    upstream did not say how many were generated and the deltas were counted instead.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
