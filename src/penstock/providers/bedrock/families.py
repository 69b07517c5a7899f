"""What each family of models takes through Converse, as data: first match of the model id or ARN wins.

Facts of 2026-11 from the user guide's pages on prompt caching, adaptive thinking and structured output, the service
model of botocore 1.44 and the model cards; an application inference profile's ARN names no family and gets OTHER.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from penstock.domain.chat import Json

Extra = Mapping[str, Json]  # what goes into additionalModelRequestFields


class Family(NamedTuple):
    """``cache``: where cache points may stand. ``thinking``: by a budget, adaptively, or both ways; other families have
    only ``efforts``, each with its own fields. ``top_k`` is the place of that field; ``schemas``: structured output and
    strict tools; ``native_choice``: takes the vendor's own tool_choice beside Converse's, which says less;
    ``unbounded``: the efforts beside which the vendor takes no bound on tokens or sampling."""

    cache: tuple[Literal["system", "tools"], ...] = ()
    thinking: Literal["budget", "both", "adaptive"] | None = None
    efforts: Mapping[str, Extra] = {}
    samples: bool = True
    top_k: tuple[str, ...] = ()
    schemas: bool = False
    native_choice: bool = False
    unbounded: tuple[str, ...] = ()


def _levels(field: str, minimal: str, low: str, medium: str, high: str) -> dict[str, Extra]:
    names = {"minimal": minimal, "low": low, "medium": medium, "high": high, "xhigh": high}
    return {name: {field: value} for name, value in names.items()}


def _adaptive(xhigh: str, off: str | None = None) -> dict[str, Extra]:
    words = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": xhigh}
    efforts: dict[str, Extra] = {name: {"output_config": {"effort": word}} for name, word in words.items()}
    return efforts | ({"none": {"thinking": {"type": off}}} if off else {})


OTHER = Family()
_CLAUDE_3 = Family(top_k=("top_k",), native_choice=True)
_CACHED = _CLAUDE_3._replace(cache=("system", "tools"))
_BUDGET = _CACHED._replace(thinking="budget")
_BOTH = _BUDGET._replace(thinking="both", efforts=_adaptive("max"), schemas=True)
_NEW = _BOTH._replace(thinking="adaptive", efforts=_adaptive("xhigh"), samples=False, top_k=())
_NOVA = Family(cache=("system",), top_k=("inferenceConfig", "topK"))
_NOVA_2 = {
    name: {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": word}}
    for name, word in (("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "high"))
}
_HIGH_ONLY = _levels("reasoning_effort", "high", "high", "high", "high")
_RESPONSES: dict[str, Extra] = {
    name: {"reasoning": {"effort": word}}
    for name, word in (("minimal", "low"), *((word, word) for word in ("low", "medium", "high", "xhigh")))
}
_NONE: dict[str, Extra] = {"none": {"reasoning_effort": "none"}}

_FAMILIES = (
    (r"claude-(v2|instant|3-(haiku|sonnet|opus)|3-5-sonnet-20240620)", _CLAUDE_3),
    (r"claude-3-5", _CACHED),
    (r"claude-(3-7|(sonnet|opus)-4-(20|1\b))", _BUDGET),
    (r"claude-[a-z]+-4-5", _BUDGET._replace(schemas=True)),
    (r"claude-[a-z]+-4-6", _BOTH),
    # These cannot be kept from thinking; for the others of 5 and later it is on unless turned off.
    (r"claude-fable", _NEW._replace(schemas=False)),
    (r"claude-([a-z]+-4-|opus-5-5|mythos)", _NEW),
    (r"claude-sonnet-5-5", _NEW._replace(efforts=_adaptive("xhigh", "between_tools"))),
    (r"claude", _NEW._replace(efforts=_adaptive("xhigh", "disabled"))),
    (r"nova-2", _NOVA._replace(efforts=_NOVA_2, unbounded=("high", "xhigh"))),
    (r"nova", _NOVA),
    (r"gpt-oss", Family(efforts=_levels("reasoning_effort", "low", "low", "medium", "high"), schemas=True)),
    (r"qwen3-coder|qwen\.qwen3-vl", Family(schemas=True)),
    (r"qwen3", Family(efforts=_levels("reasoning_config", "low", "low", "high", "high"), schemas=True)),
    (r"openai\.gpt-[5-9]|grok", Family(efforts=_RESPONSES, samples=False)),
    (r"deepseek\.v3\.2", Family(efforts=_HIGH_ONLY | _NONE, schemas=True)),
    (r"glm-4|glm-5(?!\.[3-9])", Family(efforts=_HIGH_ONLY | _NONE, schemas=True)),
    (r"glm", Family(efforts=_levels("reasoning_effort", "low", "low", "medium", "high"), schemas=True)),
    (r"kimi|minimax-m2|deepseek\.v3", Family(schemas=True)),
)


@lru_cache(maxsize=256)
def family_of(model: str) -> Family:
    """The family of a model id, an inference profile or their ARN."""
    return next((family for pattern, family in _FAMILIES if re.search(pattern, model)), OTHER)
