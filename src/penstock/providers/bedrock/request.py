"""A chat request in Converse's words (service model of botocore 1.44, 2026-11)."""

import re
from functools import lru_cache
from typing import Any

import msgspec

from penstock.domain.chat import BoundRequest, ChatRequest, NamedToolChoice, Tool
from penstock.domain.errors import PenstockError
from penstock.providers.anthropic.thinking import BUDGETS
from penstock.providers.bedrock.families import Family, family_of
from penstock.providers.bedrock.limits import tokens
from penstock.providers.translation.fields import Field, Fields, FieldTable, Handling
from penstock.providers.translation.proofs import Thinking, unpacked
from penstock.providers.translation.schemas import closed, of_object
from penstock.providers.translation.turns import (
    Called,
    Content,
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

Block = dict[str, Any]
_TRANSLATED, _IGNORED, _REFUSED = Handling.TRANSLATED, Handling.IGNORED, Handling.REFUSED
_NO_EFFECT = (
    "seed n presence_penalty frequency_penalty logprobs top_logprobs logit_bias user store prediction "
    "safety_identifier prompt_cache_key audio verbosity"
)
FIELDS: FieldTable = {
    "max_tokens": Field(_TRANSLATED),
    "max_completion_tokens": Field(_TRANSLATED),
    "temperature": Field(
        _TRANSLATED, "0 to 1; not by Claude from 4.7 on, nor with its thinking; by Claude from 4.1 on it or top_p"
    ),
    "top_p": Field(_TRANSLATED, "as temperature; with thinking from 0.95 on"),
    "top_k": Field(_TRANSLATED, "Claude before 4.7, without thinking, and Nova only"),
    "min_p": Field(_REFUSED, "Converse has no such parameter"),
    "stop": Field(_TRANSLATED, "for Claude not of blanks alone"),
    "stream_options": Field(_TRANSLATED),
    "response_format": Field(_TRANSLATED, "json_schema, for models with structured output; no json_object"),
    "tools": Field(_TRANSLATED, "strict, for models with structured output"),
    "tool_choice": Field(
        _TRANSLATED,
        "none: only Claude is kept from calling tools that the history names; for Claude forced choices not with a "
        "thinking budget, nor from 5.1 on but Haiku",
    ),
    "parallel_tool_calls": Field(_TRANSLATED, "Claude only, else ignored"),
    "reasoning_effort": Field(
        _TRANSLATED,
        "ignored for models that do not reason; high is medium for Nova 2 where tokens or sampling are bounded",
    ),
    "extended_thinking": Field(_TRANSLATED, "refused for models that do not reason; a budget is Claude's before 4.7"),
    "modalities": Field(_REFUSED, "text only"),
    "metadata": Field(
        _TRANSLATED, "stands in the account's invocation logs, as far as it fits their alphabet and length"
    ),
    "service_tier": Field(_TRANSLATED, "flex and priority; others are ignored"),
    **dict.fromkeys(_NO_EFFECT.split(), Field(_IGNORED, "Converse has no such parameter")),
}
TIERS = ("flex", "priority")
_LOGGED = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,\-.]{0,256}", re.ASCII)
_CACHE_POINT: Block = {"cachePoint": {"type": "default"}}


@lru_cache(maxsize=256)
def fields_of(model: str, *, json_object: bool = False) -> Fields:
    """FIELDS as the model of that id has them; json_object, for a request that asks for it."""
    family = family_of(model)
    thinks = family.thinking is not None or bool(family.efforts)
    taken = {
        "temperature": family.samples,
        "top_p": family.samples,
        "top_k": bool(family.top_k),
        "response_format": family.schemas and not json_object,
        "extended_thinking": thinks,
    }
    # Without a hint an answer is still an answer.
    hints = {"reasoning_effort": thinks, "parallel_tool_calls": family.native_choice}
    without = {name: _REFUSED for name, has in taken.items() if not has}
    without |= {name: _IGNORED for name, has in hints.items() if not has}
    changed = {name: Field(handling, FIELDS[name].note) for name, handling in without.items()}
    return Fields("bedrock", {**FIELDS, **changed})


def honoured(request: BoundRequest, fields: Fields) -> BoundRequest:
    """The request without what its model does not take."""
    dropped = {name: None for name in _not_taken(fields) if getattr(request.chat, name) is not None}
    if not dropped:
        return request
    return msgspec.structs.replace(request, chat=msgspec.structs.replace(request.chat, **dropped))


@lru_cache(maxsize=256)
def _not_taken(fields: Fields) -> tuple[str, ...]:
    return tuple(name for name, field in fields.table.items() if field.handling in (_IGNORED, _REFUSED))


def unsaid(chat: ChatRequest) -> tuple[str, ...]:
    """The parameters that this request asks for with values that have no place in Converse."""
    names: tuple[str, ...] = ()
    if chat.service_tier not in (None, "auto", "default", *TIERS):
        names += ("service_tier",)
    if chat.metadata and logged(chat) != chat.metadata:
        names += ("metadata",)
    return names


def keeps(thought: Thought, family: Family) -> bool:
    """Whether a thought goes back. Only Claude takes thoughts, and only what it signed itself (2026-11)."""
    return family.thinking is not None and bool(unpacked(thought.text, thought.signature))


def linked_images(conversation: Conversation) -> list[LinkedImage]:
    """The images that have to be fetched."""
    items = [item for turn in conversation.turns for item in turn.items]
    inner = [part for item in items if isinstance(item, Result) for part in item.content]
    return [item for item in (*items, *inner) if isinstance(item, LinkedImage)]


def write(
    request: BoundRequest, family: Family, conversation: Conversation, images: dict[LinkedImage, InlineImage]
) -> bytes:
    """The body. ``images`` are the fetched ones; the request asks for nothing that the family does not take."""
    chat = request.chat
    cache = family.cache if request.prompt_caching else ()
    extra, budget = _thinking(chat, family, conversation)
    blocks = _Blocks(images)
    turns: list[Block] = [{"role": turn.role, "content": blocks.all(turn.items)} for turn in conversation.turns]
    _trim(turns)
    body: Block = {"messages": turns}
    if system := [{"text": text} for text in conversation.system]:
        body["system"] = [*system, _CACHE_POINT] if "system" in cache else system
    most, budget = tokens(chat.max_output, budget, request.target_model)
    if budget:
        extra["thinking"]["budget_tokens"] = budget
    if inference := _inference(chat, most):
        body["inferenceConfig"] = inference
    if tools := _tools(chat, family, conversation, extra):
        if "tools" in cache:
            tools["tools"].append(_CACHE_POINT)
        body["toolConfig"] = tools
    if chat.top_k is not None:
        value: Any = chat.top_k
        for name in reversed(family.top_k):
            value = {name: value}
        extra |= value
    if extra:
        body["additionalModelRequestFields"] = extra
    return msgspec.json.encode(body | _settings(chat))


def logged(chat: ChatRequest) -> dict[str, str]:
    """The metadata that the vendor takes: 16 pairs, each of 256 characters of its own alphabet (service model)."""
    if not isinstance(chat.metadata, dict):
        return {}
    texts = {name: value for name, value in chat.metadata.items() if isinstance(value, str)}
    fit = [(name, value) for name, value in texts.items() if _LOGGED.fullmatch(name) and _LOGGED.fullmatch(value)]
    return {name: value for name, value in fit[:16] if name}


def _settings(chat: ChatRequest) -> Block:
    settings: Block = {}
    if chat.service_tier in TIERS:
        settings["serviceTier"] = {"type": chat.service_tier}
    if pairs := logged(chat):
        settings["requestMetadata"] = pairs
    form = chat.response_format
    if form is not None and form.type == "json_schema" and (wanted := form.json_schema) is not None:
        schema = {
            "schema": msgspec.json.encode(closed(wanted.schema or {"type": "object"})).decode(),
            "name": wanted.name,
        }
        if wanted.description:
            schema["description"] = wanted.description
        settings["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}
    return settings


def _inference(chat: ChatRequest, most: int | None) -> Block:
    if (chat.temperature or 0) > 1:
        message = f"Invalid value for 'temperature': the target of this model takes 0 to 1, got {chat.temperature:g}."
        raise PenstockError("invalid_value", message, param="temperature")
    stop = [text for text in ([chat.stop] if isinstance(chat.stop, str) else chat.stop or ()) if text]
    said = {"maxTokens": most, "temperature": chat.temperature, "topP": chat.top_p, "stopSequences": stop or None}
    return {name: value for name, value in said.items() if value is not None}


def _thinking(chat: ChatRequest, family: Family, conversation: Conversation) -> tuple[Block, int]:
    """Extra fields, and the budget where thinking has one. ``extended_thinking`` wins over ``reasoning_effort``."""
    asked, level = chat.extended_thinking, chat.reasoning_effort
    if asked is None and level is None:
        return {}, 0
    if not (level != "none" if asked is None else asked.enabled):
        return dict(family.efforts.get("none", {})), 0
    budget = asked.budget_tokens if asked else None
    level = None if level == "none" else level
    if family.thinking == "budget" or (family.thinking == "both" and budget):
        if not may_think(conversation):
            return {}, 0
        budget = budget or BUDGETS.get(level or "", BUDGETS["medium"])
        return {"thinking": {"type": "enabled", "budget_tokens": budget}}, budget
    if level is None and budget is not None:
        level = next((name for name in ("low", "medium") if budget <= BUDGETS[name]), "high")
    if family.thinking is None:
        bounded = any(value is not None for value in (chat.max_output, chat.temperature, chat.top_p, chat.top_k))
        level = "medium" if level is None or (bounded and level in family.unbounded) else level
        return dict(family.efforts.get(level, {})), 0
    # From 4.7 on the text of thoughts is left out unless it is asked for (2026-11).
    shown = {"display": "summarized"} if asked and asked.include_reasoning else {}
    return {"thinking": {"type": "adaptive"} | shown, **family.efforts.get(level or "", {})}, 0


def may_think(conversation: Conversation) -> bool:
    """Whether no results of a turn without thoughts are due: the vendor refuses to begin thinking there."""
    if len(conversation.turns) < 2 or not any(isinstance(item, Result) for item in conversation.turns[-1].items):
        return True
    return any(isinstance(item, Thought) for item in conversation.turns[-2].items)


def _tools(chat: ChatRequest, family: Family, conversation: Conversation, extra: Block) -> Block:
    """toolConfig. Converse demands it where the history calls tools, also when the request has none or wants none: then
    their names stand in for them, and Claude is told in its own words not to call any."""
    called = {
        plain_id(item.name): None for turn in conversation.turns for item in turn.items if isinstance(item, Called)
    }
    specs = [_spec(tool, family) for tool in chat.tools or ()]
    none = chat.tool_choice == "none" or not specs
    if none and not called:
        return {}
    if not specs:
        specs = [{"toolSpec": {"name": name, "inputSchema": {"json": of_object(None)}}} for name in called]
    config: Block = {"tools": specs}
    choice: Block = {"auto": {}}
    if isinstance(chat.tool_choice, NamedToolChoice):
        choice = {"tool": {"name": chat.tool_choice.function.name}}
    elif chat.tool_choice == "required":
        choice = {"any": {}}
    if family.native_choice and (none or chat.parallel_tool_calls is False):
        kind, arguments = next(iter(choice.items()))
        once = {"type": kind, **arguments, "disable_parallel_tool_use": True}
        extra["tool_choice"] = {"type": "none"} if none else once
    elif "auto" not in choice:
        config["toolChoice"] = choice
    return config


def _spec(tool: Tool, family: Family) -> Block:
    function = tool.function
    strict = bool(function.strict) and family.schemas
    schema = of_object(function.parameters)
    spec: Block = {"name": function.name, "inputSchema": {"json": closed(schema) if strict else schema}}
    if function.description:
        spec["description"] = function.description
    if strict:
        spec["strict"] = True
    return {"toolSpec": spec}


def _trim(turns: list[Block]) -> None:
    """No model continues from a blank: Claude refuses to (2026-11)."""
    if turns and turns[-1]["role"] == "assistant" and "text" in (end := turns[-1]["content"][-1]):
        end["text"] = end["text"].rstrip()


class _Blocks:
    """Writes content blocks."""

    def __init__(self, images: dict[LinkedImage, InlineImage]) -> None:
        self._images = images

    def all(self, items: list[Item]) -> list[Block]:
        """The blocks of a turn."""
        return [block for item in items for block in self._blocks(item)]

    def _blocks(self, item: Item) -> list[Block]:
        if isinstance(item, Thought):
            return [_thought(block) for block in unpacked(item.text, item.signature)]
        if isinstance(item, Called):
            return [{"toolUse": {"toolUseId": plain_id(item.id), "name": plain_id(item.name), "input": item.arguments}}]
        if isinstance(item, Result):
            content = [block for part in item.content for block in self._content(part)]
            return [{"toolResult": {"toolUseId": plain_id(item.id), "content": content}}]
        return self._content(item)

    def _content(self, item: Content) -> list[Block]:
        if isinstance(item, Text):
            return [{"text": item.text}]
        image = self._images[item] if isinstance(item, LinkedImage) else item
        kind = common_format(image, item.param if isinstance(item, LinkedImage) else "messages")
        return [{"image": {"format": kind, "source": {"bytes": image.base64}}}]


def _thought(block: Thinking) -> Block:
    if block.encrypted:
        return {"reasoningContent": {"redactedContent": block.encrypted}}
    return {"reasoningContent": {"reasoningText": {"text": block.text, "signature": block.signature}}}
