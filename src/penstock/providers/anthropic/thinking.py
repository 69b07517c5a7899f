"""Thinking: what to ask for, and how many tokens it needs."""

from typing import NamedTuple

from penstock.domain.chat import ChatRequest, Json
from penstock.providers.anthropic.claude import Claude

# Fixed budgets in tokens of the efforts, for models that think by budget; the vendor's least is 1,024.
BUDGETS = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 24_576, "xhigh": 32_768, "max": 32_768}
_LEAST = 1_024
_EFFORTS = {"minimal": "low"}


class Plan(NamedTuple):
    """What a request says of thinking; ``budget`` is 0 unless the model thinks by budget."""

    config: dict[str, Json] | None = None
    effort: str | None = None
    budget: int = 0

    @property
    def on(self) -> bool:
        """Whether the request asks for thinking."""
        return self.config is not None and self.config["type"] in ("enabled", "adaptive")


def plan(chat: ChatRequest, model: Claude, *, resumes: bool) -> Plan:
    """``extended_thinking`` wins over ``reasoning_effort``. ``resumes`` is false in the middle of a tool loop that
    began without thinking: there the vendor refuses to begin it, so a budget is left out until the loop ends."""
    asked, level = chat.extended_thinking, chat.reasoning_effort
    if asked is None and level is None:
        return Plan()
    if not (level != "none" if asked is None else asked.enabled):
        return Plan({"type": model.off}) if model.thinks_unasked and model.off else Plan()
    if model.thinking == "none":
        return Plan()
    budget = asked.budget_tokens if asked else None
    if model.thinking == "budget" or (model.thinking == "both" and budget):
        budget = budget or BUDGETS.get(level or "", BUDGETS["medium"])
        return Plan({"type": "enabled"}, None, budget) if resumes else Plan()
    # 2026-11: models from 4.7 on leave the text of thoughts out unless it is asked for.
    shown = {"display": "summarized"} if asked and asked.include_reasoning else {}
    return Plan({"type": "adaptive", **shown}, _effort(level, budget, model))


def thinking_name(chat: ChatRequest) -> str:
    """The parameter that asks for thinking."""
    return "reasoning_effort" if chat.extended_thinking is None else "extended_thinking"


def _effort(level: str | None, budget: int | None, model: Claude) -> str | None:
    """The vendor's word for how much to think; a budget becomes the least effort whose own budget covers it."""
    if budget is not None:
        return next((name for name in ("low", "medium") if budget <= BUDGETS[name]), "high")
    if level is None or level == "none":
        return None
    return "max" if level == "xhigh" and not model.xhigh else _EFFORTS.get(level, level)


def room(asked: int | None, budget: int, model: Claude) -> tuple[int, int]:
    """``max_tokens`` and the budget as the vendor takes them. A bound that leaves no room beside the budget is raised
    by it, so that it bounds the answer; one above what the model can write is lowered to that."""
    tokens = asked or model.default_output
    if tokens <= budget:
        tokens += budget
    if model.max_output is not None:
        tokens = min(tokens, model.max_output)
    if tokens <= budget:
        budget = max(tokens - _LEAST, _LEAST)
    return tokens, budget
