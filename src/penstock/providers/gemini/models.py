"""What differs between generations of Gemini models, as data: how thinking is asked for and what tools can do."""

from penstock.domain.chat import ChatRequest, Json

# 2026-11-23, ai.google.dev/gemini-api/docs/thinking: up to 2.5 a budget in tokens, since Gemini 3 a level, never both.
_BUDGETED = ("gemini-1", "gemini-2", "gemma", "learnlm")
# Function calling mode VALIDATED came with 2.5.
_LOOSE = ("gemini-1", "gemini-2.0", "gemma", "learnlm")
_LEVELS = ("MINIMAL", "LOW", "MEDIUM", "HIGH")
# The levels of models that have not all of them (2026-11-23, the same page).
_FEWER_LEVELS = (
    ("gemini-3-pro", ("LOW", "HIGH")),
    *((name, _LEVELS[1:]) for name in ("gemini-3.1-pro", "gemini-3.7-flash", "gemini-3.8-flash")),
    *((name, _LEVELS[1:]) for name in ("gemini-4-argon", "gemini-4-carbon")),
)
# The budgets behind the efforts are those of Google's own OpenAI-compatible endpoint (2026-11-23, its documentation).
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576}
_EFFORT_LEVELS = {"none": "MINIMAL", "minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM"}
# The least and most that a model takes (2026-11-23, the same page); 2.5 Pro cannot stop thinking.
_PRO, _PRO_BUDGETS, _OTHER_BUDGETS = "gemini-2.5-pro", (128, 32_768), (0, 24_576)
_DYNAMIC_BUDGET = -1


def is_budgeted(model: str) -> bool:
    """Whether the model is from before Gemini 3: it thinks by budget, and does not check the signatures of calls."""
    return _bare(model).startswith(_BUDGETED)


def validates_calls(model: str) -> bool:
    """Whether the model can be held to the schemas of its tools."""
    return not _bare(model).startswith(_LOOSE)


def thinking(model: str, chat: ChatRequest) -> dict[str, Json] | None:
    """``thinkingConfig`` for what the request asks; None leaves the model to its default."""
    extended, effort = chat.extended_thinking, chat.reasoning_effort
    if extended is not None and not extended.enabled:
        if not validates_calls(model):  # it is from before 2.5, and does not think
            return None
        extended, effort = None, "none"
    budget = extended.budget_tokens if extended else None
    config: dict[str, Json] = {"includeThoughts": True} if extended and extended.include_reasoning else {}
    if is_budgeted(model):
        if budget is None and effort is not None:
            budget = _BUDGETS[effort]
        if budget is not None:
            least, most = _PRO_BUDGETS if _bare(model).startswith(_PRO) else _OTHER_BUDGETS
            config["thinkingBudget"] = min(max(budget, least), most)
        elif extended:
            config["thinkingBudget"] = _DYNAMIC_BUDGET
    elif budget is not None or effort is not None:
        config["thinkingLevel"] = _level(model, _wanted(budget, effort))
    return config or None


def _wanted(budget: int | None, effort: str | None) -> str:
    if budget is not None:
        effort = next((name for name in ("low", "medium") if budget <= _BUDGETS[name]), "high")
    return _EFFORT_LEVELS.get(effort or "", "HIGH")


def _level(model: str, wanted: str) -> str:
    """The least level of the model that is not below the wanted one."""
    levels = next((levels for name, levels in _FEWER_LEVELS if _bare(model).startswith(name)), _LEVELS)
    return next(level for level in levels if _LEVELS.index(level) >= _LEVELS.index(wanted))


def _bare(model: str) -> str:
    return model.rpartition("/")[2]
