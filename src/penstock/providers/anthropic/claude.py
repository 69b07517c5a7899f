"""What each generation of Claude takes, as data: limits, kinds of thinking, and what the vendor answers with a 400.

Vendor facts of 2026-11: platform.claude.com, "Troubleshooting thinking", "Models overview", the migration guides.
"""

import re
from functools import lru_cache
from typing import Literal, NamedTuple

# Both spellings circulate: claude-3-7-sonnet-20250219 and claude-opus-4-8; a date is no minor version.
_ID = re.compile(r"claude-(?:([a-z]+)-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)(?:-([a-z]+))?")


class Claude(NamedTuple):
    """What one model takes. Tokens are output tokens; ``thinking`` says how it is asked for: with a ``budget``, as
    ``adaptive`` with an effort, or ``both``. ``off`` is the word that turns off thinking that is on by itself."""

    max_output: int | None = None
    default_output: int = 8_192
    thinking: Literal["none", "budget", "both", "adaptive"] = "adaptive"
    thinks_unasked: bool = False
    off: Literal["disabled", "between_tools"] | None = "disabled"
    samples: bool = True
    one_sampler: bool = False
    forces_tools: bool = True
    structured: bool = True
    xhigh: bool = True


@lru_cache(maxsize=256)
def claude(model: str) -> Claude:
    """The facts of the model of that id. An id of no known form is taken for a new model whose vendor will say what it
    does not take, or, where it is no Claude at all, for a server that thinks by a budget."""
    found = _ID.search(model.lower())
    if found is None:
        return Claude() if "claude" in model.lower() else Claude(thinking="budget")
    family, version = found[1] or found[4] or "", (int(found[2]), int(found[3] or 0))
    limit = _max_output(family, version)
    return Claude(
        max_output=limit,
        # Before 4.5 the prompt and max_tokens together had to fit the window.
        default_output=limit if version >= (4, 5) else min(limit, 8_192),
        thinking=_thinking(version),
        thinks_unasked=version >= (5, 0),
        off=_off(family, version),
        samples=version < (4, 7),
        one_sampler=version >= (4, 1),
        forces_tools=version < (5, 1) or family == "haiku",
        structured=version >= ((4, 1) if family == "opus" else (4, 5)),
        xhigh=version >= (4, 7),
    )


def _max_output(family: str, version: tuple[int, int]) -> int:
    if version >= (4, 6):
        return 128_000
    if (4, 0) <= version <= (4, 1) and family == "opus":
        return 32_000
    if version >= (3, 7):
        return 64_000
    return 8_192 if version >= (3, 5) else 4_096


def _thinking(version: tuple[int, int]) -> Literal["none", "budget", "both", "adaptive"]:
    if version < (3, 7):
        return "none"
    if version < (4, 6):
        return "budget"
    return "both" if version == (4, 6) else "adaptive"


def _off(family: str, version: tuple[int, int]) -> Literal["disabled", "between_tools"] | None:
    if family in ("fable", "mythos") or (family == "opus" and version >= (5, 5)):
        return None
    return "between_tools" if family == "sonnet" and version >= (5, 5) else "disabled"
