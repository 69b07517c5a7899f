"""What becomes of each parameter, and which values one model of the vendor cannot honour though another can."""

from collections.abc import Iterator

from penstock.domain.chat import ChatRequest
from penstock.domain.errors import PenstockError
from penstock.providers.anthropic.claude import Claude
from penstock.providers.anthropic.thinking import Plan
from penstock.providers.translation.fields import Field, Fields, FieldTable, Handling

_NO_EFFECT = (
    *("seed", "n", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "logit_bias"),
    *("metadata", "store", "prediction", "prompt_cache_key", "audio", "verbosity"),
)
_SAMPLING = "not by models from 4.7 on, nor with thinking"

FIELDS: FieldTable = dict.fromkeys(_NO_EFFECT, Field(Handling.IGNORED)) | {
    "max_tokens": Field(
        Handling.TRANSLATED,
        "required there: the model's own limit when absent (8,192 before 4.5), lowered to that limit; raised by the "
        "thinking budget when it leaves no room beside it",
    ),
    "max_completion_tokens": Field(Handling.TRANSLATED, "as max_tokens"),
    "temperature": Field(Handling.PASSED, f"0 to 1; {_SAMPLING}; models from 4.1 on take it or top_p"),
    "top_p": Field(Handling.PASSED, f"{_SAMPLING} below 0.95; models from 4.1 on take it or temperature"),
    "top_k": Field(Handling.PASSED, _SAMPLING),
    "min_p": Field(Handling.REFUSED, "the Messages API has no equivalent"),
    "stop": Field(Handling.TRANSLATED, "stop_sequences; not of blanks alone"),
    "stream_options": Field(Handling.TRANSLATED, "the usage chunk is ours"),
    "response_format": Field(
        Handling.TRANSLATED,
        "json_schema as output_config.format, every object closed and keywords that the vendor refuses moved to the "
        "description, by models from 4.5 (Opus 4.1) on; json_object is refused",
    ),
    "tools": Field(Handling.TRANSLATED, "strict only by models from 4.5 (Opus 4.1) on"),
    "tool_choice": Field(
        Handling.TRANSLATED, "forced choices not with a thinking budget, nor by models from 5.1 on but Haiku"
    ),
    "parallel_tool_calls": Field(Handling.TRANSLATED, "disable_parallel_tool_use"),
    "reasoning_effort": Field(
        Handling.TRANSLATED,
        "before 4.6 a budget: minimal 1,024, low 2,048, medium 8,192, high 24,576, xhigh 32,768 tokens; from 4.6 on "
        "adaptive thinking with that effort",
    ),
    "extended_thinking": Field(
        Handling.TRANSLATED,
        "thinking, by models from 3.7 on; without a budget that of medium; from 4.7 on a budget becomes an effort; "
        "left out in a tool loop that began without it",
    ),
    "modalities": Field(Handling.REFUSED, "text only"),
    "user": Field(Handling.TRANSLATED, "metadata.user_id"),
    "service_tier": Field(Handling.TRANSLATED, "auto, and default as standard_only; others are ignored"),
    "safety_identifier": Field(Handling.TRANSLATED, "metadata.user_id, when user is absent"),
}
TIERS = {"auto": "auto", "default": "standard_only"}
_FIELDS = Fields("anthropic", FIELDS)

check = _FIELDS.check


def stops(chat: ChatRequest) -> list[str]:
    """The stop sequences that Claude takes: those that are more than blanks (2026-11)."""
    return [text for text in _stops(chat) if text.strip()]


def _stops(chat: ChatRequest) -> list[str]:
    return [chat.stop] if isinstance(chat.stop, str) else chat.stop or []


def ignored(chat: ChatRequest, model: Claude, plan: Plan) -> tuple[str, ...]:
    """The parameters that are asked for and have no effect."""
    names = _FIELDS.ignored(chat)
    if chat.service_tier is not None and chat.service_tier not in TIERS:
        names += ("service_tier",)
    if not chat.allow_ignored_params:
        return names
    return names + tuple(name for name, _ in beyond(chat, model, plan))


def settle(chat: ChatRequest, model: Claude, plan: Plan, *, named: tuple[str, ...]) -> frozenset[str]:
    """What is left out because this model cannot honour it. Raises PenstockError for the first that is not ``named``:
    what is left out is shown to a client that lets parameters be ignored."""
    left_out: set[str] = set()
    for name, why in beyond(chat, model, plan):
        if name not in named:
            raise PenstockError("unsupported_parameter", f"'{name}': {why}.", param=name)
        left_out.add(name)
    return frozenset(left_out)


def beyond(chat: ChatRequest, model: Claude, plan: Plan) -> Iterator[tuple[str, str]]:
    """What this model cannot honour, and why."""
    yield from _beyond_thinking(chat, model)
    yield from _beyond_sampling(chat, model, plan)
    if any(text.isspace() for text in _stops(chat)):
        yield "stop", "the target of this model takes no stop sequence of nothing but blanks"
    if chat.tools and chat.tool_choice not in (None, "auto", "none"):
        if plan.budget:
            yield "tool_choice", "the model cannot be made to call a tool while it thinks; send 'auto'"
        elif not model.forces_tools:
            yield "tool_choice", "the target of this model cannot be made to call a tool; send 'auto'"
    kind = chat.response_format.type if chat.response_format else "text"
    if kind == "json_object":
        yield "response_format", "the target of this model has no json_object; use json_schema"
    elif kind == "json_schema" and not model.structured:
        yield "response_format", "the target of this model has no structured output"


def _beyond_thinking(chat: ChatRequest, model: Claude) -> Iterator[tuple[str, str]]:
    asked, level = chat.extended_thinking, chat.reasoning_effort
    if model.thinking == "none":
        if asked is not None and asked.enabled:
            yield "extended_thinking", "the target of this model does not think"
        if level not in (None, "none"):
            yield "reasoning_effort", "the target of this model does not think"
    elif level == "none" and asked is None and model.off is None:
        yield "reasoning_effort", "the target of this model always thinks; send 'low'"


def _beyond_sampling(chat: ChatRequest, model: Claude, plan: Plan) -> Iterator[tuple[str, str]]:
    """The values that a model takes for itself, temperature and top_p of 1, are never sent and always fine."""
    hot, nucleus = chat.temperature not in (None, 1), chat.top_p not in (None, 1)
    if not model.samples or plan.on:
        why = "thinking" if model.samples else "the target of this model"
        if hot:
            yield "temperature", f"{why} allows no temperature but 1; leave it out"
        if chat.top_k is not None:
            yield "top_k", f"{why} does not allow it; leave it out"
        if nucleus and not (model.samples and (chat.top_p or 0) >= 0.95):
            yield "top_p", f"{why} does not allow it; leave it out"
    elif hot and nucleus and model.one_sampler:
        yield "top_p", "the target of this model takes temperature or top_p, not both; leave one out"
