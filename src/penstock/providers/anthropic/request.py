"""A chat request in the words of the Messages API. Pure: a bound request in, the body out."""

from collections.abc import Iterable
from typing import Any

import msgspec

from penstock.domain.chat import BoundRequest, ChatRequest, NamedToolChoice, ResponseFormat, Tool
from penstock.domain.errors import PenstockError
from penstock.providers.anthropic import fields
from penstock.providers.anthropic.claude import Claude, claude
from penstock.providers.anthropic.fields import FIELDS
from penstock.providers.anthropic.thinking import Plan, plan, room, thinking_name
from penstock.providers.translation.proofs import Thinking, unpacked
from penstock.providers.translation.schemas import closed, of_object
from penstock.providers.translation.turns import (
    Called,
    Conversation,
    InlineImage,
    Item,
    LinkedImage,
    Result,
    Text,
    Thought,
    common_format,
    plain_id,
)
from penstock.providers.translation.turns import conversation as conversation_of

__all__ = ["FIELDS", "body", "ignored"]

_CACHED = {"type": "ephemeral"}
_CHOICES = {"auto": "auto", "required": "any", "none": "none"}
_encode = msgspec.json.Encoder().encode

Wire = dict[str, Any]


def body(request: BoundRequest) -> bytes:
    """The body of POST /v1/messages. Raises PenstockError for what it cannot say."""
    chat, model = request.chat, claude(request.target_model)
    fields.check(chat)
    talk = _talk(chat, model)
    wanted = plan(chat, model, resumes=_may_think(talk))
    left_out = fields.settle(chat, model, wanted, named=ignored(request) if chat.allow_ignored_params else ())
    tokens, budget = room(chat.max_output, wanted.budget, model)
    wire: Wire = {"model": request.target_model, "max_tokens": tokens, "messages": _messages(talk)}
    if chat.stream:
        wire["stream"] = True
    if system := _blocks(map(Text, talk.system)):
        wire["system"] = _marked(system, cached=request.prompt_caching)
    if chat.tools:
        wire["tools"] = _marked([_tool(tool, model) for tool in chat.tools], cached=request.prompt_caching)
        if choice := _tool_choice(chat, forced="tool_choice" not in left_out):
            wire["tool_choice"] = choice
    if wanted.config is not None:
        wire["thinking"] = wanted.config | {"budget_tokens": budget} if budget else wanted.config
    wire.update(_sampling(chat, left_out))
    if user := chat.user or chat.safety_identifier:
        wire["metadata"] = {"user_id": user}
    if tier := fields.TIERS.get(chat.service_tier or ""):
        wire["service_tier"] = tier
    if output := _output(None if "response_format" in left_out else chat.response_format, wanted):
        wire["output_config"] = output
    return _encode(wire)


def ignored(request: BoundRequest) -> tuple[str, ...]:
    """The parameters that are asked for and have no effect on this target."""
    chat, model = request.chat, claude(request.target_model)
    wanted = plan(chat, model, resumes=True)
    if not wanted.budget or _may_think(_talk(chat, model)):
        return fields.ignored(chat, model, wanted)
    return (*fields.ignored(chat, model, Plan()), thinking_name(chat))


def _talk(chat: ChatRequest, model: Claude) -> Conversation:
    thinks = model.thinking != "none"
    return conversation_of(chat, keeps=lambda thought: thinks and bool(unpacked(thought.text, thought.signature)))


def _may_think(talk: Conversation) -> bool:
    """Whether a model that thinks by budget may: a tool loop under way has to show that it began with thinking."""
    if len(talk.turns) < 2 or not any(isinstance(item, Result) for item in talk.turns[-1].items):
        return True
    return talk.turns[-2].role == "assistant" and isinstance(talk.turns[-2].items[0], Thought)


def _messages(talk: Conversation) -> list[Wire]:
    messages: list[Wire] = [{"role": turn.role, "content": _blocks(turn.items)} for turn in talk.turns]
    if not messages:
        message = "The target of this model needs at least one message of the user."
        raise PenstockError("invalid_value", message, param="messages")
    last: Wire = messages[-1]
    if last["role"] == "assistant" and (end := last["content"][-1])["type"] == "text":
        end["text"] = end["text"].rstrip()  # the vendor refuses to continue from a blank
    return messages


def _blocks(items: Iterable[Item]) -> list[Wire]:
    blocks: list[Wire] = []
    for item in items:
        match item:
            case Text():
                blocks.append({"type": "text", "text": item.text})
            case Called():
                blocks.append({"type": "tool_use", "id": plain_id(item.id), "name": item.name, "input": item.arguments})
            case Result():
                blocks.append(_result(item))
            case InlineImage():
                kind = common_format(item, "messages")
                source = {"type": "base64", "media_type": f"image/{kind}", "data": item.base64}
                blocks.append({"type": "image", "source": source})
            case LinkedImage():
                blocks.append({"type": "image", "source": {"type": "url", "url": item.url}})
            case Thought():
                blocks.extend(map(_thinking, unpacked(item.text, item.signature)))
    return blocks


def _thinking(block: Thinking) -> Wire:
    if block.encrypted:
        return {"type": "redacted_thinking", "data": block.encrypted}
    return {"type": "thinking", "thinking": block.text, "signature": block.signature}


def _result(item: Result) -> Wire:
    result: Wire = {"type": "tool_result", "tool_use_id": plain_id(item.id)}
    if content := _blocks(item.content):
        result["content"] = content[0]["text"] if len(content) == 1 and content[0]["type"] == "text" else content
    return result


def _marked(blocks: list[Wire], *, cached: bool) -> list[Wire]:
    """The blocks, the vendor's cache beginning at the last one."""
    if cached and blocks:
        blocks[-1]["cache_control"] = _CACHED
    return blocks


def _tool(tool: Tool, model: Claude) -> Wire:
    function = tool.function
    wire: Wire = {"name": function.name, "input_schema": of_object(function.parameters)}
    if function.description:
        wire["description"] = function.description
    if function.strict and model.structured:
        wire["strict"] = True
        wire["input_schema"] = closed(wire["input_schema"])
    return wire


def _tool_choice(chat: ChatRequest, *, forced: bool) -> Wire | None:
    choice: Wire | None = None
    if isinstance(chat.tool_choice, NamedToolChoice):
        choice = {"type": "tool", "name": chat.tool_choice.function.name} if forced else None
    elif chat.tool_choice is not None:
        choice = {"type": _CHOICES[chat.tool_choice]} if forced or chat.tool_choice != "required" else None
    if chat.parallel_tool_calls is not False or chat.tool_choice == "none":
        return choice
    return (choice or {"type": "auto"}) | {"disable_parallel_tool_use": True}


def _sampling(chat: ChatRequest, left_out: frozenset[str]) -> Wire:
    if chat.temperature is not None and chat.temperature > 1:
        message = "Invalid value for 'temperature': the target of this model takes 0 to 1."
        raise PenstockError("invalid_value", message, param="temperature")
    asked = (("temperature", chat.temperature, 1), ("top_p", chat.top_p, 1), ("top_k", chat.top_k, None))
    wire: Wire = {name: value for name, value, own in asked if value not in (None, own) and name not in left_out}
    if stops := fields.stops(chat):
        wire["stop_sequences"] = stops
    return wire


def _output(form: ResponseFormat | None, wanted: Plan) -> Wire:
    wire: Wire = {}
    if wanted.effort is not None:
        wire["effort"] = wanted.effort
    if form is not None and form.type == "json_schema":
        schema = form.json_schema.schema if form.json_schema else None
        wire["format"] = {"type": "json_schema", "schema": closed(schema or {"type": "object"})}
    return wire
