"""Token counts of one answer, normalised."""

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens counted. ``estimated`` is true when the upstream gave no usage and the deltas were counted instead."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    estimated: bool = False
