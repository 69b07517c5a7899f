"""Values within their ranges: what types alone cannot say about a chat request."""

import re
from operator import attrgetter
from typing import Any

from penstock.domain.chat import ChatRequest, Message, NamedToolChoice
from penstock.domain.errors import PenstockError

_BOUNDS: tuple[tuple[str, Any, Any], ...] = (
    ("temperature", 0, 2),
    ("top_p", 0, 1),
    ("top_k", 0, 1_000_000),
    ("min_p", 0, 1),
    ("max_tokens", 1, 10_000_000),
    ("max_completion_tokens", 1, 10_000_000),
    ("n", 1, 128),
    ("seed", -(2**63), 2**63 - 1),
    ("presence_penalty", -2, 2),
    ("frequency_penalty", -2, 2),
    ("top_logprobs", 0, 20),
)
_values = attrgetter(*(name for name, _, _ in _BOUNDS))  # on the hot path: a call per name costs three times as much
_FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
_MAX_TOOLS = 128
_MAX_STOPS = 16


def check_ranges(chat: ChatRequest) -> None:
    """Raise PenstockError 400 for the first value out of range."""
    values: tuple[Any, ...] = _values(chat)
    for at, value in enumerate(values):
        if value is not None:
            _check_bounds(value, *_BOUNDS[at])
    if not chat.messages:
        raise _bad("messages", "must hold at least one message")
    for index, message in enumerate(chat.messages):
        if message.content.__class__ is not str or message.role == "tool":
            _check_message(message, f"messages[{index}]")
    if chat.stop is not None:
        _check_stop(chat.stop)
    if chat.top_logprobs is not None and not chat.logprobs:
        raise _bad("top_logprobs", "needs logprobs: true")
    if chat.stream_options is not None and not chat.stream:
        raise _bad("stream_options", "is only allowed with stream: true")
    if chat.tools is not None or chat.tool_choice is not None:
        _check_tools(chat)
    _check_formats(chat)


def _check_bounds(value: Any, name: str, low: Any, high: Any) -> None:
    if not low <= value <= high:
        raise _bad(name, f"must be between {low} and {high}, got {value}")


def _bad(param: str, what: str, code: str = "invalid_value") -> PenstockError:
    return PenstockError(code, f"Invalid value for '{param}': {what}.", param=param)


def _check_message(message: Message, where: str) -> None:
    content = message.content
    if isinstance(content, list):
        _check_parts(content, f"{where}.content")
    elif content is None and not (message.role == "assistant" and _has_calls(message)):
        raise PenstockError(
            "missing_parameter", f"Missing required parameter: '{where}.content'.", param=f"{where}.content"
        )
    if message.role == "tool" and not message.tool_call_id:
        param = f"{where}.tool_call_id"
        raise PenstockError("missing_parameter", f"Missing required parameter: '{param}' (role tool).", param=param)


def _has_calls(message: Message) -> bool:
    return bool(message.tool_calls or message.function_call or message.refusal)


def _check_parts(parts: list[dict[str, Any]], where: str) -> None:
    if not parts:
        raise _bad(where, "must hold at least one part")
    for index, part in enumerate(parts):
        kind = part.get("type")
        if not isinstance(kind, str):
            raise _bad(f"{where}[{index}].type", "must be a string such as text")
        if kind == "text" and not isinstance(part.get("text"), str):
            raise _bad(f"{where}[{index}].text", "must be a string", "invalid_type")


def _check_stop(stop: str | list[str]) -> None:
    stops = [stop] if isinstance(stop, str) else stop
    if len(stops) > _MAX_STOPS:
        raise _bad("stop", f"must hold at most {_MAX_STOPS} strings, got {len(stops)}")
    if any(not text for text in stops):
        raise _bad("stop", "must not hold an empty string")


def _check_tools(chat: ChatRequest) -> None:
    tools = chat.tools or []
    if len(tools) > _MAX_TOOLS:
        raise _bad("tools", f"must hold at most {_MAX_TOOLS} tools, got {len(tools)}")
    names = [tool.function.name for tool in tools]
    for index, name in enumerate(names):
        where = f"tools[{index}].function.name"
        if not _FUNCTION_NAME.match(name):
            raise _bad(where, "must be 1 to 64 letters, digits, underscores or dashes")
        if name in names[:index]:
            raise _bad(where, f"'{name}' is already taken by another tool")
    choice = chat.tool_choice
    if choice in (None, "none", "auto"):
        return
    if not tools:
        raise _bad("tool_choice", "needs tools")
    if isinstance(choice, NamedToolChoice) and choice.function.name not in names:
        raise _bad("tool_choice.function.name", f"no tool is named '{choice.function.name[:64]}'")


def _check_formats(chat: ChatRequest) -> None:
    wanted = chat.response_format
    if (
        wanted is not None
        and wanted.type == "json_schema"
        and (wanted.json_schema is None or wanted.json_schema.schema is None)
    ):
        param = "response_format.json_schema.schema"
        raise PenstockError("missing_parameter", f"Missing required parameter: '{param}'.", param=param)
    if chat.reasoning_effort is not None and chat.reasoning_effort not in _EFFORTS:
        raise _bad("reasoning_effort", f"must be one of {', '.join(_EFFORTS)}")
    thinking = chat.extended_thinking
    if thinking is not None and thinking.budget_tokens is not None and thinking.budget_tokens < 1024:
        raise _bad("extended_thinking.budget_tokens", f"must be at least 1024, got {thinking.budget_tokens}")
    for token, bias in (chat.logit_bias or {}).items():
        if not token.isdigit() or not -100 <= bias <= 100:
            raise _bad("logit_bias", "must map token ids to numbers between -100 and 100")
