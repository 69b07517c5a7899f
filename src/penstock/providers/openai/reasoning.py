"""Thoughts as servers of the OpenAI dialect write them, a text, and as our clients read them, an object."""

import re
from typing import Any

import msgspec

# The names under which servers write thoughts as text; null and an object say nothing that must change.
TEXT = rb'reasoning(?:_content)?"\s*:\s*"'
MARK = re.compile(b'"' + TEXT)


def translated(answer: bytes) -> bytes:
    """A chunk or a plain answer with its thoughts as ``reasoning: {"thinking": ...}``. It is JSON already."""
    data = msgspec.json.decode(answer)
    for choice in data.get("choices") or ():
        for holder in (choice.get("delta"), choice.get("message")):
            if isinstance(holder, dict):
                _translate(holder)
    return msgspec.json.encode(data)


def _translate(holder: dict[str, Any]) -> None:
    texts = [holder.pop(name) for name in ("reasoning", "reasoning_content") if isinstance(holder.get(name), str)]
    if thinking := next(filter(None, texts), ""):
        holder["reasoning"] = {"thinking": thinking}


# What clients echo of thoughts: our form, those of the servers, and those of other gateways (2026-11).
ECHOED = ("reasoning", "reasoning_content", "reasoning_details", "thinking_blocks", "provider_specific_fields")


def sent_back(message: dict[str, Any], field: str | None, *, details: bool) -> None:
    """A message of the history with its thoughts as the server wants them back: under ``field`` or not at all, and with
    their ``reasoning_details`` where it knows those."""
    echoed = {name: message.pop(name, None) for name in ECHOED}
    said = echoed["reasoning"] or echoed["reasoning_content"]
    text = said.get("thinking") if isinstance(said, dict) else said
    if field is not None and isinstance(text, str) and text:
        message[field] = text
    if details and echoed["reasoning_details"]:
        message["reasoning_details"] = echoed["reasoning_details"]
