"""Chat messages as role and text, the only form that every chat template renders.

Many templates, SmolLM2's among them, silently drop tool calls and tool results (2026-11), so both become text here.
"""

from operator import itemgetter

import msgspec

from penstock.domain.chat import ChatRequest, Json, Message, Tool
from penstock.domain.errors import PenstockError

CALL_OPEN = "<tool_call>"
CALL_CLOSE = "</tool_call>"


def rendered(chat: ChatRequest, tools: list[Tool]) -> list[dict[str, str]]:
    """The request's messages for the template, the tools described in the system message.

    Raises PenstockError unsupported_parameter for parts that are not text.
    """
    messages: list[dict[str, str]] = []
    calls: dict[str, tuple[int, str]] = {}  # of the last answer: place and name by id
    results: list[tuple[int, dict[str, str]]] = []
    for at, message in enumerate(chat.messages):
        if message.role == "tool":
            place, name = calls.get(message.tool_call_id or "", (len(calls), message.name or ""))
            results.append((place, _result(name, _text(message.content, at))))
            continue
        messages += _in_order(results)
        results = []
        if message.role == "assistant":
            made = message.tool_calls or ()
            calls = {call.id: (number, call.function.name) for number, call in enumerate(made)}
        messages.append(_message(message, at))
    messages += _in_order(results)
    if tools:
        if messages[0]["role"] == "system":
            messages[0]["content"] += "\n\n" + _described(tools)
        else:
            messages.insert(0, {"role": "system", "content": _described(tools)})
    return messages


def _in_order(results: list[tuple[int, dict[str, str]]]) -> list[dict[str, str]]:
    """Results in the order of their calls, whatever came first: text holds no ids to tell them apart by."""
    return [result for _, result in sorted(results, key=itemgetter(0))]


def _result(name: str, text: str) -> dict[str, str]:
    named = f"{name}: {text}" if name else text
    return {"role": "user", "content": f"<tool_response>\n{named}\n</tool_response>"}


def _message(message: Message, at: int) -> dict[str, str]:
    text = _text(message.refusal if message.content is None else message.content, at)
    if message.role == "assistant" and message.tool_calls:
        calls = "\n".join(_call(call.function.name, call.function.arguments) for call in message.tool_calls)
        return {"role": "assistant", "content": f"{text}\n{calls}" if text else calls}
    return {"role": "system" if message.role == "developer" else message.role, "content": text}


def _text(content: str | list[dict[str, Json]] | None, at: int) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for position, part in enumerate(content):
        kind = part.get("type")
        text = part.get("refusal" if kind == "refusal" else "text")
        if kind not in ("text", "refusal") or not isinstance(text, str):
            raise PenstockError(
                "unsupported_parameter",
                f"This model reads text only; the part of type '{str(kind)[:40]}' cannot be used.",
                param=f"messages[{at}].content[{position}]",
            )
        texts.append(text)
    return "\n".join(texts)


def _call(name: str, arguments: str) -> str:
    return f'{CALL_OPEN}{{"name":{msgspec.json.encode(name).decode()},"arguments":{arguments or "{}"}}}{CALL_CLOSE}'


def _described(tools: list[Tool]) -> str:
    lines = [msgspec.json.encode(tool.function).decode() for tool in tools]
    return (
        "You may call these functions, one per line, with their parameters as JSON Schema:\n"
        + "\n".join(lines)
        + f'\nTo call one, write {CALL_OPEN}{{"name":"NAME","arguments":{{...}}}}{CALL_CLOSE} and nothing else. '
        "Otherwise answer in plain text."
    )
