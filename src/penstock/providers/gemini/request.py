"""Our chat request as Gemini's GenerateContentRequest."""

import re
from typing import Any

import msgspec

from penstock.domain.chat import BoundRequest, ChatRequest, Json, NamedToolChoice
from penstock.domain.errors import PenstockError
from penstock.providers.gemini import models, signatures
from penstock.providers.translation.fields import Field, FieldTable, Handling
from penstock.providers.translation.turns import (
    Called,
    Conversation,
    InlineImage,
    Item,
    LinkedImage,
    Result,
    Text,
    Thought,
    Turn,
)

_T, _I, _R = Handling.TRANSLATED, Handling.IGNORED, Handling.REFUSED

FIELDS: FieldTable = {
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), Field(_T, "maxOutputTokens, which bounds thoughts too")),
    **dict.fromkeys(("temperature", "top_p", "top_k"), Field(_T)),
    "min_p": Field(_R, "Gemini has no min_p"),
    "stop": Field(_T, "stopSequences, at most 5"),
    "seed": Field(_T, "32 bits"),
    "n": Field(_T, "candidateCount, at most 8; not every model has it"),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), Field(_T, "not every model has it")),
    "logprobs": Field(_T, "responseLogprobs; not every model has it"),
    "top_logprobs": Field(_T, "logprobs, at most 20"),
    "logit_bias": Field(_I),
    "stream_options": Field(_T),
    "response_format": Field(_T, "responseMimeType and responseJsonSchema"),
    "tools": Field(_T, "functionDeclarations; strict asks for mode VALIDATED of the whole request"),
    "tool_choice": Field(_T, "functionCallingConfig"),
    "parallel_tool_calls": Field(_R, "Gemini cannot be kept from parallel calls"),
    "reasoning_effort": Field(_T, "thinkingLevel, for Gemini 2.5 thinkingBudget"),
    "extended_thinking": Field(_T, "thinkingLevel, for Gemini 2.5 thinkingBudget within its bounds; includeThoughts"),
    "modalities": Field(_R, "text only"),
    **dict.fromkeys(("user", "metadata", "store", "prediction", "service_tier", "safety_identifier"), Field(_I)),
    **dict.fromkeys(("prompt_cache_key", "audio", "verbosity"), Field(_I)),
}
# Parameters whose value goes as it is under another name.
_RENAMED = {
    "max_output": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
# In a Struct every number is a double, and "$ref" names a part of the result (2026-11-23, the API's own refusal).
_NO_STRUCT = re.compile(r'"\$ref"|\d{16}')
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_raw_object = msgspec.json.Decoder(dict[str, Any])


def body(request: BoundRequest, talk: Conversation) -> bytes:
    """The request; every image of the conversation has been fetched. Raises PenstockError."""
    chat, model = request.chat, request.target_model
    wire: dict[str, Json] = {"contents": [_content(turn, model) for turn in talk.turns]}
    if talk.system:
        wire["systemInstruction"] = {"parts": [{"text": text} for text in talk.system]}
    if chat.tools:
        wire["tools"] = [{"functionDeclarations": [_declaration(chat, at) for at in range(len(chat.tools))]}]
        if config := _calling(chat, model):
            wire["toolConfig"] = {"functionCallingConfig": config}
    if config := _generation(chat, model):
        wire["generationConfig"] = config
    return msgspec.json.encode(wire)


def _content(turn: Turn, model: str) -> dict[str, Json]:
    if turn.role == "assistant":
        return {"role": "model", "parts": _answered(turn.items, checked=not models.is_budgeted(model))}
    nested = not models.is_budgeted(model)
    parts = [
        part for item in turn.items for part in (_result(item, nested) if isinstance(item, Result) else _said(item))
    ]
    return {"role": "user", "parts": parts}


def _said(item: Item) -> list[Json]:
    if isinstance(item, Text):
        return [{"text": item.text}]
    if isinstance(item, InlineImage):
        return [{"inlineData": {"mimeType": item.media_type, "data": item.base64}}]
    assert not isinstance(item, LinkedImage), "fetched before"
    return []


def _answered(items: list[Item], *, checked: bool) -> list[Json]:
    """The parts of a model's turn. Where signatures are checked, the first call of a turn must have one."""
    parts: list[Json] = []
    waiting: str | None = None
    missing = checked
    for item in items:
        if isinstance(item, Thought):
            waiting = signatures.read_thought(item.signature)
            continue
        made, signature = _said(item), None
        if isinstance(item, Called):
            identity, signature = signatures.split_id(item.id)
            made = [{"functionCall": {"id": identity, "name": item.name, "args": item.arguments}}]
            signature = signature or waiting or (signatures.UNSIGNED if missing else None)
            missing = False
        elif made:
            signature = waiting
        if signature and made:
            made[0]["thoughtSignature"] = signature
        waiting = None
        parts += made
    return parts


def _result(item: Result, nested: bool) -> list[Json]:
    """A tool's answer: its text as an object, its images inside since Gemini 3 and beside before."""
    if not item.name:
        message = f"The tool message for '{item.id[:80]}' answers a call that no assistant message before it made."
        raise PenstockError("invalid_value", message, param="messages")
    response: dict[str, Json] = {
        "id": signatures.split_id(item.id)[0],
        "name": item.name,
        "response": _object("".join(part.text for part in item.content if isinstance(part, Text))),
    }
    images = [part for found in item.content if isinstance(found, InlineImage) for part in _said(found)]
    if images and nested:
        response["parts"] = images
        images = []
    return [{"functionResponse": response}, *images]


def _object(text: str) -> dict[str, Json]:
    if _NO_STRUCT.search(text):
        return {"output": text}
    try:
        return _raw_object.decode(text)
    except (ValueError, RecursionError):
        return {"output": text}


def _declaration(chat: ChatRequest, at: int) -> dict[str, Json]:
    """``parametersJsonSchema`` takes JSON Schema; ``parameters`` takes OpenAPI's (2026-11-23, API reference)."""
    function = (chat.tools or [])[at].function
    wire: dict[str, Json] = {"name": function.name}
    if function.description:
        wire["description"] = function.description
    if function.parameters:
        wire["parametersJsonSchema"] = function.parameters
    return wire


def _calling(chat: ChatRequest, model: str) -> dict[str, Json] | None:
    choice = chat.tool_choice
    if isinstance(choice, NamedToolChoice):
        return {"mode": "ANY", "allowedFunctionNames": [choice.function.name]}
    strict = any(tool.function.strict for tool in chat.tools or ()) and models.validates_calls(model)
    if strict and choice in (None, "auto"):
        return {"mode": "VALIDATED"}
    return {"mode": _MODES[choice]} if choice else None


def _generation(chat: ChatRequest, model: str) -> dict[str, Json]:
    values = {name: getattr(chat, ours) for ours, name in _RENAMED.items()}
    config: dict[str, Json] = {name: value for name, value in values.items() if value is not None}
    if chat.stop:
        config["stopSequences"] = [chat.stop] if isinstance(chat.stop, str) else chat.stop
    if chat.logprobs:
        config["responseLogprobs"] = True
        if chat.top_logprobs:
            config["logprobs"] = chat.top_logprobs
    wanted = chat.response_format
    if wanted is not None and wanted.type != "text":
        config["responseMimeType"] = "application/json"
        if wanted.json_schema is not None and wanted.json_schema.schema is not None:
            config["responseJsonSchema"] = wanted.json_schema.schema
    if (thinking := models.thinking(model, chat)) is not None:
        config["thinkingConfig"] = thinking
    return config
