"""Our chat request as the library's arguments."""

import base64
from typing import Any

import msgspec

from penstock.domain.chat import BoundRequest, Json
from penstock.domain.errors import PenstockError
from penstock.providers.spec import Images
from penstock.providers.translation.call_ids import short
from penstock.providers.translation.fields import Field, FieldTable, Handling

_PASSED = ("temperature", "top_p", "stop", "tools", "tool_choice")
# The library refuses these by itself where it knows that a provider has them not.
_PASSED_TO_SOME = (
    *("seed", "n", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "logit_bias"),
    *("response_format", "parallel_tool_calls", "reasoning_effort"),
)
_IGNORED = (
    *("user", "metadata", "store", "prediction", "service_tier", "safety_identifier", "prompt_cache_key", "audio"),
    "verbosity",
)
FIELDS: FieldTable = {
    "max_tokens": Field(Handling.TRANSLATED),
    "max_completion_tokens": Field(Handling.TRANSLATED, "max_tokens, as the library names it for each provider"),
    "stream_options": Field(Handling.TRANSLATED),
    **dict.fromkeys(_PASSED, Field(Handling.PASSED)),
    **dict.fromkeys(_PASSED_TO_SOME, Field(Handling.PASSED, "refused where the provider is known to lack it")),
    **dict.fromkeys(("top_k", "min_p"), Field(Handling.REFUSED, "the library has no such parameter")),
    "extended_thinking": Field(
        Handling.TRANSLATED, "reasoning_effort: low to 2,048 tokens, medium to 8,192, else high"
    ),
    "modalities": Field(Handling.REFUSED, "text only"),
    **dict.fromkeys(_IGNORED, Field(Handling.IGNORED)),
}
# What every provider takes of a message; thoughts and notes that clients echo are left out.
_OF_MESSAGE = ("role", "content", "name", "tool_calls", "tool_call_id")
_object = msgspec.json.Decoder(dict[str, Any])


async def arguments(request: BoundRequest, images: Images) -> dict[str, Json]:
    """The arguments of ``acompletion``, from the client's own JSON. Raises PenstockError."""
    chat, sent = request.chat, _object.decode(request.raw)
    names = (*_PASSED, *_PASSED_TO_SOME)
    given: dict[str, Json] = {name: sent[name] for name in names if sent.get(name) is not None}
    given |= {"model": request.target_model, "stream": bool(chat.stream), "messages": []}
    for at, message in enumerate(sent["messages"]):
        kept = {name: message[name] for name in _OF_MESSAGE if message.get(name) is not None}
        if kept.keys() == {"role"}:
            kept["content"] = message.get("refusal") or ""
        if "tool_calls" in kept:
            kept["tool_calls"] = [call | {"id": short(call.get("id") or "")} for call in kept["tool_calls"]]
        if "tool_call_id" in kept:
            kept["tool_call_id"] = short(kept["tool_call_id"])
        if isinstance(content := kept.get("content"), list):
            where = f"messages[{at}].content"
            kept["content"] = [await _part(part, f"{where}[{number}]", images) for number, part in enumerate(content)]
        given["messages"].append(kept)
    thinking = chat.extended_thinking
    if thinking is not None and not thinking.enabled:
        given.pop("reasoning_effort", None)  # no word for none that all of them take
    elif thinking is not None:
        budget = thinking.budget_tokens or 8192
        given["reasoning_effort"] = "low" if budget <= 2048 else "medium" if budget <= 8192 else "high"
    if chat.stream:
        given["stream_options"] = {"include_usage": True}
    if chat.max_output is not None:
        given["max_tokens"] = chat.max_output
    return given


async def _part(part: dict[str, Json], param: str, images: Images) -> dict[str, Json]:
    """A text, or an image with its data: who would fetch an address, and from where, is not the library's choice."""
    link = part.get("image_url")
    url = link.get("url") if isinstance(link, dict) else link
    if part.get("type") == "image_url" and isinstance(url, str):
        if url[:5].lower() != "data:":
            found = await images.fetch(url, f"{param}.image_url.url")
            url = f"data:{found.media_type};base64,{base64.b64encode(found.data).decode()}"
        return {"type": "image_url", "image_url": {"url": url}}
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    message = "The target of this model takes parts of text and of images only."
    raise PenstockError("unsupported_parameter", message, param=param)
